"""Rotation and translation on models that look at one place of the image only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rbl_attacks.natural.spatial import spatial
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, ThreatModel
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.natural import Spatial
from robustbench_lab.threat_models.norm_balls import Linf

SIDE = 21
CENTRE = SIDE // 2


class OneBlock(nn.Module):
    """Class 1 while a 3x3 block at this place is bright."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.rows, self.columns = slice(row - 1, row + 2), slice(column - 1, column + 2)

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, :, self.rows, self.columns].mean((1, 2, 3)) - 0.5
        return torch.stack([torch.zeros_like(bright), bright], dim=1)


def setting_on(model: nn.Module, threat_model: ThreatModel, clean: Tensor) -> ProblemSetting:
    return ProblemSetting(
        model=model.eval(),
        objective=Untargeted(),
        threat_model=threat_model,
        clean=clean,
        goal=model(clean).argmax(1),
        open=torch.ones(len(clean), dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "spatial", [str(index) for index in range(len(clean))], clean.device),
        batch_size=4,
    )


def attacked(model: nn.Module, threat_model: ThreatModel, clean: Tensor, **params: object) -> AttackProblem:
    setting = setting_on(model, threat_model, clean)
    problem = AttackProblem(setting)
    spatial(problem, **params)
    assert audit_attack(problem, setting, setting.model, passes=1).problems == ()
    return problem


def bright_bars() -> Tensor:
    """Black images with a bright vertical bar around the centre, 3 to 15 pixels wide, `[7, 1, 21, 21]`."""
    x = torch.zeros(7, 1, SIDE, SIDE)
    for index in range(7):
        x[index, :, :, CENTRE - 1 - index : CENTRE + 2 + index] = 1
    return x


def test_a_shift_breaks_exactly_the_bars_that_it_can_move_away() -> None:
    # 4 pixels: the block of 3 is dark on average once the bar's edge is within it by more than half.
    threat_model = Spatial(1, max_rotation=0, max_translation=4.2 / SIDE)
    problem = attacked(OneBlock(CENTRE, CENTRE), threat_model, bright_bars(), rotations=1)
    # Bar i reaches i + 1.5 pixels from the centre; shifted by 4.2 it still covers half of the block if i + 1.5 >= 4.2.
    assert problem.claimed.tolist() == [index + 1.5 < 4.2 for index in range(7)]


def test_a_rotation_breaks_what_depends_on_a_place_away_from_the_centre_only() -> None:
    bar = torch.zeros(1, 1, SIDE, SIDE)
    bar[:, :, :, CENTRE - 1 : CENTRE + 2] = 1
    turn = Spatial(1, max_rotation=45, max_translation=0)
    assert not attacked(OneBlock(CENTRE, CENTRE), turn, bar).claimed.any()
    assert attacked(OneBlock(2, CENTRE), turn, bar).claimed.all()


def test_eps_scales_the_angle() -> None:
    bar = torch.zeros(1, 1, SIDE, SIDE)
    bar[:, :, :, CENTRE - 1 : CENTRE + 2] = 1
    model = OneBlock(2, CENTRE)
    assert not attacked(model, Spatial(0.1, 45, 0), bar).claimed.any()
    assert attacked(model, Spatial(1, 45, 0), bar).claimed.all()


def test_the_grid_costs_one_pass_a_place_and_a_broken_sample_no_more() -> None:
    model = OneBlock(CENTRE, CENTRE)
    unbroken = attacked(model, Spatial(0.01, 30, 0.1), bright_bars(), rotations=3, translations=2)
    assert unbroken.counted_model.forward_passes == 7 * 3 * 2 * 2
    broken = attacked(model, Spatial(1, 30, 0.9), bright_bars(), rotations=3, translations=2)
    assert broken.claimed.all()
    assert broken.counted_model.forward_passes == 7


def test_a_search_at_random_is_repeatable_and_weaker_than_the_grid() -> None:
    threat_model = Spatial(1, max_rotation=0, max_translation=4.2 / SIDE)
    first, second = (
        attacked(OneBlock(CENTRE, CENTRE), threat_model, bright_bars(), search="random", tries=3) for _ in range(2)
    )
    grid = attacked(OneBlock(CENTRE, CENTRE), threat_model, bright_bars())
    assert torch.equal(first.candidates, second.candidates)
    assert int(first.claimed.sum()) <= int(grid.claimed.sum())
    assert first.counted_model.forward_passes <= 3 * 7


def test_another_threat_model_is_skipped_with_a_reason() -> None:
    with pytest.raises(SkipCell, match="threat model 'spatial'"):
        attacked(OneBlock(CENTRE, CENTRE), Linf(0.1), bright_bars())
