"""The devices a run can use."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_lab.errors import UsageError


def resolve_devices(names: Sequence[str]) -> tuple[str, ...]:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps` to devices that are there; `auto` is every GPU, else the CPU."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    found: list[str] = []
    for name in names:
        if name == "auto":
            found += gpus or ["cpu"]
        elif name == "cuda":
            found += gpus or [_missing(name, gpus)]
        elif name.startswith("cuda:"):
            found.append(name if name in gpus else _missing(name, gpus))
        elif name == "mps" and not torch.backends.mps.is_available():
            _missing(name, gpus)
        else:
            found.append(name)
    return tuple(dict.fromkeys(found))


def _missing(name: str, gpus: list[str]) -> str:
    there = ", ".join(["cpu", *gpus])
    raise UsageError(f"there is no device '{name}' on this machine. There is: {there}.")
