"""Index and move whatever a task calls targets: a tensor, a list with one entry a sample, or a dict of these."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def take(tree: Any, index: Tensor) -> Any:
    """The samples at `index` (int64 `[M]`) of a tensor `[N, ...]`, a list of N, or a dict of these."""
    if isinstance(tree, Tensor):
        return tree.index_select(0, index.to(tree.device))
    if isinstance(tree, dict):
        return {key: take(value, index) for key, value in tree.items()}
    return [tree[position] for position in index.tolist()]


def cut(tree: Any, start: int, stop: int) -> Any:
    """The samples `start` to `stop`; a view where the tree is a tensor."""
    if isinstance(tree, dict):
        return {key: cut(value, start, stop) for key, value in tree.items()}
    return tree[start:stop]


def join(trees: list[Any]) -> Any:
    """Trees of consecutive samples to one."""
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat(trees) if len(trees) > 1 else first
    if isinstance(first, dict):
        return {key: join([tree[key] for tree in trees]) for key in first}
    return [entry for tree in trees for entry in tree]


def to_device(tree: Any, device: torch.device) -> Any:
    """The same samples on another device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {key: to_device(value, device) for key, value in tree.items()}
    return [to_device(value, device) for value in tree] if isinstance(tree, list) else tree


def join_results(results: list[tuple[Tensor, ...]], out: Tensor | None = None) -> tuple[Tensor, ...]:
    """Per-batch results to results for all samples, without a copy where there was one batch.

    out: memory for the last of the results, taken where it has the right size.
    """
    if len(results) == 1:
        return results[0]
    *others, last = zip(*results, strict=True)
    fits = out is not None and len(out) == sum(len(part) for part in last)
    return (*(torch.cat(parts) for parts in others), torch.cat(last, out=out if fits else None))
