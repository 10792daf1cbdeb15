"""Attacks on forecasters: errors under PGD and noise, what a step costs, and how near PGD comes to a known optimum.

    python benchmarks/etth1.py
    python benchmarks/forecasting.py etth1 demand figure step optimum

etth1, demand: the error of every model, clean, with random signs and under PGD of equal size, by an adversary that
knows the true future and by one that does not. figure: both, drawn. step: one step of PGD beside the bare forward and
backward pass; contestants run in turn, medians of the rounds; and 1000 windows by 50 steps. optimum: PGD on linear
models beside the closed form. Times are of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import etth1
import torch
from timing import paired, seconds
from torch import Tensor, nn

from rbl_attacks.fixed_budget.pgd import pgd
from rbl_reference import forecasters
from rbl_reference.train_forecasters import RECIPES as BUNDLED
from rbl_reference.victoria_demand import VictoriaDemand
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, Samples
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.hardware.host_memory import keep_freed_memory
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.records import Outcomes
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.forecast_output import centre, point
from robustbench_lab.tasks.forecasting import Forecasting
from robustbench_lab.tasks.forecasting_objectives import Error, Up
from robustbench_lab.threat_models.series import Series

STEPS = 20
BUDGETS = (0.1, 0.25)
"""In training standard deviations."""
OPEN = Bounds(float("-inf"), float("inf"))
TASK = Forecasting()
RESULTS = Path(__file__).parent / "results"
Settings = dict[str, Any]


def setting_of(
    model: nn.Module, samples: Samples, objective: Objective, eps: float, bounds: Bounds = OPEN, batch_size: int = 64
) -> ProblemSetting:
    """A problem in `series(eps)` on all samples."""
    count = len(samples.inputs)
    with torch.no_grad():
        clean = model(samples.inputs)
        goal = objective.prepare(clean, samples.targets)
        measure = {**TASK.measure(clean, samples.targets), "damage": objective.damage(clean, goal)}
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=Series(eps),
        clean=samples.inputs,
        goal=goal,
        open=torch.ones(count, dtype=torch.bool),
        bounds=bounds,
        rng=SampleRng.for_samples(0, "pgd", [str(index) for index in range(count)], samples.inputs.device),
        batch_size=batch_size,
        task=TASK,
        targets=samples.targets,
        right=TASK.intact(clean, samples.targets),
        clean_measure=measure,
    )


def under_pgd(setting: ProblemSetting, steps: int = STEPS) -> Outcomes:
    """As the core judges it."""
    problem = AttackProblem(setting)
    pgd(problem, steps=steps)
    return audit_attack(problem, setting, setting.model, passes=1).outcomes


# ---------------------------------------------------------------- errors


def errors(model: nn.Module, samples: Samples, inputs: Tensor) -> dict[str, float]:
    """Of the point forecast, in training standard deviations."""
    with torch.inference_mode():
        forecast = torch.cat([point(model(part)) for part in inputs.split(256)])
        missed = (forecast - samples.targets["future"]) / samples.targets["unit"][:, None]
    return {"mse": float(missed.square().mean()), "mae": float(missed.abs().mean())}


def attacked(outcomes: Outcomes) -> dict[str, float]:
    """The same of the audit's numbers."""
    return {name: float(outcomes.columns[f"robust_{name}"].mean(dtype=float)) for name in ("mse", "mae")}


def each_budget(model: nn.Module, samples: Samples, bounds: Bounds) -> Settings:
    """One random sign for each value, and PGD with the true future and with the model's own forecast as its label."""
    found: Settings = {"clean": errors(model, samples, samples.inputs)}
    signs = 2.0 * torch.randint(0, 2, samples.inputs.shape, generator=torch.Generator().manual_seed(0)) - 1
    for eps in BUDGETS:
        noisy = samples.inputs + eps * samples.targets["unit"][:, None] * signs
        found[f"noise {eps}"] = errors(model, samples, noisy.clamp(bounds.low, bounds.high))
        for labels in ("oracle", "self"):
            outcomes = under_pgd(setting_of(model, samples, Error(labels=labels), eps, bounds))
            found[f"pgd {labels} {eps}"] = attacked(outcomes)
    return found


def ranked(rows: Mapping[str, Settings], metric: str) -> Settings:
    """The least harmed under PGD at the smallest budget first."""
    return dict(sorted(rows.items(), key=lambda row: row[1][f"pgd oracle {BUDGETS[0]}"][metric]))


def on_etth1(every: int) -> Settings:
    """Clean errors on all test windows beside the published ones; attacks on every so manieth window."""
    data = etth1.etth1()
    whole = data.load(range(len(data.sample_ids)))
    few = data.load(range(0, len(data.sample_ids), every))
    rows = {}
    for name in etth1.RECIPES:
        model = etth1.trained(name)
        rows[name] = {
            "published": etth1.PUBLISHED.get(name),
            "all windows": etth1.errors(model, whole),
            **each_budget(model, few, data.bounds),
        }
        print(name, json.dumps(rows[name]), flush=True)
    return {"windows": len(whole.inputs), "attacked": len(few.inputs), "models": ranked(rows, "mse")}


def on_demand() -> Settings:
    """All bundled models on all test windows."""
    data = VictoriaDemand()
    samples = data.load(range(len(data.sample_ids)))
    rows = {}
    for name in BUNDLED:
        rows[name] = each_budget(bundled(name), samples, data.bounds)
        print(name, json.dumps(rows[name]), flush=True)
    return {"windows": len(samples.inputs), "models": ranked(rows, "mae")}


