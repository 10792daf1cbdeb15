"""The global random states, for code that draws from them: wrapped libraries and randomized defenses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch


@contextmanager
def seeded(*what: object) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators from `what`, and put them back afterwards."""
    seed = int.from_bytes(blake2b(repr(what).encode(), digest_size=4).digest(), "little")
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one is meant)
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
