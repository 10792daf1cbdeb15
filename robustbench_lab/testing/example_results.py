"""Stored results made up by hand, for tests of whatever reads results: report formats, leaderboards, stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from robustbench_lab.contracts import Access
from robustbench_lab.ranking.leaderboard import (
    AttackTraits,
    Leaderboard,
    LeaderboardDefinition,
    NamedMetric,
    build_leaderboard,
)
from robustbench_lab.records import (
    MINIMUM_NORM,
    Cell,
    CellRecord,
    Finding,
    Outcomes,
    ResolvedComponent,
    SampleSet,
    Severity,
    Status,
    Verdict,
)
from robustbench_lab.tasks.classification import Classification, clean_accuracy, robust_accuracy

CLASSIFIER_METRICS = (
    NamedMetric("clean_accuracy", clean_accuracy),
    NamedMetric("robust_accuracy", robust_accuracy, main=True, clean="clean_accuracy"),
)
ATTACK_TRAITS: Mapping[str, AttackTraits] = {
    "fgsm": AttackTraits(baseline=False, access=Access.GRADIENTS),
    "pgd": AttackTraits(baseline=False, access=Access.GRADIENTS),
    "square": AttackTraits(baseline=False, access=Access.SCORES),
    "noise": AttackTraits(baseline=True, access=Access.DECISIONS),
}


def example_component(label: str, *, version: str = "1", **params: Any) -> ResolvedComponent:
    """A resolved component; its identity follows from its label and version."""
    identity = sha256(repr((label, version, params)).encode()).hexdigest()
    return ResolvedComponent(label.partition("(")[0], label, params, "example-plugin", version, identity)


def example_cell(
    *,
    model: str = "plain",
    version: str = "1",
    defense: str = "none",
    dataset: str = "digits",
    attack: str = "pgd",
    norm: str = "linf",
    eps: float = 8 / 255,
    adversary: str = "adaptive",
    seed: int = 0,
    samples: int = 10,
    revision: str = "r1",
) -> Cell:
    """A classifier's cell. `version` is the model's, `revision` the dataset's."""
    ids = tuple(f"{dataset}-{index}" for index in range(samples))
    parts = (model, version, defense, dataset, attack, norm, eps, adversary, seed, ids, revision)
    return Cell(
        cell_id=sha256(repr(parts).encode()).hexdigest()[:16],
        task="classification",
        model=example_component(model, version=version),
        defense=example_component(defense),
        dataset=example_component(dataset),
        attack=example_component(attack),
        objective=example_component("untargeted"),
        threat_model=example_component(f"{norm}(eps={eps})", eps=eps),
        norm=norm,
        eps=eps,
        adversary=adversary,
        seed=seed,
        samples=SampleSet(revision, ids, tuple(range(samples)), sha256(repr((revision, ids)).encode()).hexdigest()),
        estimated_forward=0,
        estimated_backward=0,
    )


def example_result(
    robust: Sequence[bool],
    *,
    clean: Sequence[bool] | None = None,
    verdict: Verdict = Verdict.RELIABLE,
    findings: tuple[Finding, ...] = (),
    passes: tuple[float, float] = (11.0, 10.0),
    seconds: float = 1.5,
    **cell: Any,
) -> CellRecord:
    """A finished cell in which the samples `robust` held out; `cell` goes to `example_cell`."""
    held = np.array(robust, dtype=np.bool_)
    correct = np.ones_like(held) if clean is None else np.array(clean, dtype=np.bool_)
    made = example_cell(samples=len(held), **cell)
    distance = np.where(held, np.nan, np.where(correct, made.eps, 0.0)).astype(np.float32)
    outcomes = Outcomes(correct, held, distance)
    return CellRecord(
        cell=made,
        status=Status.OK,
        reason=None,
        metrics={metric.name: metric.function(outcomes) for metric in CLASSIFIER_METRICS},
        outcomes=outcomes,
        forward_per_sample=passes[0],
        backward_per_sample=passes[1],
        wall_seconds=seconds,
        verdict=verdict,
        findings=findings,
        device="cpu",
        batch_size=128,
        executor="inline",
    )


def example_minimum_norm_result(
    distances: Sequence[float | None], *, clean: Sequence[bool] | None = None, eps: float = 8 / 255, **cell: Any
) -> CellRecord:
    """A finished cell of an attack that looks for the nearest adversarial input; None: it found none."""
    correct = [True] * len(distances) if clean is None else clean
    found = np.array([np.nan if one is None else one for one in distances], dtype=np.float32)
    robust = [right and not bool(one <= np.float32(eps)) for right, one in zip(correct, found, strict=True)]
    marked = Finding(MINIMUM_NORM, Severity.INFO, "looked for the nearest adversarial input")
    record = example_result(robust, clean=correct, eps=eps, findings=(marked,), **cell)
    outcomes = Outcomes(np.array(correct), np.array(robust), np.where(correct, found, 0).astype(np.float32))
    return replace(record, outcomes=outcomes)


def example_gap(status: Status, reason: str, **cell: Any) -> CellRecord:
    """A cell that was skipped or failed."""
    return CellRecord(example_cell(**cell), status, reason, {}, None, None, None, 0.2, None, (), "cpu", 128, "inline")


def example_leaderboard(records: Sequence[CellRecord], **definition: Any) -> Leaderboard:
    """The leaderboard of made-up records; `definition` goes to `LeaderboardDefinition`."""
    return build_leaderboard(
        records,
        LeaderboardDefinition(**definition),
        {"classification": Classification()},
        {"classification": CLASSIFIER_METRICS},
        ATTACK_TRAITS,
    )


def example_records() -> list[CellRecord]:
    """Every kind of row: ranked, tied, suspect, baseline only, failed, skipped; at two budgets."""
    size = 200

    def first(count: int) -> list[bool]:
        return [index < count for index in range(size)]

    rising = Finding("loss-still-rises", Severity.SUSPECT, "the loss still rises at the last step", 0.4)
    fine = Finding("deterministic", Severity.INFO, "repeated predictions are the same")
    records = []
    for eps, robust in ((4 / 255, 160), (8 / 255, 120)):
        records += [
            example_result(first(robust), clean=first(194), model="trades", eps=eps, findings=(fine,)),
            example_result(first(robust - 4), clean=first(192), model="madry", eps=eps, seconds=2.25),
            example_result(first(robust + 30), clean=first(192), model="madry", attack="noise", eps=eps, passes=(3, 0)),
            example_result(
                first(robust // 3),
                clean=first(198),
                model="plain",
                eps=eps,
                verdict=Verdict.SUSPECT,
                findings=(rising,),
            ),
        ]
    records += [
        example_result(first(190), clean=first(198), model="untested", attack="noise", passes=(3, 0)),
        example_gap(Status.SKIPPED, "no gradient reaches the input", model="quantised", samples=size),
        example_gap(Status.FAILED, "RuntimeError: out of memory", model="huge", samples=size),
        example_result(first(60), clean=first(198), model="plain", defense="jpeg(quality=75)"),
    ]
    return records
