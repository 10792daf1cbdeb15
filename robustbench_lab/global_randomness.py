"""The global random states, for code that draws from them: wrapped libraries and randomized defenses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(*what: object) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators from `what`, and put them back afterwards."""
    seed = int.from_bytes(blake2b(repr(what).encode(), digest_size=4).digest(), "little")
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one is meant)
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(gpus):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        _seed_torch(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def _seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which is slow where CUDA is not in use: it notes each call, with its stack, for later.

    The workbench begins to use CUDA where it has a GPU.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def global_state() -> dict[str, Any]:
    """All these states, as JSON can hold them."""
    version, words, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, [int(key) for key in keys], *rest],
        "torch": _hex(torch.get_rng_state()),
        "cuda": [_hex(state) for state in cuda],
    }


def restore_global_state(state: dict[str, Any]) -> None:
    """Go on from what `global_state` returned; on other devices than there were, with their own numbers."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(_from_hex(state["torch"]))
    for device, text in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(_from_hex(text), device)


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
