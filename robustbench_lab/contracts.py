"""What plugins hand to the core: cheap specs for the catalog, and the protocols of what their factories return.

Nothing here imports torch: listing plugins must stay cheap. A spec's `factory` is a string
`"package.module:object"` (imported on use) or, in a single-file plugin, the object itself.

Parameters of a component are the keyword parameters of its factory: their annotations and defaults are
the only declaration, and what a user writes is validated against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from robustbench_lab.records import Finding, Outcomes
    from robustbench_lab.sample_rng import SampleRng

Factory = str | Callable[..., Any]
Measured = Mapping[str, "NDArray[Any]"]
"""Numbers of each sample, by name."""


class Access(StrEnum):
    """What an attack needs to see of a model."""

    GRADIENTS = "gradients"
    SCORES = "scores"
    DECISIONS = "decisions"


class GradientKind(StrEnum):
    """What gradient a defended model gives."""

    EXACT = "exact"
    BPDA = "bpda"
    """A backward-pass differentiable approximation (Athalye et al. 2018) stands in for a step without gradient."""
    NONE = "none"


@dataclass(frozen=True)
class Bounds:
    """The range of valid input values, in the data's own units (images: 0 to 1)."""

    low: float = 0.0
    high: float = 1.0

    @property
    def width(self) -> float:
        return self.high - self.low


# ---------------------------------------------------------------- specs: what a hook returns


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """What every component of the catalog has in common."""

    name: str
    """Unique within its kind. A name that ends in `:` is a family: `timm:` stands for `timm:resnet50` and so on,
    and its factory gets the rest of the name as its first argument."""
    factory: Factory
    summary: str = ""
    tasks: tuple[str, ...] = ("classification",)
    """Tasks it is for; empty: any task, also one that a plugin brings."""
    version: str | None = None
    """Part of every cell id. Raise it when the component's numbers change. Default: the plugin's version."""
    requires: tuple[str, ...] = ()
    """Importable modules it needs. Missing ones leave it listed, with what to install."""
    extra: str | None = None
    """The extra of `robustbench-lab` that brings `requires`."""
    install: str | None = None
    """The command that brings `requires`, where an extra cannot."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec(ComponentSpec):
    """`factory(**params) -> torch.nn.Module`, mapping inputs in the data's bounds to predictions.

    Classification: images `[N, C, H, W]` to logits `[N, K]`. Normalisation belongs inside.
    """

    files: tuple[str, ...] = ()
    """Package files that define it (`"package:path/in/package"`); their contents enter the cell id."""
    fits: tuple[str, ...] = ()
    """Families of datasets it was made for; empty: unknown, tried on any dataset of its task."""
    names_folders: bool = False
    """Whether the rest of a family's name can be a folder: then the files in it enter the cell id, not its name."""
    reference_dataset: str | None = None
    """Set on bundled reference models: the dataset they are evaluated on when the user names none."""
    on_request: bool = False
    """Of a bundled reference model: a run that names neither it, nor a task, nor a dataset, leaves it out."""
    published: Factory | None = None
    """`function(subject: PublishedSubject) -> Published | None`: what is stated elsewhere, which leaderboards show
    beside what was measured."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(ComponentSpec):
    """`factory(**params) -> Dataset`."""

    family: str | None = None
    """What `ModelSpec.fits` refers to."""
    default_norm: str = "linf"
    default_eps: float = 8 / 255


@dataclass(frozen=True, kw_only=True)
class AttackSpec(ComponentSpec):
    """`factory(problem: AttackProblem, **params) -> None`: one function, which is the algorithm and nothing else."""

    access: Access = Access.GRADIENTS
    threat_models: tuple[str, ...] = ("linf",)
    baseline: bool = False
    """A sanity check (random noise): it counts in the worst case, but alone proves nothing."""
    minimum_norm: bool = False
    """It looks for the nearest adversarial input, whatever the budget: its distances give the robust accuracy at every
    budget. Fixed-budget attacks stop at the first input within the budget."""
    joint: bool = False
    """It looks at all samples of a cell together, such as for one perturbation of all: its cells are never cut."""
    compares_samples: bool = False
    """What it spends on a sample depends on the other samples of its work unit: its cells are always cut alike, however
    many slots there are."""
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Parameters with which `rbl plugins check` tries it, where its defaults take long."""
    sample_deterministic: bool = True
    """False where a wrapped library draws its own random numbers, so outcomes may depend on the batch."""
    estimate_passes: Callable[[Mapping[str, Any]], tuple[int, int]] | None = None
    """Parameters to (forward, backward) passes a sample takes at most; for `rbl plan` and progress."""


