"""The core's own components, registered as a stranger would register them."""

from robustbench_lab.contracts import (
    DefenseSpec,
    ExecutorSpec,
    MetricSpec,
    ObjectiveSpec,
    ReportSpec,
    TaskSpec,
    ThreatModelSpec,
)
from robustbench_lab.hookspecs import hookimpl

VERSION = "1"

ANY_TASK_THREAT_MODELS = {
    "linf": ("norm_balls:Linf", "every value changes by at most eps"),
    "l2": ("norm_balls:L2", "the Euclidean length of the change is at most eps"),
    "l1": ("norm_balls:L1", "the absolute changes sum to at most eps"),
    "l0": ("norm_balls:L0", "at most eps values change, each as far as the bounds allow"),
    "patch": (
        "patch:Patch",
        "one square window changes, anywhere in the image; eps is its share of the area",
    ),
    "placed-patch": (
        "bound_patches:PlacedPatch",
        "one square window changes, at the same place of every image; eps is its share of the area",
    ),
}
"""Those that need no more than a name: name to factory and summary."""
DETECTION_OBJECTIVES = {
    "untargeted": ("Untargeted", "objects lost, mislabelled, misplaced or invented: the training loss rises"),
    "vanish": ("Vanish", "nothing is reported where the objects are"),
    "fabricate": ("Fabricate", "objects are reported where there are none"),
    "mislabel": ("Mislabel", "objects are found and called something else"),
    "targeted-mislabel": ("TargetedMislabel", "objects are found and given one chosen label"),
    "dag": ("Dag", "every candidate about an object is called something else (Xie et al. 2017)"),
    "feature": ("Feature", "features lose their contrast, so that the attack transfers (Lu et al. 2020)"),
    "latency": ("Latency", "non-maximum suppression gets many times more candidates"),
}
"""Name to factory and summary."""
RAISED_VERSIONS = {"latency": "2"}
"""Objectives whose numbers have changed."""
DETECTION_METRICS = {
    "clean_map": ("COCO mAP of the clean images", True),
    "robust_map": ("COCO mAP under attack", True),
    "clean_map50": ("mAP at IoU 0.5 of the clean images", True),
    "robust_map50": ("mAP at IoU 0.5 under attack", True),
    "vanished_rate": ("share of the found objects that nothing reports under attack", False),
    "mislabelled_rate": ("share of the found objects that have wrong labels only under attack", False),
    "fabricated_rate": ("reports of nothing under attack, for each object found", False),
    "false_positives": ("wrong reports under attack, for each image", False),
    "clean_nms_candidates": ("candidates that go to non-maximum suppression, for each clean image", False),
    "nms_candidates": ("candidates that go to non-maximum suppression under attack, for each image", False),
}
"""Name to summary, and whether higher is better."""
OWN_OBJECTIVES = {
    "vanished_rate": ("vanish",),
    "mislabelled_rate": ("mislabel", "targeted-mislabel", "dag"),
    "fabricated_rate": ("fabricate",),
    "false_positives": ("fabricate",),
    "clean_nms_candidates": ("latency",),
    "nms_candidates": ("latency",),
}
"""Metric of detectors to the objectives whose own quantity it is."""
CLEAN_COUNTERPARTS = {
    "robust_map": "clean_map",
    "robust_map50": "clean_map50",
    "nms_candidates": "clean_nms_candidates",
}
COUNTS = ("fabricated_rate", "false_positives", "clean_nms_candidates", "nms_candidates")
"""Metrics of detectors that are no share of 1."""
FORECASTING_OBJECTIVES = {
    "error": ("Error", "the forecast as wrong as can be, by the true future or the model's own clean forecast"),
    "up": ("Up", "the forecast too high"),
    "down": ("Down", "the forecast too low"),
    "target": ("Target", "the forecast near to a multiple of the clean one, or to a level"),
    "widen": ("Widen", "the intervals of a distribution so wide that they say nothing"),
    "narrow": ("Narrow", "the intervals of a distribution so narrow that the model seems sure"),
}
"""Name to factory and summary."""
FORECASTING_METRICS = {
    "clean_mase": "mean absolute scaled error without attack",
    "robust_mase": "mean absolute scaled error under attack",
    "error_rise": "how many times the error is under attack what it is without",
    "broken_rate": "share of the windows whose error became so many times larger",
    "clean_mae": "mean absolute error without attack, in training standard deviations",
    "robust_mae": "mean absolute error under attack, in training standard deviations",
    "clean_mse": "mean squared error without attack, in training variances",
    "robust_mse": "mean squared error under attack, in training variances",
    "clean_rmse": "root mean squared error without attack, in training standard deviations",
    "robust_rmse": "root mean squared error under attack, in training standard deviations",
    "clean_smape": "symmetric mean absolute percentage error without attack, 0 to 2",
    "robust_smape": "symmetric mean absolute percentage error under attack, 0 to 2",
    "clean_crps": "continuous ranked probability score without attack, in training standard deviations",
    "robust_crps": "continuous ranked probability score under attack, in training standard deviations",
    "clean_wql": "weighted quantile loss without attack",
    "robust_wql": "weighted quantile loss under attack",
    "clean_coverage": "share of what came within the central 80% interval without attack",
    "robust_coverage": "share of what came within the central 80% interval under attack",
    "clean_width": "width of the central 80% interval without attack, in training standard deviations",
    "robust_width": "width of the central 80% interval under attack, in training standard deviations",
    "forecast_shift": "how far attacks move the mean of a forecast upwards, in training standard deviations",
}
"""Name to summary; lower is better for all of them but the coverage, of which 80% is due."""
SEGMENTATION_OBJECTIVES = {
    "untargeted": ("Untargeted", "every pixel of any class but its own"),
    "targeted": ("Targeted", "every pixel of one chosen class"),
}
"""Name to factory and summary."""
SEGMENTATION_METRICS = {
    "clean_miou": "mean IoU of the clean images",
    "robust_miou": "mean IoU under attack",
    "clean_pixel_accuracy": "share of pixels that are right without attack",
    "robust_pixel_accuracy": "share of pixels that are right under attack",
}
"""Name to summary."""


