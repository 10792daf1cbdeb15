"""What an adversary wants of a detector. The losses work on candidates and training losses, the verdicts on detections.

More damage is worse, so no sample is ever done: attacks run their steps out, and the input with the most damage is
kept. An image counts as broken when the adversary has reached its goal on every object that the detector found in the
clean image, as in DAG, which stops there (Xie et al. 2017, https://arxiv.org/abs/1703.08603, algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from pydantic import Field
from torch import Tensor

from robustbench_lab.errors import SkipCell, UsageError, did_you_mean
from robustbench_lab.tasks.boxes import iou
from robustbench_lab.tasks.detection_measures import Matches, Scene, scene_of
from robustbench_lab.tasks.detector_output import WORKING_SCORE, DetectorOutput
from robustbench_lab.tasks.suppression_input import SuppressionInput

Passes = Annotated[int, Field(ge=1)]
ClassNumber = Annotated[int, Field(ge=0)]
Labels = Literal["truth", "self"]
"""Whose objects the adversary works on: the annotated ones, or those the model itself reports on the clean image (an
adversary that has no annotations)."""
Goal = dict[str, Tensor]
"""`boxes`, `labels`, `crowd` of the objects aimed at, `found` bool `[B, M]`: those found in the clean image; and
`wrong` int64 `[B, M]` where each is to get another label."""

OWN_OBJECTS = 100
"""Detections of the clean image that count as objects with `labels="self"`."""
BEST_CLASSES, SURE_ENOUGH = 2, 1.0
"""Of a candidate, and the log-odds from which more is of no use, where objects are invented."""
ASSIGNED_IOU = 0.5
"""Candidates that overlap an object by this much are about it."""


@dataclass(frozen=True)
class DetectionObjective:
    """What the objectives share."""

    labels: Labels = "truth"
    eot: Passes | None = None
    """Forward passes that every query takes the mean of; None: 1, and 20 on a randomized model."""

    @property
    def stop_on_success(self) -> bool:
        """Never: a second object lost is worse than one."""
        return False

    def prepare(self, clean_prediction: DetectorOutput, targets: dict[str, Tensor]) -> Goal:
        """The objects to work on, and which of them the detector finds."""
        scene = scene_of(targets)
        if self.labels == "self":
            scene = _own_scene(clean_prediction, scene)
        found = Matches(scene, clean_prediction.detections).found
        return {"boxes": scene.boxes, "labels": scene.labels, "crowd": scene.crowd, "found": found}

    def judged(self, prediction: DetectorOutput, goal: Goal) -> tuple[Tensor, Tensor]:
        """Success, bool, and damage, `[B]` each: detections are held against the objects once for both."""
        matches = Matches(Scene(goal["boxes"], goal["labels"], goal["crowd"]), prediction.detections)
        return self._reached(matches, goal), self._harm(matches, goal)

    def succeeded(self, prediction: DetectorOutput, goal: Goal) -> Tensor:
        """Whether the goal is reached, bool `[B]`."""
        return self.judged(prediction, goal)[0]

    def damage(self, prediction: DetectorOutput, goal: Goal) -> Tensor:
        """By which the best query is kept, `[B]`."""
        return self.judged(prediction, goal)[1]

    def _reached(self, matches: Matches, goal: Goal) -> Tensor:
        """Whether the goal is reached, bool `[B]`."""
        raise NotImplementedError

    def _harm(self, matches: Matches, goal: Goal) -> Tensor:
        """The damage, `[B]`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Untargeted(DetectionObjective):
    """Detections as wrong as can be: objects lost, mislabelled or misplaced, and objects invented."""

    def loss(self, name: str | None, prediction: DetectorOutput, goal: Goal) -> Tensor:
        """`training` (the default): the detector's training loss, `[B]` (TOG untargeted, Chow et al. 2020, eq. 4).

        A detector without one, such as a black box, gives the damage to attacks that ask for no gradient.
        """
        _choose(name, ("training",))
        if name is None and prediction.training_loss is None and not torch.is_grad_enabled():
            return self.damage(prediction, goal)
        return prediction.loss_of(goal["boxes"], goal["labels"])

    def _reached(self, matches: Matches, goal: Goal) -> Tensor:
        """Whether none of the objects found in the clean image is found any more, bool `[B]`."""
        return _all_of_them(~matches.found, goal)

    def _harm(self, matches: Matches, goal: Goal) -> Tensor:  # noqa: ARG002
        """Average precision that the image's objects have lost, and half of the confidence that they have lost, `[B]`.

        Confidence counts because other images' inventions can rank above them.
        """
        lost = (1 - matches.precision()) + (1 - matches.confidence()) / 2
        return torch.where(matches.scene.real, lost, 0).sum(1)


