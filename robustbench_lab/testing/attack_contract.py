"""What every attack must keep to, checked on a model whose best attack is known. Shipped for authors of plugins."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Access, ThreatModel
from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.errors import describe_error
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.evaluation.model_mark import run_attack
from robustbench_lab.global_randomness import seeded
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.sample_trees import to_device
from robustbench_lab.tasks.forecasting_objectives import Error
from robustbench_lab.testing.known_forecasters import forecast_setting
from robustbench_lab.testing.known_models import KNOWN, CurvedHalfSpace, HalfSpace, half_space_setting
from robustbench_lab.testing.known_segmenters import PIXEL_NORMS, PixelHalfSpace, pixel_setting
from robustbench_lab.testing.recorded_queries import RecordedQueries, asks_otherwise
from robustbench_lab.testing.simulated_gpu import RefusedByGpuError, simulated_gpu

Run = Callable[[AttackProblem], object]

ONE_IN = 4
"""Of so many samples one is attacked once more, without the others and with a batch for each."""


def check_attack(
    run: Run,
    threat_model_of: Callable[[float], ThreatModel],
    norm: str,
    *,
    access: Access = Access.GRADIENTS,
    sample_deterministic: bool,
    minimum_norm: bool = False,
    joint: bool = False,
    compares_samples: bool = False,
    forecasting: bool = False,
    segmentation: bool = False,
) -> list[str]:
    """What is wrong with an attack, a line each; nothing where it keeps to the contract.

    run: the attack with its parameters bound. threat_model_of: eps to the threat model it is checked in, named `norm`.
    Where no closed form is known for that one, eps is 1, and what it could break is not checked. forecasting: whether
    it is for forecasters only; segmentation: for segmentation only. The others: what its spec declares.
    """
    setting, reach = _known_setting(
        threat_model_of, norm, minimum_norm, forecasting=forecasting, segmentation=segmentation
    )
    try:
        problem, queries = _attacked(run, setting)
    except Exception as error:
        return [f"it stops with {describe_error(error)}"]
    audit = audit_attack(problem, setting, setting.model, passes=1)
    wrong = [f"{finding.message}: {finding.value:.0f}" for finding in audit.problems]
    if not torch.equal(problem.clean, setting.clean[problem.open_positions]):
        wrong.append("it overwrites the clean inputs: work on a copy")
    out_of_reach = torch.from_numpy(~audit.outcomes.robust) & setting.open & (reach > 1.001 * setting.threat_model.eps)
    if bool(out_of_reach.any()):
        wrong.append("it breaks samples that no input of the threat model can break")
    if access is not Access.GRADIENTS and problem.counted_model.backward_passes:
        wrong.append(f"it declares access to {access} only, and asks for gradients")
    if bool((problem.unmoved & setting.open).any()):
        wrong.append("it tries nothing but the clean input on some samples: hand candidates to problem.submit")
    if any(finding.code == "loss-never-rises" for finding in merge_findings(problem.trace.findings())):
        wrong.append("the loss is nowhere higher than where it starts: does it step along the gradient, or against it?")
    if sample_deterministic:
        if not torch.equal(queries, _attacked(run, setting, "another global seed")[1]):
            text = (
                "draw random numbers from the problem (problem.uniform, problem.normal), and keep nothing between calls"
            )
            wrong.append(f"two runs differ: {text}")
        else:
            wrong += _check_each_on_its_own(run, setting, problem, queries, joint=joint, compares=compares_samples)
    return wrong


def check_attack_on_gpu(
    run: Run,
    threat_model_of: Callable[[float], ThreatModel],
    norm: str,
    *,
    minimum_norm: bool = False,
    forecasting: bool = False,
    segmentation: bool = False,
) -> list[str]:
    """Whether an attack mixes tensors of the CPU with those of a GPU, on a simulated one; as for `check_attack`."""
    setting, _ = _known_setting(threat_model_of, norm, minimum_norm, forecasting=forecasting, segmentation=segmentation)
    try:
        with simulated_gpu() as gpu:
            problem = AttackProblem(_moved(setting, gpu))
            with seeded("check"):
                run(problem)
    except RefusedByGpuError as error:
        advice = "make tensors on problem.clean.device, and NumPy's of tensor.cpu()"
        return [f"on a GPU it stops with {describe_error(error)}: {advice}"]
    except Exception as error:  # what a simulation cannot do is not the attack's fault, which has worked on the CPU
        warnings.warn(
            f"in {norm}: not tried on a simulated GPU, which cannot do this: {describe_error(error)}", stacklevel=2
        )
    return []


def _known_setting(
    threat_model_of: Callable[[float], ThreatModel],
    norm: str,
    minimum_norm: bool,
    *,
    forecasting: bool,
    segmentation: bool,
) -> tuple[ProblemSetting, Tensor]:
    """A problem whose samples are half within reach, and how far each is, `[N]`; 1 where that is not known."""
    if forecasting:
        setting = forecast_setting(threat_model_of(1.0), Error(), samples=12, batch_size=5)
        return setting, torch.ones(len(setting.clean))
    if segmentation:
        clean = pixel_setting(threat_model_of(1.0)).clean
        reach = PixelHalfSpace().distances(clean, norm).amax(1) if norm in PIXEL_NORMS else torch.ones(len(clean))
        return pixel_setting(threat_model_of(float(reach.median()))), reach
    clean = half_space_setting(threat_model_of(1.0)).clean
    reach = HalfSpace().distance(clean, norm) if norm in KNOWN else torch.ones(len(clean))
    setting = half_space_setting(threat_model_of(float(reach.median())), minimum_norm=minimum_norm)
    # The same distances, and gradients of different size: means over a batch show.
    return replace(setting, model=CurvedHalfSpace().eval()), reach


def _moved(setting: ProblemSetting, device: torch.device) -> ProblemSetting:
    """The same problem on another device, in one batch: how the core divides it has nothing to do with devices."""
    parts = ("clean", "goal", "open", "targets", "attackable", "right", "clean_measure")
    moved = {part: to_device(getattr(setting, part), device) for part in parts}
    names = [str(index) for index in range(len(setting.clean))]
    rng = SampleRng.for_samples(0, "check", names, device)
    return replace(setting, model=copy.deepcopy(setting.model).to(device), rng=rng, batch_size=len(names), **moved)


def _check_each_on_its_own(
    run: Run, setting: ProblemSetting, problem: AttackProblem, queries: Tensor, *, joint: bool, compares: bool
) -> list[str]:
    """problem, queries: of the attack on all samples."""
    # Few of the samples: one at a time they take as long as all the others together. Not the first ones, whose random
    # numbers are the same with fewer samples behind them. Where each sample matters to all, all.
    few = setting.open if joint else setting.open & (setting.open.cumsum(0) % ONE_IN == ONE_IN - 1)
    alone, asked = _attacked(run, replace(setting, batch_size=1, open=few))
    if not torch.equal(problem.claimed[few], alone.claimed[few]):
        return ["its outcomes depend on the batch size, or on the other samples: treat every sample on its own"]
    # A clean input tells something of the model only, such as the number of its classes.
    harmless = torch.cat([queries, setting.clean.flatten(1)])
    if not (joint or compares) and asks_otherwise(asked, harmless):
        text = "no mean, norm, sort or random draw may run over the batch dimension, or compares_samples=True says that"
        return [f"what it tries on a sample depends on the other samples: {text} it is meant"]
    return []


def _attacked(run: Run, setting: ProblemSetting, global_seed: str = "check") -> tuple[AttackProblem, Tensor]:
    """The problem afterwards, and every input that the model was shown, `[Q, D]`."""
    model = RecordedQueries(setting.model, setting.clean[0].numel())
    problem = AttackProblem(replace(setting, model=model))
    with seeded(global_seed):
        run_attack(run, problem, [setting.model])
    return problem, model.inputs
