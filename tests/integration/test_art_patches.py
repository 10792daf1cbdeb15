"""One patch for all images beside ART's RobustDPatch, on the bundled detector with the same passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rbl_attacks.universal.adversarial_patch import adversarial_patch
from rbl_reference.scene_fcos import scene_fcos
from rbl_reference.scenes import SIZE, DigitScenes
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.detection import Detection, robust_map50
from robustbench_lab.tasks.detection_objectives import Untargeted
from robustbench_lab.tasks.detector_output import WORKING_SCORE
from robustbench_lab.threat_models.bound_patches import PlacedPatch

SAMPLES, BATCH, SIDE, EPOCHS, STEP_SIZE = 48, 16, 12, 30, 0.02


class LikeTorchvision(nn.Module):
    """A detector as ART knows them: losses in training mode, a dict for each image otherwise."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]] | None = None) -> object:
        output = self.model(torch.stack(list(images)))
        if self.training and targets is not None:
            most = max(len(one["labels"]) for one in targets)
            boxes, labels = torch.zeros(len(images), most, 4), -torch.ones(len(images), most, dtype=torch.int64)
            for row, one in enumerate(targets):
                boxes[row, : len(one["boxes"])] = one["boxes"]
                labels[row, : len(one["labels"])] = one["labels"]
            return {"loss": output.loss_of(boxes, labels).sum()}
        found = output.detections
        kept = found["scores"] >= WORKING_SCORE
        return [{name: value[row][kept[row]] for name, value in found.items()} for row in range(len(images))]


def setting() -> ProblemSetting:
    """The objects are those that the model reports itself, as in ART's attack."""
    model, objective, task = scene_fcos().requires_grad_(False), Untargeted(labels="self"), Detection()
    samples = DigitScenes(scenes=SAMPLES).load(range(SAMPLES))
    with torch.no_grad():
        prediction = model(samples.inputs)
        goal = objective.prepare(prediction, samples.targets)
        damage = objective.damage(prediction, goal)
        measure = task.measure(prediction, samples.targets)
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=PlacedPatch(SIDE**2 / SIZE**2),
        clean=samples.inputs,
        goal=goal,
        open=torch.ones(SAMPLES, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "art", [str(index) for index in range(SAMPLES)], samples.inputs.device),
        batch_size=64,
        task=task,
        targets=samples.targets,
        right=task.intact(prediction, samples.targets),
        clean_measure={**measure, "damage": damage},
    )


def remaining(problem: AttackProblem, given: ProblemSetting) -> float:
    audit = audit_attack(problem, given, given.model, passes=1)
    assert audit.problems == ()
    return robust_map50(audit.outcomes).value


@pytest.mark.slow
def test_one_patch_in_a_fixed_place_is_as_strong_as_arts_robust_dpatch_with_the_same_passes() -> None:
    from art.attacks.evasion import RobustDPatch
    from art.estimators.object_detection import PyTorchObjectDetector

    given = setting()
    theirs, ours = AttackProblem(given), AttackProblem(given)
    estimator = PyTorchObjectDetector(
        LikeTorchvision(given.model),
        input_shape=(3, SIZE, SIZE),
        clip_values=(0, 1),
        attack_losses=("loss",),
        device_type="cpu",
    )
    attack = RobustDPatch(
        estimator, (3, SIDE, SIDE), learning_rate=STEP_SIZE, max_iter=EPOCHS, batch_size=BATCH, verbose=False
    )
    patch = torch.from_numpy(attack.generate(given.clean.numpy()))
    painted = given.clean.clone()
    painted[:, :, :SIDE, :SIDE] = patch
    theirs.submit(painted)
    adversarial_patch(
        ours,
        steps=EPOCHS * SAMPLES // BATCH,
        batch=BATCH,
        step_size=STEP_SIZE,
        rotation=0,
        smallest=1,
        brightness=0,
    )
    assert ours.counted_model.backward_passes == EPOCHS * SAMPLES
    assert remaining(ours, given) <= remaining(theirs, given) + 0.01
