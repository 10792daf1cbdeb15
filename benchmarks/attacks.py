"""Each attack beside the same attack in other libraries: time, passes, strength and per-sample agreement.

    python benchmarks/attacks.py --only autoattack --samples 500 --rounds 1
    python benchmarks/attacks.py --out benchmarks/results/attacks.json

Everybody gets the same model, samples, budget and number of steps. Each round runs every contestant once, in turn;
seconds are medians of the rounds, ratios medians of the ratios to ours within a round: CPU seconds, since others may
share the machine, and on a GPU those of the clock. Strength is judged by us: an input counts where the model gets it
wrong and it lies in the ball. Passes are counted at the model, a sample.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from cases import Case, MissingError, load_case
from matches import MATCHES, Match
from torch import Tensor

from robustbench_lab.contracts import Bounds, Region
from robustbench_lab.hardware.host_memory import keep_freed_memory
from robustbench_lab.passes.prediction import predict_in_batches
from robustbench_lab.threat_models.natural import Spatial
from robustbench_lab.threat_models.norm_balls import L0, L1, L2, Linf
from robustbench_lab.threat_models.patch import Patch

NORMS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
THREAT_MODELS = {**NORMS, "spatial": Spatial, "patch": Patch}
KNOW_WHAT_BROKE = {"robustbench-lab", "swift", "official", "official AutoAttack", "foolbox"}
"""The others hand back inputs alone: who wants to know what they broke asks the model once more."""

MODULES = {"adv-lib": "adv_lib", "CleverHans": "cleverhans"}
"""Libraries that take `pip install --no-deps adv-lib==0.2.8 cleverhans==4.0.0`: what they ask for is out of date."""


@dataclass(frozen=True)
class Row:
    """One contestant's figures."""

    match: str
    contestant: str
    model: str
    norm: str
    eps: float
    samples: int
    seconds: float
    ratio: float
    """Its time to ours of the same round."""
    told_ratio: float
    """The same, until it is known which samples broke."""
    forward: float
    """Passes for each sample looked at."""
    backward: float
    robust: float
    """Share of all samples looked at that stay right."""
    agreement: float
    """Share of the attacked samples whose outcome is the same as with ours."""
    median_distance: float | None


def compete(match: Match, case: Case, rounds: int, left_out: Collection[str] = ()) -> list[Row]:
    """Every contestant once a round, in turn."""
    contestants = {name: run for name, run in match.contestants.items() if name not in left_out and _installed(name)}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    told: dict[str, list[float]] = {name: [] for name in contestants}
    passes: dict[str, tuple[int, int]] = {}
    made: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, run in contestants.items():
            case.model.forward_passes = case.model.backward_passes = 0
            clock = time.perf_counter if case.inputs.is_cuda else time.process_time
            began = clock()
            made[name] = run(case)
            if case.inputs.is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(clock() - began)
            passes[name] = (case.model.forward_passes, case.model.backward_passes)
            if name not in KNOW_WHAT_BROKE:
                decisions(case, made[name])
            told[name].append(clock() - began)
    first = next(iter(contestants))
    reference = broken(case, made[first], match.minimum_norm)
    rows = []
    for name, taken in seconds.items():
        success = broken(case, made[name], match.minimum_norm)
        within = success & contained(case, made[name], match.minimum_norm, budget=True)
        distances = distance(case, made[name])[success]
        rows.append(
            Row(
                match=match.title,
                contestant=name,
                model=match.model,
                norm=match.norm,
                eps=match.eps,
                samples=case.samples,
                seconds=statistics.median(taken),
                ratio=statistics.median(a / b for a, b in zip(taken, seconds[first], strict=True)),
                told_ratio=statistics.median(a / b for a, b in zip(told[name], told[first], strict=True)),
                forward=passes[name][0] / case.samples,
                backward=passes[name][1] / case.samples,
                robust=float((~within).sum()) / case.samples,
                agreement=float((success == reference).float().mean()),
                median_distance=float(distances.median()) if match.minimum_norm and len(distances) else None,
            )
        )
    return rows


def _installed(contestant: str) -> bool:
    """Whether the library of this name is there; says so where it is not."""
    there = find_spec(MODULES.get(contestant, "torch")) is not None
    if not there:
        print(f"\nleft out: {contestant}, which is not installed")
    return there


def broken(case: Case, x: Tensor, minimum_norm: bool) -> Tensor:
    """Whether each input is an admissible success, bool `[N]`."""
    return (decisions(case, x) != case.labels) & contained(case, x, minimum_norm, budget=False)


def decisions(case: Case, x: Tensor) -> Tensor:
    """Class indices, `[N]`; on a GPU they are there when this returns."""
    decided = predict_in_batches(case.model.model, x.to(case.inputs), case.batch_size).argmax(1)
    if decided.is_cuda:
        torch.cuda.synchronize()
    return decided


def contained(case: Case, x: Tensor, minimum_norm: bool, *, budget: bool) -> Tensor:
    """Whether each input is allowed; float noise of other libraries is (1e-5, as an absolute change of a value)."""
    inside = (x >= -1e-5).flatten(1).all(1) & (x <= 1 + 1e-5).flatten(1).all(1)
    if case.norm not in NORMS:
        return inside & _region(case).contains(x.to(case.inputs))
    eps = float("inf") if minimum_norm and not budget else case.eps
    return inside & (distance(case, x) <= eps * (1 + 1e-3) + 1e-5)


def distance(case: Case, x: Tensor) -> Tensor:
    """In the case's norm, `[N]`."""
    return _region(case).distance(x.to(case.inputs))


def _region(case: Case) -> Region:
    region: Region = THREAT_MODELS[case.norm](eps=case.eps).around(case.inputs, Bounds())
    return region


def show(rows: Sequence[Row]) -> None:
    """One match as a table."""
    first = rows[0]
    print(f"\n{first.match}: {first.model}, {first.norm} {first.eps:.4g}, {first.samples} samples")
    for row in rows:
        far = "" if row.median_distance is None else f"   median distance {row.median_distance:.4f}"
        print(
            f"  {row.contestant:20} {row.seconds:8.2f} s {row.ratio:7.2f} x, told {row.told_ratio:7.2f} x",
            f"  passes {row.forward:7.1f}/{row.backward:6.1f}",
            f"  robust {row.robust:6.2%}   agree {row.agreement:6.2%}{far}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=("",), help="matches whose title begins with one of these")
    parser.add_argument("--model", help="matches on this model")
    parser.add_argument("--norm")
    parser.add_argument("--without", nargs="+", default=(), help="contestants to leave out, such as ART")
    parser.add_argument("--samples", type=int, help="at most so many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    asked = parser.parse_args()
    keep_freed_memory()  # as `rbl run` does; the peers gain as much
    rows: list[Row] = []
    for match in MATCHES:
        if not match.title.startswith(tuple(asked.only)):
            continue
        if (asked.model and match.model != asked.model) or (asked.norm and match.norm != asked.norm):
            continue
        samples = min(match.samples, asked.samples or match.samples)
        try:
            case = load_case(match.model, samples, match.norm, match.eps, asked.batch_size, torch.device(asked.device))
        except MissingError as missing:
            print(f"\n{match.title}: {missing}")
            continue
        found = compete(match, case, asked.rounds, asked.without)
        show(found)
        rows += found
        if asked.out:
            asked.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
