"""Attacks on detectors: what a step costs, ART's beside ours, what each objective does, and mAP beside its references.

    python benchmarks/train_coco128.py --data ../shared/data/coco128 --out benchmarks/models
    python benchmarks/detection.py step art objectives patches map

step: one step of PGD beside the bare forward and backward pass of the training loss. art: PGD on the training loss by
ART's object-detection estimator and by us, equal steps, on the bundled detector and on the torchvision detector that
train_coco128.py has trained. objectives:
the bundled detectors under each objective, with the published loss of its name and with ours. patches: the plain
bundled detector behind each defense against patches, under an adversary that knows of it and one that does not.
map: 5000 images by hotcoco (with our bootstrap), faster-coco-eval and pycocotools. Contestants run in turn; medians of
the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import train_coco128
from timing import medians, paired
from torch import Tensor, nn

from rbl_attacks.fixed_budget.pgd import pgd
from rbl_attacks.score_based.noise import noise
from rbl_reference.scene_fcos import scene_fcos, scene_fcos_at
from rbl_reference.scenes import DigitScenes
from rbl_torchvision.torchvision_detector import torchvision_detector
from robustbench_lab import evaluate
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, Samples
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.evaluation.workbench import ready
from robustbench_lab.hardware.host_memory import keep_freed_memory
from robustbench_lab.passes.folded_norms import with_folded_norms
from robustbench_lab.passes.memory_format import FEW, fastest_format
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.records import Outcomes
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks import average_precision, detection
from robustbench_lab.tasks.average_precision import AveragePrecision, StoredScenes
from robustbench_lab.tasks.detection import Detection
from robustbench_lab.tasks.detection_objectives import (
    Dag,
    Fabricate,
    Feature,
    Latency,
    Mislabel,
    TargetedMislabel,
    Untargeted,
    Vanish,
)
from robustbench_lab.threat_models.norm_balls import Linf

EPS = 8 / 255
STEPS = 20
TASK = Detection()
Settings = dict[str, Any]
PATCH_METRICS = ("clean_map", "clean_map50", "robust_map", "robust_map50", "vanished_rate", "false_positives")
METRICS = (
    detection.robust_map,
    detection.robust_map50,
    detection.vanished_rate,
    detection.mislabelled_rate,
    detection.fabricated_rate,
    detection.false_positives,
    detection.nms_candidates,
)
OBJECTIVES = (
    (Untargeted(), "training"),
    (Untargeted(labels="self"), "training"),
    (Vanish(), "sharp"),
    (Vanish(), "tog"),
    (Vanish(labels="self"), "sharp"),
    (Fabricate(), "best-classes"),
    (Fabricate(), "tog"),
    (Mislabel(), "margin"),
    (Mislabel(), "tog"),
    (Mislabel(labels="self"), "margin"),
    (TargetedMislabel(), "margin"),
    (TargetedMislabel(), "tog"),
    (Dag(), "dag"),
    (Feature(), "dispersion"),
    (Latency(), "count"),
    (Latency(), "overload"),
    (Latency(), "phantom-sponges"),
)
"""Each with each of its losses; ours first."""


def scenes(count: int) -> Samples:
    """Test scenes of the bundled data."""
    return DigitScenes(scenes=count).load(range(count))


def setting_of(model: nn.Module, samples: Samples, objective: Objective, batch_size: int) -> ProblemSetting:
    """A linf problem on all samples, with the model made ready as `rbl run` does."""
    count = len(samples.inputs)
    model = ready(copy.deepcopy(model), samples.inputs.device)
    with torch.inference_mode():
        clean = model(samples.inputs)
        goal = objective.prepare(clean, samples.targets)
        measure = {**TASK.measure(clean, samples.targets), "damage": objective.damage(clean, goal)}
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=Linf(EPS),
        clean=samples.inputs,
        goal=_plain(goal),
        open=torch.ones(count, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "pgd", [str(index) for index in range(count)], samples.inputs.device),
        batch_size=batch_size,
        task=TASK,
        targets=samples.targets,
        right=TASK.intact(clean, samples.targets),
        clean_measure=measure,
    )


def _plain(tree: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outside of inference mode."""
    return {name: value.clone() for name, value in tree.items()}


def outcomes(problem: AttackProblem, setting: ProblemSetting) -> Outcomes:
    """As the core judges them."""
    return audit_attack(problem, setting, setting.model, passes=1).outcomes