def bundled(name: str) -> nn.Module:
    """A bundled forecaster, its parameters without gradient."""
    make: Callable[[], nn.Module] = getattr(forecasters, name.replace("-", "_"))
    return make().requires_grad_(False)


# ---------------------------------------------------------------- what a step costs


def step_cost(model: nn.Module, samples: Samples, rounds: int, batch_size: int = 256) -> Settings:
    """PGD's steps, without its random start, against as many bare passes of the absolute error."""
    future = samples.targets["future"].split(batch_size)

    def bare() -> None:
        for _ in range(STEPS):
            for history, came in zip(samples.inputs.split(batch_size), future, strict=True):
                leaf = history.clone().requires_grad_()
                torch.autograd.grad((centre(model(leaf)) - came).abs().sum(), leaf)

    setting = setting_of(model, samples, Error(), BUDGETS[0], batch_size=batch_size)

    def ready() -> Callable[[], None]:
        problem = AttackProblem(setting)
        start = problem.random_start()
        return lambda: walk(problem, start)

    def walk(problem: AttackProblem, x: Tensor) -> None:
        for _ in range(STEPS):
            x = problem.ascend(x, BUDGETS[0] / 4)

    return {"windows": len(samples.inputs), **paired(bare, ready, rounds)}


def step_costs(rounds: int) -> Settings:
    """Of every model; and 1000 windows of seven series by 50 steps on DLinear."""
    demand, hours = VictoriaDemand(), etth1.etth1()
    samples = demand.load(range(len(demand.sample_ids)))
    many = hours.load(range(1000))
    found: Settings = {}
    for name in BUNDLED:
        found[name] = step_cost(bundled(name), samples, 1 if name == "demand-deepar" else rounds)
    for name in etth1.RECIPES:
        few = hours.load(range(64)) if name == "PatchTST" else many
        found[f"ETTh1 {name}"] = step_cost(etth1.trained(name), few, rounds)
    setting = setting_of(etth1.trained("DLinear"), many, Error(), BUDGETS[0], batch_size=256)
    found["1000 windows, 50 steps, ETTh1 DLinear"] = {"seconds": seconds(lambda: under_pgd(setting, 50))}
    return found


# ---------------------------------------------------------------- a known optimum


def beside_the_optimum() -> Settings:
    """How far PGD raises the mean forecast of a linear model, beside eps times the l1 norm of its mean weights."""
    data = etth1.etth1()
    samples = data.load(range(0, len(data.sample_ids), 100))
    found = {}
    for name in ("DLinear", "NLinear"):
        model = etth1.trained(name)
        leaf = samples.inputs[:1].clone().requires_grad_()
        units = samples.targets["unit"][:1, None]
        (weights,) = torch.autograd.grad((model(leaf) / units).mean(), leaf)
        best = BUDGETS[0] * float((weights * units).abs().sum())
        reached = under_pgd(setting_of(model, samples, Up(), BUDGETS[0])).columns["shift"]
        found[name] = {"optimum": best, "least": float(reached.min()), "most": float(reached.max())}
        found[name]["difference"] = max(abs(best - found[name]["least"]), abs(best - found[name]["most"]))
    return found


# ---------------------------------------------------------------- the figure


def draw(results: Settings) -> None:
    """Clean, noise and PGD for every model, the least harmed at the top: results/forecasting.svg."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    dark, blue, red = "#57606a", "#0969da", "#bc4c00"
    styles = {"clean": ("o", dark, "full")}
    for eps, noise, fill in zip(BUDGETS, "|x", ("full", "none"), strict=True):
        styles |= {f"noise {eps}": (noise, blue, "full"), f"pgd oracle {eps}": ("s", red, fill)}
    panels = [
        ("etth1", "mse", "ETTh1, mean squared error"),
        ("demand", "mae", "Victoria's demand, mean absolute error"),
    ]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustbench-lab", "font.size": 10}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, (part, metric, title) in zip(figure.subplots(1, 2), panels, strict=True):
            rows = results[part]["models"]
            for height, row in enumerate(reversed(list(rows.values()))):
                values = {label: row[label][metric] for label in styles}
                axes.plot([min(values.values()), max(values.values())], [height, height], color="#d0d7de", zorder=0)
                for label, value in values.items():
                    marker, color, fill = styles[label]
                    text = label.replace("pgd oracle", "PGD") if height == 0 else None
                    axes.plot(value, height, marker, color=color, fillstyle=fill, label=text, linestyle="none")
            axes.set_yticks(range(len(rows)), list(reversed(list(rows))))
            axes.set_xlabel(title)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="x", color="#eaeef2")
            axes.set_axisbelow(True)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
        nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
        figure.savefig(RESULTS / "forecasting.svg", metadata=nothing)


def main() -> None:
    """Run what was asked for, and write it to results/forecasting.json beside what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["etth1", "demand", "figure", "step", "optimum"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=24, help="of ETTh1's 2785 test windows, which are attacked")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    keep_freed_memory()  # as `rbl run` does; the bare passes and the peers gain as much
    torch.set_num_threads(asked.threads)
    file = RESULTS / "forecasting.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    works: dict[str, Callable[[], Settings]] = {
        "etth1": lambda: on_etth1(asked.every),
        "demand": on_demand,
        "step": lambda: step_costs(asked.rounds),
        "optimum": beside_the_optimum,
    }
    for part in asked.parts:
        if part == "figure":
            draw(results)
            continue
        results[part] = works[part]()
        print(part, json.dumps(results[part], indent=1))
        file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
