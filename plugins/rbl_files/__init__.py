"""A user's own models and data, from files they name."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import DatasetSpec, ModelSpec


@hookimpl
def rbl_datasets() -> list[DatasetSpec]:
    """Images from an .npz file, or from a folder with one subfolder a class."""
    return [
        DatasetSpec(
            name="npz",
            factory="rbl_files.npz_dataset:npz_dataset",
            summary="images and labels from a NumPy .npz file: npz(path='test.npz')",
            version="1",
        ),
        DatasetSpec(
            name="image-folder",
            factory="rbl_files.image_folder:image_folder",
            summary="image files, one subfolder a class: image-folder(path='val', size=256, crop=224)",
            version="1",
            requires=("PIL",),
        ),
    ]


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """A user's own `torch.nn.Module`."""
    return [
        ModelSpec(
            name="torch",
            factory="rbl_files.torch_script:torch_model",
            summary="your own nn.Module: torch(path='script.py:make_model', weights='weights.safetensors')",
            version="1",
        )
    ]
