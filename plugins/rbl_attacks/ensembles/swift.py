"""swift: a reliable evaluation at a small part of AutoAttack's cost. First-party; nothing to tune.

What breaks samples is a loss that never saturates, the right class to aim at and starts far apart, more than many
steps. And nearly all samples are broken soon, or are so far from it that further passes are wasted on them. So swift

 1. climbs on all samples for 10 steps from the clean input, along a cross-entropy whose logits are scaled by their own
    margin (swift_climb.py). This breaks nearly all that APGD-CE and APGD-T break together;
 2. makes one step of the whole budget towards each wrong class, and ranks the classes by how near they come
    (swift_targets.py); then climbs towards the first of them for 10 steps;
 3. climbs twice more, for 20 steps from random corners of the region: along the loss of 1, and towards that class;
 4. lets the samples race. It knows for each the share of the clean margin that no search has closed yet, and how much
    the last two rounds closed in one go (swift_gaps.py). A sample stays in while one search in a hundred closed as much
    as it still needs, and the nearest stay in any case: as many as a round's passes allow. They get longer and longer
    climbs from new corners, in turn along the loss of 1 and towards the first three classes. In l1 the climbs of 3 and
    half of these are wide (swift_steps.py): each kind breaks samples that the other does not, so that the race is
    longer there. Where a handful is left, rounds of equal length go side by side, but for the last one;
 5. looks for hidden gradients: Square Attack with few queries on one sample in eight. If it breaks what the gradients
    did not, the result says so, and every sample is searched this way (swift_sentinel.py).

Nothing depends on the scale of the logits. Two findings qualify the number: `still-breaking`, if the last round of the
race broke samples, and `black-box-breaks`.

Related: Adaptive Auto Attack (Liu et al., CVPR 2022, https://arxiv.org/abs/2203.05154) gives up samples far from the
boundary and learns starts from broken ones; successive halving (Jamieson & Talwalkar, AISTATS 2016,
https://arxiv.org/abs/1502.07943) spends a budget on the most promising. The loss is MIFPE's (Yu & Xu, CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.ensembles.swift_climb import Loss, climb, either, far_start, gap_scaled_cross_entropy, lead_of_target
from rbl_attacks.ensembles.swift_gaps import Gaps
from rbl_attacks.ensembles.swift_sentinel import check_without_gradients
from rbl_attacks.ensembles.swift_targets import rank_classes
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.objectives import Untargeted
from robustbench_lab.records import Finding, Severity

RACE_ROUNDS, RACE_ROUNDS_L1 = 16, 24
PASSES_A_ROUND, PASSES_A_ROUND_L1 = 6, 10
"""Backward passes of one round of the race, for each open sample: the longer the climbs, the fewer samples get them."""
LONGEST = 100
"""Steps of a climb at most: as many as APGD's."""
AIMS = (None, 1, None, 0, None, 2, None, 0)
"""What the climbs of the race aim at, in turn: the class of a rank, or (None) whatever the first loss finds."""
FULL = 32
"""Where fewer samples race, rounds of equal length go side by side in batches of about so many."""


def swift(problem: AttackProblem, *, effort: Annotated[int, Field(ge=1)] = 1) -> None:
    """A few climbs on all samples, a race for those near the boundary, and a look without gradients.

    effort: how many times 16 rounds (24 in l1) the race lasts. 1 is enough unless the result says `still-breaking`.
    """
    search = _Search(problem)
    search.round(steps=10, aims=[None])
    search.rank_classes()
    search.round(steps=10, aims=[0])
    search.round(steps=20, aims=[None], starts=["far/first"], wide=True)
    search.round(steps=20, aims=[0], starts=["far/second"], wide=True)
    search.race(effort)
    if not problem.finished:
        check_without_gradients(problem, search.gaps.left(problem.open_positions))


class _Search:
    """What the climbs have found so far."""

    def __init__(self, problem: AttackProblem) -> None:
        self.problem = problem
        self.gaps = Gaps(len(problem.candidates), problem.clean.device)
        self.ranked: Tensor | None = None

    def rank_classes(self) -> None:
        """Where any wrong class will do, rank them; a targeted attack has one class to aim at."""
        if isinstance(self.problem.objective, Untargeted) and not self.problem.finished:
            self.ranked = rank_classes(self.problem)

    def round(
        self,
        steps: int,
        aims: Sequence[int | None],
        starts: Sequence[str] = (),
        only: Tensor | None = None,
        *,
        wide: bool = False,
    ) -> int:
        """Climbs side by side, one for each aim, for all open samples or `only` some (int64 `[B]`).

        starts: the names of random draws, one for each; none: the clean input. Returns how many samples broke.
        """
        part = self.problem if only is None else self.problem.part(only)
        if part.finished:
            return 0
        rows, before = part.open_positions, self.problem.open_samples
        self.gaps.begin_round()
        x = torch.cat([far_start(part, start) for start in starts]) if starts else part.clean.clone()
        loss, given = self._loss(rows, aims)
        several = part.repeated(len(aims)) if len(aims) > 1 else part
        climb(several, x, steps, loss, self.gaps, given, wide=wide)
        self.gaps.end_round(rows)
        self.problem.drop_done()
        return before - self.problem.open_samples

    def _loss(self, rows: Tensor, aims: Sequence[int | None]) -> tuple[Loss, tuple[Tensor, ...]]:
        """The loss of climbs side by side, and what it needs: the class that each row aims at, `[len(aims) * A]`."""
        scaled = gap_scaled_cross_entropy(self.problem.objective)
        if self.ranked is None or set(aims) == {None}:
            return scaled, ()
        ranked = self.ranked[rows]
        none = torch.full_like(rows, -1)
        target = torch.cat([none if aim is None else ranked[:, aim % ranked.shape[1]] for aim in aims])
        return (either(scaled) if None in aims else lead_of_target), (target,)

    def race(self, effort: int) -> None:
        """Longer and longer climbs for the samples that still have a chance."""
        l1 = self.problem.norm == "l1"
        rounds = effort * (RACE_ROUNDS_L1 if l1 else RACE_ROUNDS)
        passes = PASSES_A_ROUND_L1 if l1 else PASSES_A_ROUND
        broken = number = 0
        while number < rounds and not self.problem.finished:
            racing = self.gaps.racing(self.problem.open_positions, passes / _steps(number))
            alike = self._alike(number, rounds)[: max(1, FULL // len(racing))]
            aims, starts = [AIMS[one % len(AIMS)] for one in alike], [f"far/{one}" for one in alike]
            broken = self.round(_steps(number), aims, starts, racing, wide=_wide(number))
            number += len(alike)
        if broken and not self.problem.finished:
            text = "the last round of the race still broke samples: raise `effort`"
            self.problem.note(Finding("still-breaking", Severity.SUSPECT, text, float(broken)))

    def _alike(self, number: int, rounds: int) -> range:
        """The rounds from `number` on that can go side by side; the last is by itself, since it is judged."""
        stop = number + 1
        while stop < rounds - 1 and _steps(stop) == _steps(number):
            if self.problem.norm == "l1" and _wide(stop) != _wide(number):
                break
            stop += 1
        return range(number, stop)


def _steps(number: int) -> int:
    return min(LONGEST, 20 * (1 + number // 2))


def _wide(number: int) -> bool:
    return number // 4 % 2 == 0
