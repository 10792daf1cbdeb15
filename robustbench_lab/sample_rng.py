"""Random numbers that belong to the sample.

A number depends only on (seed, stream, sample id, draw, position within the sample). It is bit by bit the same
whatever the batch size, the order of the samples, the device or the number of threads.

Two things make it so. The generator is counter-based, Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random
numbers: as easy as 1, 2, 3", SC 2011), so that no sample waits for another one's numbers. And every step after it is
integer arithmetic or one of the IEEE 754 operations `+ - * / sqrt`, which are rounded correctly everywhere; library
functions such as `log` are not, and differ between devices.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustbench_lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_BLOCKS_AT_ONCE = {"cpu": 1 << 15}
"""Blocks of four numbers computed together, by kind of device. On a CPU so few that the temporaries stay in its cache
and torch wakes no second thread for each of the hundred small steps: that takes longer than the step."""
_BLOCKS_ELSEWHERE = 1 << 22
_LARGEST_INTEGER_RANGE = 1 << 31


@dataclass(frozen=True, eq=False)
class SampleRng:
    """The random numbers of N samples. Samples with the same id have the same numbers."""

    seed: int
    stream: str
    """Whose numbers these are, such as the attack's name: another stream is independent of this one."""
    key_low: Tensor
    """int64 `[N]`: the lower 32 bits of each sample's key."""
    key_high: Tensor
    """int64 `[N]`: the upper 32 bits."""

    @classmethod
    def for_samples(cls, seed: int, stream: str, sample_ids: Sequence[str], device: torch.device) -> SampleRng:
        """The numbers of the samples with these ids, `[N]`, to be drawn on `device`."""
        keys = [_hash64(sample_id) for sample_id in sample_ids]
        return cls(
            seed,
            stream,
            torch.tensor([key & _WORD for key in keys], dtype=torch.int64, device=device),
            torch.tensor([key >> 32 for key in keys], dtype=torch.int64, device=device),
        )

    def __len__(self) -> int:
        return len(self.key_low)

    def select(self, index: Tensor) -> SampleRng:
        """The numbers of some of the samples: int64 indices `[M]` or a bool mask `[N]`."""
        return replace(self, key_low=self.key_low[index], key_high=self.key_high[index])

    def uniform(self, shape: tuple[int, ...], draw: str) -> Tensor:
        """Uniform on [0, 1) in steps of 2**-24: float32 `[N, *shape]`. Another `draw` gives independent numbers."""
        return self._draw(shape, draw, torch.float32, lambda words: (words >> 8).to(torch.float32).mul_(2.0**-24))

    def normal(self, shape: tuple[int, ...], draw: str) -> Tensor:
        """Standard normal: float32 `[N, *shape]`, by inversion, between -6.34 and 6.34 (32 random bits)."""
        return self._draw(shape, draw, torch.float32, lambda words: _inverse_normal_cdf(_midpoints(words)))

    def exponential(self, shape: tuple[int, ...], draw: str) -> Tensor:
        """Exponential with mean 1: float32 `[N, *shape]`, by inversion, above 0 and below 22.9."""
        return self._draw(shape, draw, torch.float32, lambda words: _log(_midpoints(words)).neg_())

    def integers(self, high: int, shape: tuple[int, ...], draw: str) -> Tensor:
        """Uniform on 0, ..., high - 1: int64 `[N, *shape]`.

        The upper half of `word * high`, so that a value's probability is off by less than 2**-32.

        Raises:
            UsageError: `high` is not within 1 to 2**31.
        """
        if not 1 <= high <= _LARGEST_INTEGER_RANGE:
            raise UsageError(f"integers(high={high}): high must be within 1 to 2**31")
        return self._draw(shape, draw, torch.int64, lambda words: words.mul_(high) >> 32)

    def _draw(
        self, shape: tuple[int, ...], draw: str, dtype: torch.dtype, from_words: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """`[N, *shape]`: `from_words` of each sample's 32-bit words, a few samples at a time to bound the memory."""
        size = math.prod(shape)
        blocks = -(-size // 4)
        key = _hash64(json.dumps([self.seed, self.stream, draw]))
        out = torch.empty((len(self), size), dtype=dtype, device=self.key_low.device)
        block = torch.arange(blocks, device=out.device)
        for rows in self._chunks(blocks):
            low = self.key_low[rows, None].expand(-1, blocks)
            high = self.key_high[rows, None].expand(-1, blocks)
            counter = (block.expand_as(low), torch.zeros_like(low), low, high)
            words = torch.stack(philox4x32(counter, (key & _WORD, key >> 32)), dim=2)
            out[rows] = from_words(words.flatten(1)[:, :size])
        return out.reshape(len(self), *shape)

    def _chunks(self, blocks: int) -> Iterator[slice]:
        at_once = _BLOCKS_AT_ONCE.get(self.key_low.device.type, _BLOCKS_ELSEWHERE)
        step = max(1, at_once // max(1, blocks))
        return (slice(start, start + step) for start in range(0, len(self), step))


def _hash64(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Four random 32-bit words for each counter: Philox4x32 with 10 rounds.

    Args:
        counter: four int64 tensors of one shape, values below 2**32.
        key: two integers below 2**32.
    """
    c0, c1, c2, c3 = counter
    for turn in range(_ROUNDS):
        k0, k1 = ((word + turn * step) & _WORD for word, step in zip(key, _KEY_STEPS, strict=True))
        # An int64 product wraps, but its 64 bits are those of the unsigned one. Only what is multiplied next needs
        # its upper half cleared; c1 and c3 carry theirs along until then.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_WORD)
        c2 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_WORD)
        c1, c3 = p1, p0
    return c0, c1 & _WORD, c2, c3 & _WORD


# ---------------------------------------------------------------- from words to distributions


def _midpoints(words: Tensor) -> Tensor:
    """32-bit words to float64 in (0, 1), exactly: the middles of 2**32 equal intervals."""
    return words.to(torch.float64).add_(0.5).mul_(2.0**-32)


_ATANH_TERMS = tuple(1 / (2 * k + 1) for k in range(11))


def _log(x: Tensor) -> Tensor:
    """Natural logarithm of normal float64 numbers above 0, to about 1e-15 of its size or of 1.

    x = m 2**e with m in [sqrt(1/2), sqrt(2)), and log m = 2 atanh(s) = 2 (s + s**3/3 + ...), s = (m - 1) / (m + 1).
    """
    m, e = torch.frexp(x)
    small = m < math.sqrt(0.5)
    m = torch.where(small, m + m, m)
    e = e - small.to(e.dtype)
    s = (m - 1) / (m + 1)
    series = _horner(_ATANH_TERMS, s * s).mul_(s).mul_(2.0)
    return e.to(torch.float64).mul_(math.log(2)).add_(series)


# Coefficients of P. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution",
# Applied Statistics 37 (1988), routine PPND16, lowest order first.
_CENTRE_OVER = (
    3.3871328727963666080e0,
    1.3314166789178437745e2,
    1.9715909503065514427e3,
    1.3731693765509461125e4,
    4.5921953931549871457e4,
    6.7265770927008700853e4,
    3.3430575583588128105e4,
    2.5090809287301226727e3,
)
_CENTRE_UNDER = (
    1.0,
    4.2313330701600911252e1,
    6.8718700749205790830e2,
    5.3941960214247511077e3,
    2.1213794301586595867e4,
    3.9307895800092710610e4,
    2.8729085735721942674e4,
    5.2264952788528545610e3,
)
_TAIL_OVER = (
    1.42343711074968357734e0,
    4.63033784615654529590e0,
    5.76949722146069140550e0,
    3.64784832476320460504e0,
    1.27045825245236838258e0,
    2.41780725177450611770e-1,
    2.27238449892691845833e-2,
    7.74545014278341407640e-4,
)
_TAIL_UNDER = (
    1.0,
    2.05319162663775882187e0,
    1.67638483018380384940e0,
    6.89767334985100004550e-1,
    1.48103976427480074590e-1,
    1.51986665636164571966e-2,
    5.47593808499534494600e-4,
    1.05075007164441684324e-9,
)


def _inverse_normal_cdf(p: Tensor) -> Tensor:
    """Wichura's PPND16 for float64 p between exp(-25) and 1 - exp(-25), to about 1e-16 of its size.

    The 32-bit midpoints stay within 2**-33 of the ends, so the third of its ranges is never reached.
    """
    q = p - 0.5
    r = 0.180625 - q * q
    out = _horner(_CENTRE_OVER, r).div_(_horner(_CENTRE_UNDER, r)).mul_(q)
    tail = (q.abs() > 0.425).nonzero(as_tuple=True)
    p, q = p[tail], q[tail]
    r = _log(torch.minimum(p, 1 - p)).neg_().sqrt_().sub_(1.6)
    out[tail] = _horner(_TAIL_OVER, r).div_(_horner(_TAIL_UNDER, r)).mul_(q.sign())
    return out


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """The polynomial with these coefficients, lowest order first; each step is rounded, never fused."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value