@dataclass(frozen=True)
class Feature(Untargeted):
    """Features without contrast, which later layers of any network can make little of: an attack that is to transfer.

    Dispersion reduction (Lu et al. 2020, "Enhancing Cross-Task Black-Box Transferability of Adversarial Examples with
    Dispersion Reduction", CVPR).
    """

    def loss(self, name: str | None, prediction: DetectorOutput, goal: Goal) -> Tensor:  # noqa: ARG002
        """`dispersion`: the standard deviation of the backbone's features, downwards, `[B]`."""
        _choose(name, ("dispersion",))
        if prediction.features is None:
            raise SkipCell("the detector does not show its backbone's features")
        return -prediction.features.std(dim=1)


@dataclass(frozen=True)
class Vanish(DetectionObjective):
    """Nothing is reported where the objects are."""

    def loss(self, name: str | None, prediction: DetectorOutput, goal: Goal) -> Tensor:  # noqa: ARG002
        """`sharp` (the default): the same as `tog` on doubled log-odds, `[B]`, upwards.

        `tog`: binary cross-entropy of every candidate and class to absent, downwards (Chow et al. 2020, eq. 5). Very
        many candidates are far from any report; doubling leaves what is still one with the weight.
        """
        sharpness = 2.0 if _choose(name, ("sharp", "tog")) == "sharp" else 1.0
        _, logits = prediction.with_gradient()
        return -F.softplus(sharpness * logits).flatten(1).sum(1)

    def _reached(self, matches: Matches, goal: Goal) -> Tensor:
        """Whether no detection covers any of the objects found in the clean image, bool `[B]`."""
        return _all_of_them(~matches.covered, goal)

    def _harm(self, matches: Matches, goal: Goal) -> Tensor:
        """Objects no longer covered by a report, and the confidence lost on all of them, `[B]`."""
        confidence = torch.maximum(matches.confidence(), matches.confidence(right=False))
        lost = torch.where(matches.scene.real, 1 - confidence, 0).sum(1)
        return (goal["found"] & ~matches.covered).sum(1) + lost


@dataclass(frozen=True)
class Fabricate(DetectionObjective):
    """Objects are reported where there are none."""

    false_positives: Annotated[int, Field(ge=1)] = 10
    """Reports without an object from which an image counts as broken."""

    def loss(self, name: str | None, prediction: DetectorOutput, goal: Goal) -> Tensor:  # noqa: ARG002
        """`best-classes` (the default): log-odds, up to 1, of each candidate's two best classes, `[B]`, upwards.

        `tog`: binary cross-entropy of every candidate and class to present, downwards (Chow et al. 2020, eq. 6). Most
        classes of a candidate can never be reported with its best one; what is reported need not be any surer.
        """
        chosen = _choose(name, ("best-classes", "tog"))
        _, logits = prediction.with_gradient()
        if chosen == "tog":
            return F.logsigmoid(logits).flatten(1).sum(1)
        best = logits.topk(min(BEST_CLASSES, logits.shape[2]), dim=2).values
        return best.clamp_max(SURE_ENOUGH).flatten(1).sum(1)

    def _reached(self, matches: Matches, goal: Goal) -> Tensor:  # noqa: ARG002
        """Whether enough objects are reported that are none, bool `[B]`."""
        return matches.fabricated >= self.false_positives

    def _harm(self, matches: Matches, goal: Goal) -> Tensor:  # noqa: ARG002
        """Reports without an object, and the scores of all such detections, `[B]`."""
        return matches.fabricated + matches.invented_scores()


@dataclass(frozen=True)
class Mislabel(DetectionObjective):
    """The objects are found, and called something else."""

    def prepare(self, clean_prediction: DetectorOutput, targets: dict[str, Tensor]) -> Goal:
        """The objects, and for each the wrong class that the detector deems most likely there."""
        goal = super().prepare(clean_prediction, targets)
        return {**goal, "wrong": _likeliest_wrong(clean_prediction, goal)}

    def loss(self, name: str | None, prediction: DetectorOutput, goal: Goal) -> Tensor:
        """`margin` (the default): any other class's log-odds above the own one's, see `_label_margin`, `[B]`, upwards.

        `tog`: the training loss for the wrong labels, downwards (Chow et al. 2020, eq. 7).
        """
        if _choose(name, ("margin", "tog")) == "tog":
            return -prediction.loss_of(goal["boxes"], goal["wrong"])
        return _label_margin(prediction, goal, None)

    def _reached(self, matches: Matches, goal: Goal) -> Tensor:
        """Whether every object found in the clean image is covered by a wrong label and not by its own."""
        return _all_of_them(matches.covered & ~matches.found, goal)

    def _harm(self, matches: Matches, goal: Goal) -> Tensor:
        """Objects that have changed their label, and by how much the wrong label's confidence is ahead, `[B]`."""
        turned = (goal["found"] & matches.covered & ~matches.found).sum(1)
        ahead = matches.confidence(right=False) - matches.confidence()
        return turned + torch.where(matches.scene.real, ahead, 0).sum(1)