def ours(setting: ProblemSetting, loss: str | None = None) -> AttackProblem:
    """PGD from a random start."""
    problem = AttackProblem(setting)
    pgd(problem, steps=STEPS, step_size=EPS / 4, loss=loss)
    return problem


# ---------------------------------------------------------------- what a step costs


def step_cost(model: nn.Module, samples: Samples, batch_size: int, rounds: int) -> Settings:
    """PGD's steps, every iterate judged, against as many bare passes; the random start is left out."""
    boxes, labels = samples.targets["boxes"], samples.targets["labels"]

    def bare() -> None:
        for _ in range(STEPS):
            for part in range(0, len(boxes), batch_size):
                rows = slice(part, part + batch_size)
                leaf = samples.inputs[rows].clone().requires_grad_()
                torch.autograd.grad(model(leaf).loss_of(boxes[rows], labels[rows]).sum(), leaf)

    setting = setting_of(model, samples, Untargeted(), batch_size)

    def walking() -> Callable[[], None]:
        problem = AttackProblem(setting)
        start = problem.random_start()
        return lambda: walk(problem, start)

    def walk(problem: AttackProblem, x: Tensor) -> None:
        gradient = None
        for _ in range(STEPS):
            _, gradient = problem.loss_and_gradient(x, out=gradient)
            x = problem.project(x.add_(problem.steepest(gradient, x), alpha=EPS / 4))

    return paired(bare, walking, rounds)


# ---------------------------------------------------------------- ART


class TorchvisionLike(nn.Module):
    """The bundled detector as ART wants one: losses in training mode, lists of detections otherwise."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Any, targets: Any = None) -> Any:
        """Images `[B, C, H, W]` or a list of them."""
        made = self.model(torch.stack(list(images)))
        if self.training:
            pad = torch.nn.utils.rnn.pad_sequence
            boxes = pad([one["boxes"] for one in targets], batch_first=True)
            labels = pad([one["labels"] for one in targets], batch_first=True, padding_value=-1)
            return {"loss": made.loss_of(boxes, labels).mean()}
        return [{name: values[image] for name, values in made.detections.items()} for image in range(len(made.logits))]


def by_art(model: nn.Module, losses: Sequence[str], samples: Samples, first_label: int, batch_size: int) -> Tensor:
    """Adversarial images by ART's PGD on the summed losses; it has no random start for detectors."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.object_detection import PyTorchObjectDetector

    estimator = PyTorchObjectDetector(
        model, input_shape=tuple(samples.inputs.shape[1:]), clip_values=(0, 1), attack_losses=tuple(losses)
    )
    truth = []
    for boxes, labels in zip(samples.targets["boxes"], samples.targets["labels"], strict=True):
        real = labels >= 0
        one = {"boxes": boxes[real].numpy(), "labels": labels[real].numpy() + first_label}
        truth.append({**one, "scores": np.ones(int(real.sum()), dtype=np.float32)})
    attack = ProjectedGradientDescent(
        estimator, eps=EPS, eps_step=EPS / 4, max_iter=STEPS, batch_size=batch_size, verbose=False
    )
    return torch.from_numpy(attack.generate(samples.inputs.numpy(), y=truth))


def beside_art(
    name: str, model: nn.Module, art: Callable[[], Tensor], samples: Samples, batch_size: int, rounds: int
) -> Settings:
    """Time and strength: the training loss reached, by the same model, and mAP.

    `walk` is what our steps lead to from where ART begins, the last iterate as it keeps it, with no thought of damage.
    """
    setting = setting_of(model, samples, Untargeted(), batch_size)
    made: dict[str, Tensor] = {"clean": samples.inputs, "walk": walked_from_clean(setting)}

    def run_ours() -> None:
        batch = samples.inputs[:batch_size]
        fastest_format(setting.model, batch, 2 * STEPS * len(samples.inputs))  # these two as `rbl run` does
        fast = with_folded_norms(setting.model, batch[:FEW]) or setting.model
        problem = AttackProblem(replace(setting, model=fast))
        pgd(problem, steps=STEPS, step_size=EPS / 4)
        setting.model.to(memory_format=torch.contiguous_format)
        made["ours"] = problem.candidates

    def run_art() -> None:
        made["art"] = art()

    times = medians({"ours": run_ours, "art": run_art}, rounds)
    strength = {}
    for who, images in made.items():
        with torch.no_grad():
            loss = model(images).loss_of(samples.targets["boxes"], samples.targets["labels"])
        judged = outcomes(_submitted(setting, images), setting)
        strength[who] = {
            "training_loss": float(loss.mean()),
            "robust_map": detection.robust_map(judged).value,
            "robust_map50": detection.robust_map50(judged).value,
        }
    same = float((made["walk"] == made["art"]).float().mean())
    ratio = times["ours"] / times["art"]
    return {"model": name, "images": len(samples.inputs), "seconds": times, "ratio": ratio, "strength": strength} | {
        "values of walk equal to art's": same
    }


