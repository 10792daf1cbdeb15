"""The reference models and data that `rbl run` evaluates when the user names none."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import DatasetSpec, ModelSpec

DIGITS_EPS = 0.15
"""At this l-infinity budget plain training has lost nearly all of its accuracy and adversarial training little."""
SCENES_EPS = 8 / 255
"""The same on scenes; the budget that detectors are usually attacked with (TOG, Chow et al. 2020)."""
DETECTORS = {
    "scene-fcos": "small anchor-free detector on digit-scenes, plain training (FCOS, Tian et al. 2019)",
    "scene-fcos-at": "small anchor-free detector on digit-scenes, adversarial training (Zhang & Wang 2019)",
}
"""Name to summary."""
SEGMENTERS = {
    "scene-unet": "small U-Net on scene-masks, plain training (Ronneberger et al. 2015)",
    "scene-unet-at": "small U-Net on scene-masks, adversarial training (Madry et al. 2018)",
}
"""Name to summary."""
DEMAND_EPS = 0.1
"""In standard deviations of the training part."""
FORECASTERS = {
    "demand-dlinear": "DLinear on Victoria's demand, plain training (Zeng et al. 2023)",
    "demand-nlinear": "NLinear on Victoria's demand, plain training (Zeng et al. 2023)",
    "demand-mlp": "multilayer perceptron on Victoria's demand, plain training",
    "demand-mlp-at": "multilayer perceptron on Victoria's demand, adversarial training (Madry et al. 2018)",
    "demand-mlp-noise": "multilayer perceptron on Victoria's demand, trained on noisy histories",
    "demand-nbeats": "N-BEATS on Victoria's demand, plain training (Oreshkin et al. 2020)",
    "demand-lstm": "LSTM over days on Victoria's demand, plain training",
    "demand-patchtst": "transformer over patches on Victoria's demand, nine quantiles (Nie et al. 2023)",
    "demand-deepar": "autoregressive LSTM on Victoria's demand, sample paths (Salinas et al. 2020)",
}
"""Name to summary."""
SLOW_FORECASTERS = ("demand-deepar",)
"""No part of a run that names no model: they would take longer than all the others."""
FORECASTER_FILES = (
    "forecasters.py",
    "channelwise.py",
    "linear_nets.py",
    "nbeats.py",
    "segment_lstm.py",
    "patchtst.py",
    "deepar.py",
)


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
        ),
        DatasetSpec(
            name="digit-scenes",
            factory="rbl_reference.scenes:DigitScenes",
            summary="1 to 5 real handwritten digits on real photographs, 64x64 pixels, 50 scenes to test",
            tasks=("detection",),
            family="digit-scenes",
            default_norm="linf",
            default_eps=SCENES_EPS,
            version="1",
        ),
        DatasetSpec(
            name="scene-masks",
            factory="rbl_reference.scene_masks:SceneMasks",
            summary="the scenes of digit-scenes with the class of each pixel, background or digit, 50 scenes to test",
            tasks=("segmentation",),
            family="scene-masks",
            default_norm="linf",
            default_eps=SCENES_EPS,
            version="1",
        ),
        DatasetSpec(
            name="victoria-demand",
            factory="rbl_reference.victoria_demand:VictoriaDemand",
            summary="hourly electricity demand of Victoria, a week to the day that follows, 219 days to test (AEMO)",
            tasks=("forecasting",),
            family="victoria-demand",
            default_norm="series",
            default_eps=DEMAND_EPS,
            requires=("tsdata",),
            version="1",
        ),
    ]


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Small networks with weights in this package; made by the train_*.py beside them."""
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
        *(
            ModelSpec(
                name=name,
                factory=f"rbl_reference.scene_fcos:{name.replace('-', '_')}",
                summary=summary,
                tasks=("detection",),
                files=(
                    f"rbl_reference:weights/{name}.safetensors",
                    "rbl_reference:scene_fcos.py",
                    "rbl_reference:fcos_loss.py",
                ),
                fits=("digit-scenes",),
                reference_dataset="digit-scenes",
                version="1",
            )
            for name, summary in DETECTORS.items()
        ),
        *(
            ModelSpec(
                name=name,
                factory=f"rbl_reference.scene_unet:{name.replace('-', '_')}",
                summary=summary,
                tasks=("segmentation",),
                files=(f"rbl_reference:weights/{name}.safetensors", "rbl_reference:scene_unet.py"),
                fits=("scene-masks",),
                reference_dataset="scene-masks",
                on_request=True,
                version="1",
            )
            for name, summary in SEGMENTERS.items()
        ),
        *(
            ModelSpec(
                name=name,
                factory=f"rbl_reference.forecasters:{name.replace('-', '_')}",
                summary=summary,
                tasks=("forecasting",),
                files=(
                    f"rbl_reference:weights/{name}.safetensors",
                    *(f"rbl_reference:{file}" for file in FORECASTER_FILES),
                ),
                fits=("victoria-demand",),
                reference_dataset=None if name in SLOW_FORECASTERS else "victoria-demand",
                requires=("tsdata",),
                version="2",
            )
            for name, summary in FORECASTERS.items()
        ),
    ]
