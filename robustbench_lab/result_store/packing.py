"""Per-sample numbers to compact bytes and back: safetensors, compressed with zlib. No pickle, so reading runs no code.

Booleans take one bit. 10,000 samples of a classifier take 3 to 40 KB, depending on how many distances differ.

A thousand times as much can come out of compressed bytes as went in, and a database may come from a stranger. So
whoever reads says how many samples there must be, and no more is unpacked than these can take.
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

BYTES_A_SAMPLE = 1 << 18
"""Of outcomes at most: 6000 detections each of the clean image and of the attacked one, with their boxes."""
BYTES_BESIDE = 1 << 20
"""Names and shapes of the arrays; and of any ids so many are unpacked whatever they were compressed to."""
TIMES = 256
"""Texts that all differ compress to less than one part in so many."""
INDEX = np.dtype("<i8")


def pack_outcomes(outcomes: Outcomes) -> bytes:
    """N samples' outcomes to bytes.

    Raises StoreError where an array is not N long, holds something else than numbers and booleans, or is too large.
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
    content = save(tensors)
    if len(content) > _most(len(outcomes)):
        size = len(content) // max(len(outcomes), 1)
        raise StoreError(f"outcomes take {size:,} bytes a sample: the task must give {BYTES_A_SAMPLE:,} at most")
    return zlib.compress(content)


def unpack_outcomes(packed: bytes, samples: int) -> Outcomes:
    """Bytes of `pack_outcomes` to the same outcomes. samples: how many they must be of, so that damage cannot ask for
    memory without end. Raises StoreError where they are damaged.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with _damage_is_named():
        tensors = load(_decompressed(packed, _most(samples)))
        count = int(tensors.pop(COUNT)[0])
        if count != samples:
            raise StoreError(f"stored outcomes are damaged: they are of {count} samples, not of {samples}")
        for key, tensor in tensors.items():
            if key.startswith(BITS):
                arrays[key.removeprefix(BITS)] = np.unpackbits(tensor, axis=0, count=count).astype(np.bool_)
            else:
                arrays[key.removeprefix(VALUES)] = tensor
        if any(len(array) != samples for array in arrays.values()):
            raise ValueError(f"an array is not of {samples} samples")
        clean_correct, robust, distance = (arrays.pop(name) for name in ("clean_correct", "robust", "distance"))
    columns = {name.removeprefix(COLUMNS): array for name, array in arrays.items()}
    return Outcomes(clean_correct, robust, distance, columns)


def _most(samples: int) -> int:
    """Bytes that outcomes can take."""
    return BYTES_BESIDE + samples * BYTES_A_SAMPLE


def _decompressed(packed: bytes, most: int) -> bytes:
    """Raises ValueError where it would be more than `most` bytes, or where the end is missing."""
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, most + 1)
    if len(content) > most or not unpacking.eof:
        raise ValueError(f"more than the {most} bytes that there can be, or an end is missing")
    return content


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
    """Ids of samples, which all differ, to bytes: compressed JSON. Raises StoreError where they are too long."""
    content = json.dumps(list(sample_ids), separators=(",", ":")).encode("ascii")
    packed = zlib.compress(content)
    if len(content) > _most_text(packed):
        raise StoreError(f"sample ids of {len(content):,} bytes are nearly all alike: make them shorter")
    return packed


def unpack_sample_ids(packed: bytes) -> tuple[str, ...]:
    """Bytes of `pack_sample_ids` to the same ids. Raises StoreError where they are damaged."""
    with _damage_is_named():
        return tuple(json.loads(_decompressed(packed, _most_text(packed))))


def _most_text(packed: bytes) -> int:
    return BYTES_BESIDE + TIMES * len(packed)


def pack_indices(indices: Iterable[int]) -> bytes:
    """Places of samples in their dataset to bytes: compressed differences, since most are 1."""
    places = np.fromiter(indices, dtype=INDEX)
    return zlib.compress(np.diff(places, prepend=0).astype(INDEX).tobytes())


def unpack_indices(packed: bytes, samples: int) -> tuple[int, ...]:
    """Bytes of `pack_indices` to the same indices. Raises StoreError where they are damaged, or not of `samples`."""
    with _damage_is_named():
        steps = np.frombuffer(_decompressed(packed, samples * INDEX.itemsize), dtype=INDEX)
        if len(steps) != samples:
            raise ValueError(f"{len(steps)} indices of {samples} samples")
    return tuple(np.cumsum(steps).tolist())