def walked_from_clean(setting: ProblemSetting) -> Tensor:
    """The last of PGD's iterates without a random start."""
    problem = AttackProblem(setting)
    x = problem.clean.clone()
    for _ in range(STEPS):
        x = problem.ascend(x, EPS / 4)
    return x


def _submitted(setting: ProblemSetting, images: Tensor) -> AttackProblem:
    problem = AttackProblem(setting)
    problem.submit(problem.project(images.clone()))
    return problem


# ---------------------------------------------------------------- objectives


def each_objective(samples: Samples) -> list[Settings]:
    """Every objective with each of its losses, and noise, on the bundled detectors."""
    rows = []
    for name, model in (("scene-fcos", scene_fcos()), ("scene-fcos-at", scene_fcos_at())):
        model.requires_grad_(False)
        for objective, loss in OBJECTIVES:
            setting = setting_of(model, samples, objective, 64)
            judged = outcomes(ours(setting, loss), setting)
            own = " by its own labels" if objective.labels == "self" else ""
            row = _row(name, f"{type(objective).__name__.lower()}{own} ({loss})", judged)
            rows.append({**row, "reached": float((~judged.robust & judged.clean_correct).mean())})
        setting = setting_of(model, samples, Untargeted(), 64)
        problem = AttackProblem(setting)
        noise(problem)
        judged = outcomes(problem, setting)
        rows.append(_row(name, "noise", judged))
        of_clean = (detection.clean_map, detection.clean_map50, detection.clean_nms_candidates)
        rows.append({"model": name, "objective": "clean", **{one.__name__: one(judged).value for one in of_clean}})
    return rows


def _row(model: str, objective: str, judged: Outcomes) -> Settings:
    return {"model": model, "objective": objective, **{one.__name__: one(judged).value for one in METRICS}}


# ---------------------------------------------------------------- mAP


def many_scenes(images: int) -> StoredScenes:
    """Made up: 36 detections and up to 8 objects an image, 80 classes."""
    rng = np.random.default_rng(0)
    corner = 500 * rng.random((images, 8, 2))
    truth = np.concatenate([corner, corner + 10 + 90 * rng.random((images, 8, 2))], axis=2)
    truth_labels = rng.integers(1, 81, (images, 8)) * (rng.random((images, 8)) < 0.9)
    about = rng.integers(0, 8, (images, 36))
    found = np.take_along_axis(truth, about[..., None], axis=1) + rng.normal(0, 5, (images, 36, 4))
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 1)
    right = np.take_along_axis(truth_labels, about, axis=1)
    labels = np.where(rng.random(about.shape) < 0.7, right, rng.integers(1, 81, about.shape))
    crowd = (rng.random(truth_labels.shape) < 0.02) & (truth_labels > 0)
    return StoredScenes(
        found.astype(np.float32),
        rng.random(about.shape).astype(np.float32),
        labels.astype(np.int16),
        truth.astype(np.float32),
        truth_labels.astype(np.int16),
        crowd,
    )


def evaluators(images: int) -> Settings:
    """Value and time of each, from arrays to mAP; ours once more with its interval."""
    from faster_coco_eval import COCO as FasterCOCO  # noqa: N811
    from faster_coco_eval import COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    given = many_scenes(images)

    def by(coco_class: Any, evaluator: Any) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = coco_class()
            coco.dataset = average_precision._ground_truth(given)
            coco.createIndex()
            evaluation = evaluator(coco, coco.loadRes(list(average_precision._results(given))), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0])

    def with_interval() -> float:
        one = AveragePrecision(given)
        return one.value + 0 * float(one.replicates[0])

    works: dict[str, Callable[[], float]] = {
        "hotcoco": lambda: AveragePrecision(given).value,
        "hotcoco with interval": with_interval,
        "faster-coco-eval": lambda: by(FasterCOCO, COCOeval_faster),
        "pycocotools": lambda: by(COCO, COCOeval),
    }
    found = {}
    for name, work in works.items():
        began = time.process_time()
        value = work()
        found[name] = {"map": value, "seconds": time.process_time() - began}
    return {"images": images, "detections": int(np.count_nonzero(given.labels)), "evaluators": found}