@hookimpl
def rbl_tasks() -> list[TaskSpec]:
    """The first tasks."""
    return [
        TaskSpec(
            name="detection",
            factory="robustbench_lab.tasks.detection:Detection",
            tasks=("detection",),
            summary="images to boxes with labels and scores",
            version=VERSION,
        ),
        TaskSpec(
            name="forecasting",
            factory="robustbench_lab.tasks.forecasting:Forecasting",
            tasks=("forecasting",),
            summary="windows of series to the steps that follow",
            version=VERSION,
        ),
        TaskSpec(
            name="segmentation",
            factory="robustbench_lab.tasks.segmentation:Segmentation",
            tasks=("segmentation",),
            summary="images to the class of each pixel",
            version=VERSION,
        ),
        TaskSpec(
            name="classification",
            factory="robustbench_lab.tasks.classification:Classification",
            summary="images to one of several classes",
            version=VERSION,
        ),
    ]


@hookimpl
def rbl_objectives() -> list[ObjectiveSpec]:
    """What an adversary of each task's models wants."""
    return [
        ObjectiveSpec(
            name="untargeted",
            factory="robustbench_lab.objectives:Untargeted",
            summary="any class but the right one",
            version=VERSION,
        ),
        ObjectiveSpec(
            name="targeted",
            factory="robustbench_lab.objectives:Targeted",
            summary="one chosen wrong class",
            version=VERSION,
        ),
        *(
            ObjectiveSpec(
                name=name,
                factory=f"robustbench_lab.tasks.detection_objectives:{factory}",
                tasks=("detection",),
                summary=summary,
                version=RAISED_VERSIONS.get(name, VERSION),
            )
            for name, (factory, summary) in DETECTION_OBJECTIVES.items()
        ),
        *(
            ObjectiveSpec(
                name=name,
                factory=f"robustbench_lab.tasks.forecasting_objectives:{factory}",
                tasks=("forecasting",),
                summary=summary,
                version=VERSION,
            )
            for name, (factory, summary) in FORECASTING_OBJECTIVES.items()
        ),
        *(
            ObjectiveSpec(
                name=name,
                factory=f"robustbench_lab.tasks.segmentation_objectives:{factory}",
                tasks=("segmentation",),
                summary=summary,
                version=VERSION,
            )
            for name, (factory, summary) in SEGMENTATION_OBJECTIVES.items()
        ),
    ]


@hookimpl
def rbl_threat_models() -> list[ThreatModelSpec]:
    """Norm balls, whole, in some pixels or in units of a series, square windows, and natural changes."""
    return [
        *(
            ThreatModelSpec(
                name=name,
                factory=f"robustbench_lab.threat_models.{factory}",
                tasks=(),
                summary=summary,
                version=VERSION,
            )
            for name, (factory, summary) in ANY_TASK_THREAT_MODELS.items()
        ),
        ThreatModelSpec(
            name="object-patch",
            factory="robustbench_lab.threat_models.bound_patches:ObjectPatch",
            tasks=("detection",),
            summary="a square changes on each annotated object; eps is its share of the object's box",
            version=VERSION,
        ),
        ThreatModelSpec(
            name="mask",
            factory="robustbench_lab.threat_models.mask:Mask",
            tasks=(),
            summary="a norm ball in some pixels only: a rectangle, a drawn mask, the objects or the background",
            example={"box": [0.0, 0.5, 1.0, 1.0]},
            version=VERSION,
        ),
        ThreatModelSpec(
            name="series",
            factory="robustbench_lab.threat_models.series:Series",
            tasks=("forecasting",),
            summary="values of a history move by at most eps training standard deviations of their series",
            version="2",
        ),
        ThreatModelSpec(
            name="recorded-series",
            factory="robustbench_lab.threat_models.recorded_series:RecordedSeries",
            tasks=("forecasting",),
            summary="values of the recorded series move by at most eps standard deviations, once for all windows",
            shared=True,
            version=VERSION,
        ),
        ThreatModelSpec(
            name="fault",
            factory="robustbench_lab.threat_models.fault:Fault",
            tasks=("forecasting",),
            summary="faults of sensors, clocks and transmission; eps is the severity, 1 to 5",
            version=VERSION,
        ),
        ThreatModelSpec(
            name="spatial",
            factory="robustbench_lab.threat_models.natural:Spatial",
            summary="the image is rotated and shifted; eps=1: by up to 30 degrees and a tenth of the side",
            version=VERSION,
        ),
        ThreatModelSpec(
            name="corruption",
            factory="robustbench_lab.threat_models.natural:Corruption",
            tasks=(),
            summary="noise, blur, weather or compression; eps is the severity, 1 to 5",
            version=VERSION,
        ),
    ]


