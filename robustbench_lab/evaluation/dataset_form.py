"""What every dataset must have, whoever brings it. Runs look at it first, and so does `rbl plugins check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustbench_lab.contracts import Bounds, Dataset, Samples, lacking


def wrong_dataset(dataset: Any) -> Iterator[str]:
    """What is wrong with a dataset before it has loaded a sample, a line each."""
    if lacks := lacking(dataset, Dataset):
        yield lacks
        return
    if not isinstance(dataset.bounds, Bounds):
        yield f"bounds must be Bounds(low, high), not {dataset.bounds!r}"
    ids = list(dataset.sample_ids)
    if any(not isinstance(one, str) for one in (dataset.revision, *ids)):
        yield "revision and sample_ids must be text: random numbers and results are tied to them"
    elif len(set(ids)) != len(ids):
        yield "sample_ids are not unique: outcomes could not be told apart"


def wrong_samples(samples: Any, count: int) -> Iterator[str]:
    """What is wrong with the form of what `load` returned for `count` samples, a line each."""
    from torch import Tensor

    if not isinstance(samples, Samples):
        yield f"load must return Samples(inputs, targets), not {type(samples).__name__}"
        return
    if not isinstance(samples.inputs, Tensor):
        yield f"load must return inputs as a torch.Tensor, not {type(samples.inputs).__name__}: use torch.from_numpy"
        return
    if len(samples.inputs) != count:
        yield f"load was asked for {count} samples and returned {len(samples.inputs)}"
    targets = samples.targets.values() if isinstance(samples.targets, Mapping) else [samples.targets]
    for part in targets:
        if not isinstance(part, Tensor | list):
            kind = type(part).__name__
            yield f"load must return targets as a torch.Tensor, a list or a dict of these, not {kind}"
        elif len(part) != count:
            yield "load(indices) must return as many targets as inputs"


def wrong_labels(labels: Any) -> Iterator[str]:
    """What is wrong with the form of a classifier's labels, a line each."""
    import torch

    if not isinstance(labels, torch.Tensor) or labels.ndim != 1:
        got = f"of shape {list(labels.shape)}" if isinstance(labels, torch.Tensor) else f"a {type(labels).__name__}"
        yield f"labels must be class numbers [N]; these are {got}"
    elif labels.dtype is not torch.int64:
        yield f"labels are {labels.dtype}, not int64: use labels.long()"
    elif len(labels) and int(labels.min()) < 0:
        yield f"a label is {int(labels.min())}: classes are numbered from 0"