@dataclass(frozen=True)
class TargetedMislabel(DetectionObjective):
    """The objects are found, and given one chosen label."""

    target: ClassNumber = 0
    """The label, from 0. Objects of this class get the next one."""

    def prepare(self, clean_prediction: DetectorOutput, targets: dict[str, Tensor]) -> Goal:
        """The objects, and the label that each is to get."""
        goal = super().prepare(clean_prediction, targets)
        classes = None if clean_prediction.logits is None else clean_prediction.logits.shape[2]
        if classes is not None and self.target >= classes:
            raise SkipCell(f"target class {self.target}: the model has {classes} classes, from 0 to {classes - 1}")
        chosen = torch.full_like(goal["labels"], self.target)
        following = (chosen + 1) % classes if classes else chosen + 1
        return {**goal, "wrong": torch.where(goal["labels"] == self.target, following, chosen)}

    def loss(self, name: str | None, prediction: DetectorOutput, goal: Goal) -> Tensor:
        """`margin` or `tog`, as of `mislabel`, towards the chosen label."""
        if _choose(name, ("margin", "tog")) == "tog":
            return -prediction.loss_of(goal["boxes"], goal["wrong"])
        return _label_margin(prediction, goal, goal["wrong"])

    def _reached(self, matches: Matches, goal: Goal) -> Tensor:
        """Whether every object found in the clean image is reported with its chosen label, and not with its own."""
        chosen = matches.label_confidence(goal["wrong"]) >= WORKING_SCORE
        return _all_of_them(chosen & ~matches.found, goal)

    def _harm(self, matches: Matches, goal: Goal) -> Tensor:
        """Objects that have got their chosen label, and by how much its confidence is ahead, `[B]`."""
        confidence = matches.label_confidence(goal["wrong"])
        turned = (goal["found"] & (confidence >= WORKING_SCORE) & ~matches.found).sum(1)
        return turned + torch.where(matches.scene.real, confidence - matches.confidence(), 0).sum(1)


@dataclass(frozen=True)
class Dag(Mislabel):
    """Dense Adversary Generation: every candidate about an object is called something else (Xie et al. 2017)."""

    def loss(self, name: str | None, prediction: DetectorOutput, goal: Goal) -> Tensor:
        """`dag`: the wrong logit minus the right one, over the candidates that still get it right (eq. 1), `[B]`."""
        _choose(name, ("dag",))
        boxes, logits = prediction.with_gradient()
        about, own = _about_objects(boxes, goal)
        right = logits.gather(2, own.clamp_min(0)[:, :, None]).squeeze(2)
        place = _assigned(boxes, goal)
        wrong_label = goal["wrong"].gather(1, place)
        wrong = logits.gather(2, wrong_label.clamp_min(0)[:, :, None]).squeeze(2)
        active = about & (logits.argmax(2) == own)
        return torch.where(active, wrong - right, 0).sum(1)


