"""What RobustBench states about its models, read from the tables in the installed package's own description."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata

from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.contracts import Published, PublishedSubject

DATA = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet": "imagenet"}
BUDGET = re.compile(r"#### (Linf|L2), eps=([\d./]+)\s*$")
ADDRESS = re.compile(r"\]\(([^)\s]+)\)")
FOLDERS = {
    "cifar10": re.compile(r"cifar[-_]?10(?!0|[-_]?c\b)"),
    "cifar100": re.compile(r"cifar[-_]?100(?![-_]?c\b)"),
    "imagenet": re.compile(r"imagenet(?![-_]?[a-z0-9]{0,3}c\b)"),
}
"""How the path of a user's own copy of the test images names them."""

Key = tuple[str, str, str]
"""Dataset, norm and model."""


def published(subject: PublishedSubject) -> Published | None:
    """The entry of RobustBench's tables for this model on these data within this budget, if there is one."""
    model = parse_component(subject.model)
    data = str(model.params.get("dataset", "cifar10"))
    threat = str(model.params.get("threat_model", "Linf"))
    if "random_weights" in model.params or subject.objective != "untargeted" or threat.lower() != subject.norm:
        return None
    if not _is_test_set(subject.dataset, data):
        return None
    eps, figures = _tables().get((data, threat, model.name.partition(":")[2]), (None, None))
    return figures if eps is not None and abs(eps - subject.eps) <= 1e-6 * eps else None


def _is_test_set(label: str, data: str) -> bool:
    """Whether a dataset is called as the test images that RobustBench uses."""
    dataset = parse_component(label)
    path = str(dataset.params.get("path", "")).lower()
    if dataset.params.get("split", "test") != "test" or "train" in path:
        return False
    return dataset.name.lower() == f"torchvision:{data}" or FOLDERS[data].search(path) is not None


@cache
def _tables() -> Mapping[Key, tuple[float, Published]]:
    """Dataset, threat model and name to budget and figures; empty where robustbench is not installed."""
    try:
        described = metadata("robustbench")
    except PackageNotFoundError:
        return {}
    return dict(_entries(str(described.get("Description") or described.get_payload())))  # type: ignore[attr-defined]


def _entries(text: str) -> Iterator[tuple[Key, tuple[float, Published]]]:
    """Rows `| # | model | paper | clean accuracy | robust accuracy |...`, below headings that say what they are of."""
    data, budget = None, None
    for line in text.splitlines():
        if line.startswith("### "):
            data, budget = DATA.get(line.removeprefix("### ").strip()), None
        elif line.startswith("#### "):
            budget = BUDGET.match(line)
        elif data and budget and line.startswith("|"):
            cells = [re.sub(r"<[^>]*>|\*\*", "", cell).strip() for cell in line.strip("|").split("|")]
            shares = [re.fullmatch(r"([\d.]+)%", cell) for cell in cells[3:5]]
            if len(shares) == 2 and shares[0] and shares[1]:
                found = ADDRESS.search(cells[2])
                clean, robust = (round(float(one[1]) / 100, 6) for one in shares if one)
                figures = Published(
                    {"clean_accuracy": clean, "robust_accuracy": robust},
                    f"RobustBench, {found[1]}" if found else "RobustBench",
                )
                yield (data, budget[1], cells[1]), (_number(budget[2]), figures)


def _number(text: str) -> float:
    """`8/255` or `0.5`."""
    upper, _, lower = text.partition("/")
    return float(upper) / float(lower or 1)
