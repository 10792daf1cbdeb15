"""Per-sample numbers to compact bytes and back: safetensors, compressed with zlib. No pickle, so reading runs no code.

Booleans take one bit. 10,000 samples of a classifier take 3 to 40 KB, depending on how many distances differ.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from robustbench_lab.errors import StoreError
from robustbench_lab.records import Outcomes

COUNT = "count"
BITS, VALUES = "bits/", "values/"
"""Prefixes of tensors that hold eight booleans a byte, along the samples, and of those that hold numbers."""
COLUMNS = "columns/"
"""After the prefix: what the task added to the three arrays that every outcome has."""


def pack_outcomes(outcomes: Outcomes) -> bytes:
    """N samples' outcomes to bytes.

    Raises StoreError where an array is not N long, or holds something else than numbers and booleans.
    """
    arrays = {
        "clean_correct": outcomes.clean_correct,
        "robust": outcomes.robust,
        "distance": outcomes.distance,
        **{COLUMNS + name: column for name, column in outcomes.columns.items()},
    }
    tensors: dict[str, NDArray[Any]] = {COUNT: np.array([len(outcomes)], dtype=np.int64)}
    for name, array in arrays.items():
        _check(name.removeprefix(COLUMNS), array, len(outcomes))
        if array.dtype == np.bool_:
            tensors[BITS + name] = np.packbits(array, axis=0)
        else:
            tensors[VALUES + name] = np.ascontiguousarray(array)  # safetensors reads memory as it lies
    return zlib.compress(save(tensors))


def unpack_outcomes(packed: bytes) -> Outcomes:
    """Bytes of `pack_outcomes` to the same outcomes. Raises StoreError where they are damaged."""
    arrays: dict[str, NDArray[Any]] = {}
    with _damage_is_named():
        tensors = load(zlib.decompress(packed))
        count = int(tensors.pop(COUNT)[0])
        for key, tensor in tensors.items():
            if key.startswith(BITS):
                arrays[key.removeprefix(BITS)] = np.unpackbits(tensor, axis=0, count=count).astype(np.bool_)
            else:
                arrays[key.removeprefix(VALUES)] = tensor
        clean_correct, robust, distance = (arrays.pop(name) for name in ("clean_correct", "robust", "distance"))
    columns = {name.removeprefix(COLUMNS): array for name, array in arrays.items()}
    return Outcomes(clean_correct, robust, distance, columns)


@contextmanager
def _damage_is_named() -> Iterator[None]:
    try:
        yield
    except (zlib.error, SafetensorError, KeyError, IndexError, ValueError) as error:
        raise StoreError("stored outcomes or samples are damaged: restore the database or run with --fresh") from error


def _check(name: str, array: NDArray[Any], count: int) -> None:
    if array.ndim == 0 or len(array) != count:
        shape = list(array.shape)
        raise StoreError(f"outcome '{name}' has shape {shape} for {count} samples: the task must give one per sample")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise StoreError(f"outcome '{name}' is of type {array.dtype}: the task must give numbers or booleans")


def pack_sample_ids(sample_ids: Iterable[str]) -> bytes:
    """Ids of samples to bytes: compressed JSON."""
    return zlib.compress(json.dumps(list(sample_ids), separators=(",", ":")).encode("ascii"))


def unpack_sample_ids(packed: bytes) -> tuple[str, ...]:
    """Bytes of `pack_sample_ids` to the same ids. Raises StoreError where they are damaged."""
    with _damage_is_named():
        return tuple(json.loads(zlib.decompress(packed)))


def pack_indices(indices: Iterable[int]) -> bytes:
    """Places of samples in their dataset to bytes: compressed differences, since most are 1."""
    places = np.fromiter(indices, dtype="<i8")
    return zlib.compress(np.diff(places, prepend=0).astype("<i8").tobytes())


def unpack_indices(packed: bytes) -> tuple[int, ...]:
    """Bytes of `pack_indices` to the same indices. Raises StoreError where they are damaged."""
    with _damage_is_named():
        steps = np.frombuffer(zlib.decompress(packed), dtype="<i8")
    return tuple(np.cumsum(steps).tolist())
