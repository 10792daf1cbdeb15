"""Published models of RobustBench: their architectures, with weights from local files, and the published figures."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ModelSpec
from robustbench_lab.plugin_tools.wrapped_library import wrapper_version


@hookimpl
def rbl_models() -> list[ModelSpec]:
    """Every entry of RobustBench's model zoo."""
    return [
        ModelSpec(
            name="robustbench:",
            factory="rbl_robustbench.robustbench_model:robustbench_model",
            summary="published models: robustbench:Carmon2019Unlabeled(weights='carmon.pt')",
            version=wrapper_version("1", "robustbench"),
            requires=("robustbench", "geotorch", "torchdiffeq"),
            # It asks for one old timm, and runs with later ones.
            install='pip install "robustbench-lab[robustbench]" && pip install --no-deps robustbench',
            published="rbl_robustbench.published:published",
        )
    ]