# ---------------------------------------------------------------- patches


def patch_defenses(samples: int) -> list[Settings]:
    """The plain bundled detector under a patch anywhere, 5% of the image, behind each defense."""
    rows = []
    for defense, adversary in itertools.product(("none", "lgs", "sac"), ("adaptive", "oblivious")):
        if (defense, adversary) == ("none", "oblivious"):
            continue
        (record,) = evaluate(
            "scene-fcos",
            f"digit-scenes(scenes={samples})",
            "patch-pgd(steps=50, restarts=4)",
            defenses=[defense],
            threat_models=["patch(eps=0.05)"],
            adversary=[adversary],
        ).records
        metrics = {name: round(record.metrics[name].value, 3) for name in PATCH_METRICS}
        rows.append({"defense": defense, "adversary": adversary, **metrics})
    return rows


# ---------------------------------------------------------------- what to run


def trained_case(count: int) -> tuple[nn.Module, Samples]:
    """The SSDLite that knows coco128, on its first images."""
    weights = str(Path(__file__).parent / "models" / train_coco128.WEIGHTS)
    model = torchvision_detector(train_coco128.NAME, weights=weights, num_classes=train_coco128.OUTPUTS)
    data = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco128"
    return model.requires_grad_(False), train_coco128.coco128(data, count)


def torchvision_case(size: int, count: int) -> tuple[nn.Module, Samples]:
    """An SSDLite with random weights on scenes scaled up: its time needs no training."""
    model = torchvision_detector("ssdlite320_mobilenet_v3_large", random_weights=True, num_classes=11)
    small = scenes(count)
    scale = size / small.inputs.shape[-1]
    images = torch.nn.functional.interpolate(small.inputs, size=(size, size), mode="bilinear").clamp(0, 1)
    _measure_activations(model.net, images)
    return model.requires_grad_(False), Samples(images, {**small.targets, "boxes": scale * small.targets["boxes"]})


def _measure_activations(net: Any, images: Tensor) -> None:
    """Batch statistics of these images, without which a random network hardly looks at its input."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.train()
    with torch.no_grad():
        net.backbone(net.transform(list(images))[0].tensors)
    net.eval()


def main() -> None:
    """Run what was asked for, and write it to results/detection.json beside what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["step", "art", "objectives", "patches", "map"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    keep_freed_memory()  # as `rbl run` does; the bare passes and the peers gain as much
    torch.set_num_threads(asked.threads)
    file = Path(__file__).parent / "results" / "detection.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for part in asked.parts:
        results[part] = run_part(part, asked)
        print(part, json.dumps(results[part], indent=1))
        file.write_text(json.dumps(results, indent=1) + "\n")


def run_part(part: str, asked: argparse.Namespace) -> Any:
    """One of the five."""
    bundled = scene_fcos().requires_grad_(False)
    if part == "objectives":
        return each_objective(scenes(asked.samples))
    if part == "patches":
        return patch_defenses(asked.samples)
    if part == "map":
        return evaluators(5000)
    if part == "step":
        ssdlite, large = torchvision_case(160, 8)
        return {
            "scene-fcos": step_cost(bundled, scenes(64), 64, asked.rounds),
            "ssdlite320": step_cost(ssdlite, large, 8, asked.rounds),
        }
    small = scenes(asked.samples)
    ssdlite, photographs = trained_case(32)

    def art_on_ours() -> Tensor:
        return by_art(TorchvisionLike(scene_fcos()), ("loss",), small, 0, 64)

    def art_on_torchvisions() -> Tensor:
        return by_art(_bare(ssdlite), ("bbox_regression", "classification"), photographs, 1, 8)

    return [
        beside_art("scene-fcos", bundled, art_on_ours, small, 64, asked.rounds),
        beside_art("ssdlite320 on coco128", ssdlite, art_on_torchvisions, photographs, 8, asked.rounds),
    ]


def _bare(adapter: nn.Module) -> nn.Module:
    """Torchvision's own module inside our adapter, without its frozen parameters."""
    net: nn.Module = copy.deepcopy(adapter.net).requires_grad_(True)
    return net


if __name__ == "__main__":
    main()
