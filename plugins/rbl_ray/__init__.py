"""Work units on a Ray cluster."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import ExecutorSpec


@hookimpl
def rbl_executors() -> list[ExecutorSpec]:
    """One executor."""
    return [
        ExecutorSpec(
            name="ray",
            factory="rbl_ray.ray_executor:RayExecutor",
            summary="on a Ray cluster: ray(address='10.0.0.1:6379'); one on this machine where there is none",
            tasks=(),
            version="1",
            requires=("ray",),
            extra="ray",
        )
    ]
