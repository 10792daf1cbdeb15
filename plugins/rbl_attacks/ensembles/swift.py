"""swift: a reliable evaluation at a small part of AutoAttack's cost. First-party; nothing to tune.

What breaks samples is a good loss, different starts and the right target class, not many steps; and almost all
samples are either broken soon or so far from it that more passes are wasted on them. So swift

 1. climbs, on all samples, the gap-scaled cross-entropy (swift_climb.py) for 10 steps from the clean input: this alone
    breaks nearly everything that APGD-CE and APGD-T break together;
 2. ranks the wrong classes of the samples left by their distance on the linearised network (MALT, swift_targets.py),
    and climbs towards the nearest for 10 steps;
 3. climbs the first loss again, 20 steps from a random corner of the region;
 4. races: for every sample it knows the share of the clean margin that is still to close, and from the last two rounds
    how much a search closes in one go (swift_gaps.py). A sample stays in the race while one search in a hundred closed
    as much as it still needs. The others are given up, and those near the boundary get longer climbs from new corners,
    in turn on the first loss and towards the next nearest classes. The race ends when nobody is left in it;
 5. looks for hidden gradients: Square Attack on a few samples; what it breaks is reported, and then every sample is
    searched (swift_sentinel.py).

No step depends on the scale of the logits. Related: A3 (Liu et al., "Practical evaluation of adversarial robustness via
Adaptive Auto Attack", CVPR 2022, https://arxiv.org/abs/2203.05154) gives up samples far from the boundary, and learns
starts from broken ones; successive halving (Jamieson & Talwalkar 2016) spends a budget on the most promising;
MIFPE (Yu & Xu, CVPR 2023) and MALT (Melamed et al., NeurIPS 2024, https://arxiv.org/abs/2407.02240) are used as is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from rbl_attacks.ensembles.swift_climb import climb, far_start, gap_scaled_cross_entropy, lead_of_target
from rbl_attacks.ensembles.swift_gaps import Gaps
from rbl_attacks.ensembles.swift_sentinel import check_without_gradients
from rbl_attacks.ensembles.swift_targets import rank_classes
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.objectives import Untargeted
from robustbench_lab.records import Finding, Severity

RACE_ROUNDS = 10
AIMS = (None, 1, None, 0, None, 2, None, 0)
"""Whom the climbs of the race aim at, in turn: the class of a rank, or (None) whatever the first loss finds."""


def swift(problem: AttackProblem, *, effort: Annotated[int, Field(ge=1)] = 1) -> None:
    """Few climbs on all samples, then a race for those that are near the boundary, then a look without gradients.

    effort: how many times 10 rounds the race lasts at most. It ends by itself; 1 is enough unless the result says
    `still-breaking`.
    """
    if problem.finished:
        return
    search = _Search(problem)
    search.round(steps=10, aim=None, start="clean")
    if not problem.finished:
        search.rank_classes()
    search.round(steps=10, aim=0, start="clean")
    search.round(steps=20, aim=None, start="far/first")
    search.round(steps=20, aim=0, start="far/second")
    search.race(RACE_ROUNDS * effort)
    if not problem.finished:
        check_without_gradients(problem, search.gaps.left(problem.open_positions))


@dataclass
class _Search:
    """What the climbs have found so far."""

    problem: AttackProblem

    def __post_init__(self) -> None:
        samples = len(self.problem.candidates)
        self.gaps = Gaps(samples, self.problem.clean.device)
        self.loss = gap_scaled_cross_entropy(self.problem.objective)
        self.ranked: Tensor | None = None

    def rank_classes(self) -> None:
        """Where any wrong class will do, rank them; a targeted attack has one class to aim at."""
        if isinstance(self.problem.objective, Untargeted):
            self.ranked = rank_classes(self.problem)

    def round(self, steps: int, aim: int | None, start: str, only: Tensor | None = None) -> int:
        """One climb for all open samples, or `only` some (int64 `[B]`). Returns how many it broke."""
        part = self.problem if only is None else self.problem.part(only)
        if part.finished:
            return 0
        rows, before = part.open_positions, self.problem.open_samples
        self.gaps.begin_round()
        x = part.clean.clone() if start == "clean" else far_start(part, start)
        if aim is None or self.ranked is None:
            climb(part, x, steps, self.loss, self.gaps)
        else:
            target = self.ranked[rows][:, aim % self.ranked.shape[1]]
            climb(part, x, steps, lead_of_target, self.gaps, (target,))
        self.gaps.end_round(rows)
        self.problem.drop_done()
        return before - self.problem.open_samples

    def race(self, rounds: int) -> None:
        """Longer and longer climbs for the samples that still have a chance."""
        broken = 0
        for number in range(rounds):
            level = number // 2
            racing = self.gaps.racing(self.problem.open_positions, level)
            steps = 20 * (1 + level)
            broken = self.round(steps, AIMS[number % len(AIMS)], f"far/{number}", racing)
        if broken:
            text = "the last round of the race still broke samples: raise `effort`"
            self.problem.note(Finding("still-breaking", Severity.SUSPECT, text, float(broken)))