@dataclass(frozen=True, kw_only=True)
class DefenseSpec(ComponentSpec):
    """`factory(model: torch.nn.Module, **params) -> torch.nn.Module`."""

    gradient: GradientKind = GradientKind.EXACT
    randomized: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskSpec(ComponentSpec):
    """`factory() -> Task`."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(ComponentSpec):
    """`factory(**params) -> Objective`."""


@dataclass(frozen=True, kw_only=True)
class ThreatModelSpec(ComponentSpec):
    """`factory(eps: float, **params) -> ThreatModel`."""

    example: Mapping[str, Any] = field(default_factory=dict)
    """Parameters beside `eps` with which `rbl plugins check` tries attacks in it, where it needs any."""
    shared: bool = False
    """One change counts for all samples of a cell: cells are never cut, what it does to each sample counts also where
    that is less than nothing, and of several attacks the one that does most to all of them is the worst case."""


@dataclass(frozen=True, kw_only=True)
class MetricSpec(ComponentSpec):
    """`factory(outcomes: Outcomes) -> Estimate`, computed for every finished cell and leaderboard row of its tasks."""

    higher_is_better: bool = True
    fraction: bool = True
    """Whether it is a share of 1, shown in percent."""
    main: bool = False
    """What the tables of its task are sorted by; one metric of a task."""
    clean: str | None = None
    """Of a metric under attack: the metric that says the same of clean inputs, where security curves begin."""
    brief: bool = True
    """Whether tables in a terminal and in LaTeX have it as well; every other format has all metrics."""
    objectives: tuple[str, ...] = ()
    """Names of the objectives whose own quantity it is: such tables have it whether it is brief or not, and first."""


@dataclass(frozen=True, kw_only=True)
class ExecutorSpec(ComponentSpec):
    """`factory(**params) -> Executor`: where work units are evaluated."""


@dataclass(frozen=True, kw_only=True)
class ReportSpec(ComponentSpec):
    """`factory(leaderboard: Leaderboard) -> str`: one text format of a leaderboard.

    rows_only: whether it needs neither `leaderboard.records` nor the outcomes of rows. It is then given a leaderboard
    without them, which a large database hands out many times faster.
    """

    rows_only: bool = False


@dataclass(frozen=True, kw_only=True)
class CommandSpec(ComponentSpec):
    """A Typer command function: `rbl <name>`."""

    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedSubject:
    """What a published figure must be about to be shown in a row: an undefended model in a leaderboard's table."""

    model: str
    """Labels, as a user writes components: `parse_component` gives name and parameters."""
    dataset: str
    objective: str
    norm: str
    eps: float


@dataclass(frozen=True)
class Published:
    """What is stated about a model elsewhere."""

    metrics: Mapping[str, float]
    """By the names of the task's metrics; shares of 1 as such."""
    source: str
    """Where: best an address."""


# ---------------------------------------------------------------- protocols: what a factory returns


def lacking(made: object, protocol: type) -> str | None:
    """What an object lacks of one of these protocols, in a few words; None: nothing."""
    missing = [name for name in vars(protocol) if not name.startswith("_") and not hasattr(made, name)]
    return f"it lacks {', '.join(missing)}: see robustbench_lab.contracts.{protocol.__name__}" if missing else None


@dataclass(frozen=True)
class Samples:
    """Some samples of a dataset, in the order asked for."""

    inputs: Tensor
    """`[N, ...]` float32 within the dataset's bounds."""
    targets: Any
    """What the task calls a target for each: a tensor `[N, ...]`, a list of N, or a dict of these."""
    attackable: Tensor | None = None
    """Bool, `[N, ...]` or of a shape that broadcasts to the inputs': where an adversary may change values at all, such
    as an image without its padding. None: everywhere."""


class Dataset(Protocol):
    """Samples that stay the same: `revision` changes when any of them does."""

    @property
    def revision(self) -> str: ...
    @property
    def sample_ids(self) -> Sequence[str]: ...
    @property
    def bounds(self) -> Bounds: ...
    @property
    def classes(self) -> int | None:
        """Number of classes, where the task has them."""
        ...

    def load(self, indices: Sequence[int]) -> Samples: ...


@runtime_checkable
class FollowsData(Protocol):
    """A model whose outputs depend on what the data ask for, such as a forecaster that knows any horizon."""

    def follow(self, samples: Samples) -> None:
        """Called with one sample of each dataset before the model is used on it.

        What is taken from it must follow from the dataset alone, which is part of a cell's id.
        """
        ...


class Region(Protocol):
    """The inputs an adversary may choose around each of N clean inputs."""

    @property
    def clean(self) -> Tensor: ...

    def project(self, x: Tensor) -> Tensor:
        """`[N, ...]` to the region's nearest points `[N, ...]`; may work in place on `x`."""
        ...

    def random_start(self, rng: SampleRng, draw: str) -> Tensor:
        """A random point of the region for each sample, `[N, ...]`."""
        ...

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The direction of size 1 in the region's own norm along which the loss rises most, `[N, ...]`.

        May overwrite `gradient`: it is as large as all samples, and this runs at every step of an attack.
        """
        ...

    def distance(self, x: Tensor) -> Tensor:
        """How far each `x` lies from its clean input, in the region's norm, `[N]`."""
        ...

    def contains(self, x: Tensor) -> Tensor:
        """Whether each `x` is allowed, up to float32 rounding, bool `[N]`."""
        ...

    def select(self, index: Tensor) -> Region:
        """The region around some of the samples."""
        ...


