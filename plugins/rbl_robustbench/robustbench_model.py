"""A model of RobustBench's zoo: its authors' architecture, normalisation included, with weights from local files."""

import sys
from contextlib import redirect_stdout

import torch
from torch import Tensor, nn

from rbl_robustbench.checkpoint import load_published
from rbl_robustbench.zoo import Data, Threat, ZooEntry, zoo_entry
from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.global_randomness import seeded
from robustbench_lab.plugin_tools.local_files import ExistingFile, listed

MEAN_OF_PROBABILITIES = (
    "Chen2020Adversarial",
    "Diffenderfer2021Winning_Binary_CARD_Deck",
    "Diffenderfer2021Winning_LRR_CARD_Deck",
)
"""Ensembles that return the mean of their members' probabilities."""


class LogProbabilities(nn.Module):
    """Logits of a net that returns probabilities: the same predictions, and the gradient that an attack needs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` to log-probabilities `[N, K]`."""
        probabilities: Tensor = self.net(x)
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def robustbench_model(
    name: str,
    *,
    dataset: Data = "cifar10",
    threat_model: Threat = "Linf",
    weights: ExistingFile | list[ExistingFile] | None = None,
    random_weights: bool = False,
) -> nn.Module:
    """RobustBench's model `name` for images `[N, 3, H, W]` in [0, 1], to logits.

    dataset, threat_model: those of the entry. weights: the file that RobustBench has of it, or its tensors as
    `.safetensors`; for an ensemble a list, a file for each member. random_weights: none, the same random weights every
    time. Nothing is downloaded. Raises UsageError.
    """
    source = f"robustbench:{name}"
    entry = zoo_entry(name, dataset, threat_model, source)
    files = [weights] if isinstance(weights, str) else (weights or [])
    _require_weights(entry, source, given=weights is not None, random_weights=random_weights)
    try:
        with seeded("initial weights"), redirect_stdout(sys.stderr):  # some print what they are
            net = entry.build()
    except Exception as error:  # what the package's architectures make of another version of their libraries
        raise UsageError(f"{source}: RobustBench cannot make it ({describe_error(error)})") from error
    if files:
        load_published(net, entry, files, source)
    return (LogProbabilities(net) if name in MEAN_OF_PROBABILITIES else net).eval()


def _require_weights(entry: ZooEntry, source: str, *, given: bool, random_weights: bool) -> None:
    if given and random_weights:
        raise UsageError(f"{source}: weights and random_weights exclude each other; give one")
    if not given and not random_weights:
        files = "'file.pt'" if len(entry.addresses) == 1 else "['first.pt', ...]"
        where = listed(entry.addresses, 9)
        raise UsageError(f"{source} has no weights: download {where} and add weights={files}, or random_weights=True")
