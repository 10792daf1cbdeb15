"""Stage 1: what to evaluate and how, from flags, a TOML file, or both; validated by one model.

Relative paths, also those inside components of a TOML file (`onnx(path='net.onnx')`), are relative to the current
folder, as on the command line.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from robustbench_lab.catalog.component_syntax import Component, parse_component, parse_number
from robustbench_lab.catalog.validation_messages import first_problem
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.planning.adversaries import ADAPTIVE, canonical

DEVICE = re.compile(r"auto|cpu|cuda|cuda:\d+|mps")
PLURALS = {
    "attack": "attacks",
    "model": "models",
    "dataset": "datasets",
    "defense": "defenses",
    "objective": "objectives",
    "threat_model": "threat_models",
    "norm": "norms",
    "task": "tasks",
    "seed": "seeds",
    "device": "devices",
    "plugin": "plugins",
    "db": "database",
}
"""Flags' names to the fields they fill; a TOML file may use either."""
FLAGS = {field: flag for flag, field in PLURALS.items()}


def _refuse(reason: str) -> PydanticCustomError:
    return PydanticCustomError("rbl", "{reason}", {"reason": reason})


def _as_list(value: Any) -> Any:
    """One value stands for a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _as_devices(value: Any) -> Any:
    """As `_as_list`; text may hold several, separated by commas."""
    split = [one.split(",") if isinstance(one, str) else [one] for one in _as_list(value)]
    return [one.strip(" ") if isinstance(one, str) else one for part in split for one in part]


def _as_component(value: Any) -> Component:
    if isinstance(value, Component):
        return value
    if not isinstance(value, str):
        raise _refuse(f"must be a component such as 'pgd(steps=50)', not {value!r}")
    try:
        return parse_component(value)
    except UsageError as error:
        raise _refuse(str(error)) from None


def _as_eps(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return parse_number(value)
        except UsageError as error:
            raise _refuse(str(error)) from None
    return float(value) if isinstance(value, float) else value


def _as_seed(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else value


def _device(value: str) -> str:
    if not (isinstance(value, str) and DEVICE.fullmatch(value)):
        raise _refuse(f"must be auto, cpu, cuda, cuda:N or mps, not {value!r}")
    return value


def _adversary(value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse(f"must be a text, not {value!r}")
    try:
        return canonical(value)
    except UsageError as error:
        raise _refuse(str(error)) from None


ComponentText = Annotated[Component, PlainValidator(_as_component), PlainSerializer(lambda one: one.label, str)]
Listed = BeforeValidator(_as_list)
Components = Annotated[list[ComponentText], Listed]
Names = Annotated[list[str], Listed]
Eps = Annotated[float, BeforeValidator(_as_eps), Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, BeforeValidator(_as_seed), Field(ge=0)]
Device = Annotated[str, PlainValidator(_device)]
Adversary = Annotated[str, PlainValidator(_adversary)]
Count = Annotated[int, Field(gt=0)]
Duration = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
AUTO_EXECUTOR = "auto"
"""`local` where work units are better off in processes of their own, otherwise `inline` (`executor_choice.py`)."""


class ExperimentSpec(BaseModel):
    """What a run evaluates. A list left empty means the usual choice (the plan says which)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    attacks: Components = []
    models: Components = []
    datasets: Components = []
    defenses: Components = []
    objectives: Components = []
    threat_models: Components = []
    norms: Names = []
    eps: Annotated[list[Eps], Listed] = []
    """Budgets in the data's own units."""
    tasks: Names = []
    samples: Count | None = None
    """The first so many samples of each dataset; None: all."""
    seeds: Annotated[list[Seed], Listed, Field(min_length=1)] = [0]
    devices: Annotated[list[Device], BeforeValidator(_as_devices), Field(min_length=1)] = ["auto"]
    slots_per_gpu: Count = 1
    """Work units that run side by side on a GPU."""
    workers: Count | None = None
    """Work units that run side by side on the CPU; None: as many as the run is worth."""
    threads_per_worker: Count | None = None
    """CPU threads of a work unit; None: all, shared out evenly."""
    adversary: Annotated[list[Adversary], Listed, Field(min_length=1)] = [ADAPTIVE]
    executor: ComponentText = Component(AUTO_EXECUTOR)
    """AUTO_EXECUTOR, or the name of one."""
    address: str | None = None
    """Of a cluster, for an executor that uses one: `ray`."""
    unit_timeout: Duration | None = None
    """Seconds after which a work unit counts as hung; None: never."""
    order: Literal["cost", "coverage"] = "cost"
    """Long work first, so that slots finish together, or cheap cells first, so that a table fills early."""
    max_hours: Duration | None = None
    """After which no more work begins."""
    max_cells: Count | None = None
    """Cells that this run evaluates at most."""
    batch_size: Count | None = None
    precision: Literal["float32", "mixed"] = "float32"
    """Of the search; the verdict is always in float32."""
    database: str = "rbl.db"
    """A file or an SQLAlchemy URL."""
    artifacts: str | None = None
    """Folder for adversarial inputs."""
    save_adversarials: bool = False
    fresh: bool = False
    retry_failed: bool = False
    plugins: Names = []
    """Single-file plugins."""

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file. Raises UsageError naming the file, the key and what is expected."""
        return cls._checked(_read_toml(Path(path)), str(path))

    @classmethod
    def from_flags(cls, **flags: Any) -> Self:
        """From flags or Python arguments; None and an empty list mean not given. Raises UsageError."""
        given = {name: value for name, value in flags.items() if value is not None and value not in ([], ())}
        return cls._checked(given, None)

    @classmethod
    def from_file_and_flags(cls, file: str | Path | None, flags: Mapping[str, Any]) -> Self:
        """A file, where one is named, with every given flag in place of the file's value."""
        given = cls.from_flags(**flags)
        if file is None:
            return given
        replaced = {name: getattr(given, name) for name in given.model_fields_set}
        return cls.from_toml(file).model_copy(update=replaced)

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values: `ExperimentSpec.from_flags(**spec.to_json()) == spec`."""
        return self.model_dump(mode="json")

    @classmethod
    def _checked(cls, values: Mapping[str, Any], file: str | None) -> Self:
        try:
            return cls.model_validate(_by_field(values, set(cls.model_fields), file))
        except ValidationError as error:
            place, message = first_problem(error)
            raise UsageError(f"{_place(place, file)}: {message}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}. Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no valid TOML: {' '.join(str(error).split())}") from error


def _by_field(values: Mapping[str, Any], fields: set[str], file: str | None) -> dict[str, Any]:
    """Keys in any of their spellings (`threat-model`, `threat_models`) to field names."""
    made: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        name = PLURALS.get(name, name)
        where = "" if file is None else f"{file}: "
        if name not in fields:
            raise UsageError(f"{where}there is no setting '{key}'.{did_you_mean(name, fields)}")
        if name in made:
            raise UsageError(f"{where}'{spelled[name]}' and '{key}' are the same setting: keep one")
        made[name], spelled[name] = value, key
    return made


def _place(place: tuple[int | str, ...], file: str | None) -> str:
    field = str(place[0])
    if file is None:
        return f"--{FLAGS.get(field, field).replace('_', '-')}"
    index = f"[{place[1]}]" if len(place) > 1 and isinstance(place[1], int) else ""
    return f"{file}: {field}{index}"