class ThreatModel(Protocol):
    """What the adversary may do."""

    @property
    def norm(self) -> str | None: ...
    @property
    def eps(self) -> float: ...

    def check(self, bounds: Bounds) -> None:
        """Raise UsageError where the budget makes no sense for data in these bounds."""
        ...

    def around(self, clean: Tensor, bounds: Bounds, targets: Any = None) -> Region:
        """The region around clean inputs `[N, ...]`. targets: the samples' own, for what is bound to objects."""
        ...


class Objective(Protocol):
    """What the adversary maximises. `goal` is whatever `prepare` returned, cut to the samples at hand."""

    @property
    def stop_on_success(self) -> bool:
        """True: a sample is done as soon as it is broken. False: more damage is worse, the steps are run out."""
        ...

    @property
    def eot(self) -> int | None:
        """Forward passes that every query takes the mean of; None: 1, and 20 on a randomized model."""
        ...

    def prepare(self, clean_prediction: Any, targets: Any) -> Any:
        """Targets and clean predictions to the goal of each sample (indexable by sample like targets)."""
        ...

    def loss(self, name: str | None, prediction: Any, goal: Any) -> Tensor:
        """Per-sample loss `[N]` that the adversary maximises; `name` picks one of several, None the usual one."""
        ...

    def succeeded(self, prediction: Any, goal: Any) -> Tensor:
        """Whether the adversary has reached its goal, bool `[N]`."""
        ...

    def damage(self, prediction: Any, goal: Any) -> Tensor:
        """Per-sample measure `[N]` by which the best iterate is chosen; larger is worse for the model."""
        ...


class JudgesAtOnce(Objective, Protocol):
    """An objective whose success and damage need the same work, which is then done once.

    Where a subclass says anew what success or damage is, and has no `judged` of its own, these two count.
    """

    def judged(self, prediction: Any, goal: Any) -> tuple[Tensor, Tensor]:
        """What `succeeded` and `damage` return, `[N]` each."""
        ...


def judges_at_once(objective: Objective) -> TypeGuard[JudgesAtOnce]:
    """Whether an objective has a `judged` that knows of its `succeeded` and its `damage`."""
    classes = type(objective).__mro__

    def defined(name: str) -> int:
        return next((place for place, one in enumerate(classes) if name in vars(one)), len(classes))

    return defined("judged") < len(classes) and defined("judged") <= min(defined("succeeded"), defined("damage"))


class Task(Protocol):
    """All the core knows of a task."""

    @property
    def name(self) -> str: ...
    @property
    def default_objective(self) -> str: ...

    @property
    def attacks_all(self) -> bool:
        """Whether samples that are wrong from the start are attacked as well, since they can become worse."""
        ...

    def kept(self, prediction: Any) -> Any:
        """What `examine` and `numbers` need of a prediction, as a tensor, a list, or a dict of these, by sample."""
        ...

    def numbers(self, kept: Any) -> Tensor:
        """Numbers `[N, ...]` in which two predictions of the same input differ by rounding only."""
        ...

    def intact(self, prediction: Any, targets: Any) -> Tensor:
        """Whether each prediction counts as right before any attack, bool `[N]`."""
        ...

    def examine(self, kept: Any, targets: Any, classes: int | None) -> list[Finding]:
        """What is wrong with clean predictions, before any attack runs."""
        ...

    def measure(self, prediction: Any, targets: Any) -> Mapping[str, Tensor]:
        """What is to be stored of a prediction beyond right or wrong, `[N, ...]` each; empty where that is all."""
        ...

    def columns(self, clean: Measured, attacked: Measured) -> Measured:
        """What `measure` gave of clean and of attacked predictions to the columns of `Outcomes`, `[N, ...]` each.

        Both hold the objective's `damage` `[N]` as well; where an attack harms less than nothing, the clean one stands.
        Units of a cell are joined with zeros where their columns differ in the further sizes.
        """
        ...

    def worst_case(self, outcomes: Sequence[Outcomes]) -> Outcomes:
        """Several attacks on the same samples to the worst outcome for each sample."""
        ...

    def replicates(self, outcomes: Outcomes) -> NDArray[np.float64] | None:
        """The main metric on bootstrap replicates `[R]` of the samples, the same ones whenever there are N of them.

        Rows are ranked by the main metric and compared by these. None: it is the share of robust samples.
        """
        ...


class Attack(Protocol):
    """An attack is a function of the problem and its own keyword parameters."""

    def __call__(self, problem: Any, **params: Any) -> None: ...


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its 95% confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Listing:
    """The same fact about a component in every listing."""

    kind: str
    name: str
    summary: str
    tasks: tuple[str, ...]
    plugin: str
    version: str
    problem: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
