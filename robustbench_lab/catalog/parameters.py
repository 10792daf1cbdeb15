"""A component's parameters: the keyword parameters of its factory, checked by their annotations.

Outside a factory, values are plain JSON (a list for a tuple, text for a Path or an enum's member), so that they can be
hashed and stored; inside, they are what the annotation says.
"""

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self, get_type_hints

from robustbench_lab.catalog.validation_messages import first_problem
from robustbench_lab.errors import PluginError, UsageError, did_you_mean

KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
POSITIONAL = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)


@dataclass(frozen=True)
class Parameters:
    """What a factory can be given by name."""

    title: str
    """`attack 'pgd'`."""
    known: Mapping[str, inspect.Parameter]
    taken: frozenset[str]
    """Names of the parameters that the core fills."""
    others: inspect.Parameter | None
    """`**params`, where the factory has it: then any further name is passed on."""
    namespace: Mapping[str, Any]
    """Where annotations that are text are looked up."""

    @classmethod
    def of(cls, factory: Callable[..., Any], supplied: int, title: str) -> Self:
        """Those of `factory`, without its first `supplied` positional ones."""
        try:
            every = list(inspect.signature(factory).parameters.values())
        except (TypeError, ValueError) as error:
            raise PluginError(f"{title}: its factory has no readable signature") from error
        taken = {one.name for one in [one for one in every if one.kind in POSITIONAL][:supplied]}
        known = {one.name: one for one in every if one.kind in KEYWORD and one.name not in taken}
        others = next((one for one in every if one.kind is inspect.Parameter.VAR_KEYWORD), None)
        return cls(title, known, frozenset(taken), others, _namespace(factory))

    def complete(self, given: Mapping[str, Any], label: str) -> dict[str, Any]:
        """Check values and add defaults; plain values, sorted by name. Raises UsageError that begins with `label`."""
        made = {name: plain(self._validated(name, value, label)) for name, value in given.items()}
        for name, parameter in self.known.items():
            if name in made:
                continue
            if parameter.default is inspect.Parameter.empty:
                raise UsageError(f"{label}: {self.title} needs {name}=...")
            made[name] = self._plain_default(parameter)
        return dict(sorted(made.items()))

    def native(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Plain values, as `complete` made them, to what the factory is called with."""
        return {name: self._native(name, value) for name, value in values.items()}

    def _native(self, name: str, value: Any) -> Any:
        parameter = self.known.get(name)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            return self._validated(name, value, self.title)
        # A default need not be a value of the annotated type, nor one that text could give.
        unchanged = json.dumps(value) == json.dumps(self._plain_default(parameter))
        return parameter.default if unchanged else self._validated(name, value, self.title)

    def _validated(self, name: str, value: Any, label: str) -> Any:
        """By the annotation, with the strictness of JSON: 2.5 and True are no integers, '5' is no number."""
        from pydantic import TypeAdapter, ValidationError
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

        annotation = self._annotation(name, label)
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise UsageError(f"{label}: {name} must be made of numbers, text, lists and dicts, not {value!r}") from None
        try:
            return TypeAdapter(annotation).validate_json(text, strict=True)
        except ValidationError as error:
            place, problem = first_problem(error)
            inside = "".join(f"[{part!r}]" for part in place)
            raise UsageError(f"{label}: {name}{inside} {problem}") from None
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            raise PluginError(f"{self.title}: no text can give a value for {name}, a {annotation}") from error

    def _annotation(self, name: str, label: str) -> Any:
        parameter = self.known.get(name, None if name in self.taken else self.others)
        if parameter is None:
            raise UsageError(f"{label}: {self.title} has no parameter '{name}'.{did_you_mean(name, self.known)}")
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            return Any
        if not isinstance(annotation, str):
            return annotation
        try:
            holder = SimpleNamespace(__annotations__={"value": annotation})
            return get_type_hints(holder, dict(self.namespace), include_extras=True)["value"]
        except Exception as error:
            text = f"{self.title}: the annotation {annotation!r} of {name} needs names imported at run time"
            raise PluginError(text) from error

    def _plain_default(self, parameter: inspect.Parameter) -> Any:
        from pydantic_core import PydanticSerializationError

        try:
            return plain(parameter.default)
        except PydanticSerializationError as error:
            text = f"{self.title}: the default of {parameter.name} must be made of numbers, text, lists and dicts"
            raise PluginError(text) from error


def plain(value: Any) -> Any:
    """A validated value as JSON would hold it."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


def _namespace(factory: Callable[..., Any]) -> dict[str, Any]:
    while isinstance(factory, functools.partial):
        factory = factory.func
    factory = inspect.unwrap(factory)
    if isinstance(factory, type):
        modules = [sys.modules.get(one.__module__) for one in reversed(factory.__mro__)]
        return {name: value for module in modules if module for name, value in vars(module).items()}
    return dict(getattr(factory, "__globals__", None) or getattr(type(factory).__call__, "__globals__", {}))
