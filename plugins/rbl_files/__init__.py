"""A user's own models and data, from files they name."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import DatasetSpec, ModelSpec


@hookimpl
def rbl_datasets() -> list[DatasetSpec]:
    """Images from an .npz file, or from a folder with one subfolder a class; series from a CSV or Parquet file."""
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
        DatasetSpec(
            name="csv",
            factory="rbl_files.csv_series:csv_series",
            summary="windows of series in a CSV file: csv(path='ETTh1.csv', time='date', history=336, horizon=96)",
            tasks=("forecasting",),
            default_norm="series",
            default_eps=0.1,
            version="1",
            requires=("pandas",),
        ),
        DatasetSpec(
            name="parquet",
            factory="rbl_files.parquet_series:parquet_series",
            summary="windows of series in a Parquet or Arrow file, as fev, GluonTS and Hugging Face datasets keep them",
            tasks=("forecasting",),
            default_norm="series",
            default_eps=0.1,
            version="1",
            requires=("pandas", "pyarrow"),
            extra="parquet",
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
            tasks=(),
            version="1",
        )
    ]
