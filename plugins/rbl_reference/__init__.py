"""The reference models and data that `rbl run` evaluates when the user names none."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import DatasetSpec, ModelSpec

DIGITS_EPS = 0.15
"""At this l-infinity budget plain training has lost nearly all of its accuracy and adversarial training little."""
SCENES_EPS = 8 / 255


@hookimpl
def rbl_datasets() -> list[DatasetSpec]:
    """Real data that ships with a dependency."""
    return [
        DatasetSpec(
            name="digits",
            factory="rbl_reference.digits:Digits",
            summary="scikit-learn's real handwritten digits, 8x8 grey pixels, 450 to test (Alpaydin & Kaynak 1998)",
            family="digits",
            default_norm="linf",
            default_eps=DIGITS_EPS,
            version="1",
        )
    ]


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Small networks with weights in this package; train_digits.py made them."""
    return [
        ModelSpec(
            name="digits-cnn",
            factory="rbl_reference.digits_cnn:digits_cnn",
            summary="small CNN on digits, plain training",
            files=("rbl_reference:weights/digits-cnn.safetensors", "rbl_reference:digits_cnn.py"),
            fits=("digits",),
            reference_dataset="digits",
            version="1",
        ),
        ModelSpec(
            name="digits-cnn-at",
            factory="rbl_reference.digits_cnn:digits_cnn_at",
            summary="small CNN on digits, adversarial training (Madry et al. 2018)",
            files=("rbl_reference:weights/digits-cnn-at.safetensors", "rbl_reference:digits_cnn.py"),
            fits=("digits",),
            reference_dataset="digits",
            version="1",
        ),
    ]