@hookimpl
def rbl_defenses() -> list[DefenseSpec]:
    """The absence of one, so that every cell has a defense."""
    return [
        DefenseSpec(
            name="none",
            factory="robustbench_lab.undefended:undefended",
            tasks=(),
            summary="the model as it is",
            version=VERSION,
        )
    ]


@hookimpl
def rbl_metrics() -> list[MetricSpec]:
    """Each task's."""
    return [
        *(
            MetricSpec(
                name=name,
                factory=f"robustbench_lab.tasks.forecasting:{name}",
                tasks=("forecasting",),
                summary=summary,
                higher_is_better=name.endswith("coverage"),
                fraction=name == "broken_rate" or name.endswith("coverage"),
                main=name == "robust_mase",
                clean=name.replace("robust", "clean") if name.startswith("robust") else None,
                brief=name.endswith(("mase", "mae")) or name in ("error_rise", "broken_rate"),
                version=VERSION,
            )
            for name, summary in FORECASTING_METRICS.items()
        ),
        *(
            MetricSpec(
                name=name,
                factory=f"robustbench_lab.tasks.detection:{name}",
                tasks=("detection",),
                summary=summary,
                higher_is_better=better,
                fraction=name not in COUNTS,
                main=name == "robust_map",
                clean=CLEAN_COUNTERPARTS.get(name),
                brief=name not in ("clean_map50", "fabricated_rate", "clean_nms_candidates", "nms_candidates"),
                objectives=OWN_OBJECTIVES.get(name, ()),
                version=VERSION,
            )
            for name, (summary, better) in DETECTION_METRICS.items()
        ),
        *(
            MetricSpec(
                name=name,
                factory=f"robustbench_lab.tasks.segmentation:{name}",
                tasks=("segmentation",),
                summary=summary,
                main=name == "robust_miou",
                clean=name.replace("robust", "clean") if name.startswith("robust") else None,
                version=VERSION,
            )
            for name, summary in SEGMENTATION_METRICS.items()
        ),
        MetricSpec(
            name="clean_accuracy",
            factory="robustbench_lab.tasks.classification:clean_accuracy",
            summary="share of samples that are right without attack",
            version=VERSION,
        ),
        MetricSpec(
            name="robust_accuracy",
            factory="robustbench_lab.tasks.classification:robust_accuracy",
            summary="share of samples that are right and that no attack broke",
            main=True,
            clean="clean_accuracy",
            version=VERSION,
        ),
    ]


@hookimpl
def rbl_executors() -> list[ExecutorSpec]:
    """In this process, and in several."""
    return [
        ExecutorSpec(
            name="inline",
            factory="robustbench_lab.executors.inline:InlineExecutor",
            summary="in this process, one work unit after another",
            tasks=(),
            version=VERSION,
        ),
        ExecutorSpec(
            name="local",
            factory="robustbench_lab.executors.local:LocalExecutor",
            summary="one process for each device slot; one that dies or hangs costs its work unit only",
            tasks=(),
            version=VERSION,
        ),
    ]


@hookimpl
def rbl_reports() -> list[ReportSpec]:
    """One module of `robustbench_lab.report` for each format."""
    summaries = {
        "table": "for a terminal",
        "markdown": "a Markdown table",
        "csv": "comma-separated values, one row a model",
        "json": "one JSON document",
        "jsonl": "the results themselves, one a line, to be ranked again elsewhere",
        "latex": "a booktabs table",
    }
    return [
        ReportSpec(
            name=name,
            factory=f"robustbench_lab.report.{name}:render",
            summary=summary,
            tasks=(),
            version=VERSION,
            rows_only=name not in ("json", "jsonl"),
        )
        for name, summary in summaries.items()
    ]
