"""How many samples go through a model at once, where the user names no number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_lab.sample_trees import join_results

MOST = 512
MOST_ON_GPU = 1024
CPU_VALUES = 3 << 18
"""Input values in one pass on a CPU (256 CIFAR images, 5 of ImageNet's). Larger batches gain nothing there, and lose up
to half the speed where activations pass 32 MiB, which are then new memory in every pass. And running out of memory is
often no exception that could be caught, but the end of the process."""
MEASURED = (1, 4)
"""Samples of the two passes from which a GPU's need of memory is extrapolated."""
USED_SHARE = 0.7
"""Of the free memory. The rest is for what is kept beside the passes, and for fragments."""


def first_batch_size(device: torch.device, values: int) -> int:
    """Samples of `values` numbers each in the first batch; it is halved whenever memory runs out."""
    if device.type != "cpu":
        return MOST
    return max(1, min(MOST, CPU_VALUES // max(1, values)))


def measured_batch_size(model: nn.Module, example: Tensor, share: float) -> int:
    """The first batch on a GPU, from its free memory and two measured passes.

    example: a few inputs `[N, ...]` on the GPU. share: of the GPU's memory that is this process's to use.
    """
    device = example.device
    peaks = []
    for samples in MEASURED:
        batch = example[:1].expand(samples, *example.shape[1:]).clone()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _pass(model, batch)
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
    free, total = torch.cuda.mem_get_info(device)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return fitting_batch_size(min(free + idle, int(share * total)), (MEASURED[0], peaks[0]), (MEASURED[1], peaks[1]))


def fitting_batch_size(free: int, small: tuple[int, int], large: tuple[int, int]) -> int:
    """Samples that fit into `free` bytes, by a line through two measurements (samples, bytes); a power of two.

    At least 1: what does not fit at all says so itself.
    """
    each = (large[1] - small[1]) / (large[0] - small[0])
    fixed = max(0.0, small[1] - each * small[0])
    if each <= 0:
        return MOST_ON_GPU
    fitting = max(0, int((USED_SHARE * free - fixed) / each))
    return max(1, min(MOST_ON_GPU, 1 << max(0, fitting.bit_length() - 1)))


def _pass(model: nn.Module, batch: Tensor) -> None:
    """Forward and backward; forward alone, where there is no gradient."""
    leaf = batch.requires_grad_()
    with torch.enable_grad():
        prediction = model(leaf)
        if isinstance(prediction, Tensor) and prediction.requires_grad:
            torch.autograd.grad(prediction.sum(), leaf)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory has run out; PyTorch has no class of its own for the CPU's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


@dataclass
class BatchSize:
    """Samples in one query at most; shared by an attack problem and its parts."""

    size: int

    def parts(self, samples: int) -> Iterator[slice]:
        """So many samples in batches, of the size that holds when each begins, and as even as can be.

        A few samples left for a batch of their own take twice as long each, and that at every step.
        """
        start = 0
        while start < samples:
            left = samples - start
            stop = start + -(-left // -(-left // self.size))
            yield slice(start, stop)
            start = stop

    def within(self, part: slice, work: Callable[[slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """`work` on one part; when memory runs out, on halves of it, and on batches of that size from then on."""
        try:
            return work(part)
        except (RuntimeError, MemoryError) as error:
            size = part.stop - part.start
            if size == 1 or not out_of_memory(error):
                raise
            self.size = max(1, size // 2)
        middle = part.start + size // 2
        return join_results(
            [self.within(piece, work) for piece in (slice(part.start, middle), slice(middle, part.stop))]
        )