@dataclass(frozen=True)
class Latency(DetectionObjective):
    """As many candidates as possible reach non-maximum suppression, whose time grows with their square.

    Phantom Sponges (Shapira et al. 2023, https://arxiv.org/abs/2205.13618) and Overload (Chen et al. 2024,
    https://arxiv.org/abs/2304.05370).
    """

    least_score: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The score from which a candidate counts, once for each class; None: what the detector itself gives to the
    suppression."""
    times: Annotated[float, Field(gt=1)] = 10.0
    """An image counts as broken from so many times its clean candidates."""

    def prepare(self, clean_prediction: DetectorOutput, targets: dict[str, Tensor]) -> Goal:
        """The objects, and how many candidates the clean image has."""
        clean_count = self._rule(clean_prediction).count(clean_prediction.with_gradient()[1])
        return {**super().prepare(clean_prediction, targets), "clean_count": clean_count}

    def loss(self, name: str | None, prediction: DetectorOutput, goal: Goal) -> Tensor:  # noqa: ARG002
        """`count` (the default), `[B]`, upwards: a smooth count of those above the least score, by doubled log-odds.

        `overload`: minus the square of what each candidate's summed probability lacks of 1, where those above the
        least score count as 1 (Chen et al. 2024). `phantom-sponges`: minus what each candidate's best probability lacks
        of the least score (Shapira et al. 2023, eq. 3, for the likeliest class in place of one that is chosen).
        """
        chosen = _choose(name, ("count", "overload", "phantom-sponges"))
        _, logits = prediction.with_gradient()
        rule = self._rule(prediction)
        if chosen == "count":
            return (2 * (rule.contenders(logits) - _logit(rule.least_score))).sigmoid().sum(1)
        probability = logits.sigmoid()
        if chosen == "phantom-sponges":
            return -(rule.least_score - probability.amax(2)).clamp_min(0).sum(1)
        there = torch.where(probability > rule.least_score, 1.0, probability)
        return -(1 - there.sum(2).clamp_max(1)).square().sum(1)

    def judged(self, prediction: DetectorOutput, goal: Goal) -> tuple[Tensor, Tensor]:
        """Whether there are `times` as many candidates as in the clean image, bool, and how many there are, `[B]`."""
        count = self._rule(prediction).count(prediction.with_gradient()[1])
        return count >= self.times * goal["clean_count"].clamp_min(1), count

    def _rule(self, prediction: DetectorOutput) -> SuppressionInput:
        """Raises SkipCell where neither the detector nor the user says it."""
        if self.least_score is not None:
            return SuppressionInput(self.least_score)
        if prediction.suppression is None:
            text = "the detector does not say what it gives to non-maximum suppression, if it has any"
            raise SkipCell(f"{text}: latency(least_score=0.05) counts scores above that")
        return prediction.suppression


def _own_scene(prediction: DetectorOutput, annotated: Scene) -> Scene:
    """What the detector reports on the clean image, as if it were annotated; crowds stay."""
    detections = prediction.detections
    labels = torch.where(detections["scores"] >= WORKING_SCORE, detections["labels"], -1)[:, :OWN_OBJECTS]
    nowhere = torch.full_like(annotated.labels, -1)
    own = torch.zeros_like(labels, dtype=torch.bool)
    return Scene(
        torch.cat([detections["boxes"][:, :OWN_OBJECTS], annotated.boxes], dim=1),
        torch.cat([labels, nowhere], dim=1),
        torch.cat([own, annotated.crowd], dim=1),
    )


def _all_of_them(reached: Tensor, goal: Goal) -> Tensor:
    """Whether the goal is reached on all objects found in the clean image, and there were some, bool `[B]`."""
    found = goal["found"]
    return found.any(1) & (reached | ~found).all(1)


def _assigned(boxes: Tensor, goal: Goal) -> Tensor:
    """The object that each candidate overlaps most, `[B, A]`."""
    with torch.no_grad():
        overlap = torch.where((goal["labels"] >= 0)[:, None, :], iou(boxes, goal["boxes"]), -1.0)
        return overlap.argmax(2)


def _about_objects(boxes: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """Whether each candidate is about an object, bool `[B, A]`, and that object's label, `[B, A]`."""
    with torch.no_grad():
        overlap = torch.where((goal["labels"] >= 0)[:, None, :], iou(boxes, goal["boxes"]), -1.0)
        best, place = overlap.max(2)
        return best >= ASSIGNED_IOU, goal["labels"].gather(1, place)


def _label_margin(prediction: DetectorOutput, goal: Goal, wanted: Tensor | None) -> Tensor:
    """Wrong label's logit minus the right one's, over the candidates about an object, `[B]`.

    The wrong label is the best of all others, or the one wanted for each object (int64 `[B, M]`). A margin as in
    Carlini & Wagner 2017. What is far ahead counts no more: other candidates are to follow.
    """
    boxes, logits = prediction.with_gradient()
    about, own = _about_objects(boxes, goal)
    own = own.clamp_min(0)[:, :, None]
    right = logits.gather(2, own).squeeze(2)
    if wanted is None:
        wrong = logits.scatter(2, own, float("-inf")).amax(2)
    else:
        place = _assigned(boxes, goal)
        wrong = logits.gather(2, wanted.gather(1, place).clamp_min(0)[:, :, None]).squeeze(2)
    gain = F.logsigmoid(wrong) - F.softplus(right)
    return torch.where(about, gain, 0).sum(1)


def _likeliest_wrong(prediction: DetectorOutput, goal: Goal) -> Tensor:
    """For each object the class, other than its own, of the highest logit among the candidates about it, `[B, M]`."""
    if prediction.candidates is None or prediction.logits is None:
        return torch.where(goal["labels"] == 0, 1, 0)
    overlap = iou(prediction.candidates, goal["boxes"]) >= ASSIGNED_IOU
    wrong = torch.empty_like(goal["labels"])
    for place in range(wrong.shape[1]):
        highest = prediction.logits.masked_fill(~overlap[:, :, place, None], float("-inf")).amax(1)
        own = goal["labels"][:, place, None].clamp_min(0)
        wrong[:, place] = highest.scatter(1, own, float("-inf")).argmax(1)
    return wrong


def _choose(name: str | None, known: tuple[str, ...]) -> str:
    """The loss of that name; the first where none is given. Raises UsageError."""
    if name is None:
        return known[0]
    if name not in known:
        raise UsageError(f"there is no loss '{name}' for this objective on detectors.{did_you_mean(name, known)}")
    return name


def _logit(score: float) -> float:
    return float(torch.logit(torch.tensor(score)))
