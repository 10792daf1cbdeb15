"""How a component is written: `name` or `name(key=value, ...)`.

Values are Python literals (numbers, quoted text, True, False, None, lists, tuples, dicts whose keys are text or whole
numbers) or fractions such as `8/255`. Text is parsed, never evaluated.
"""

import ast
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robustbench_lab.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]*")
CLOSING = {"(": ")", "[": "]", "{": "}"}
SHOWN = 40
"""Characters of a user's text that an error message repeats."""


@dataclass(frozen=True)
class Component:
    """A component as a user names it."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Canonical text, parameters sorted by name: `parse_component(one.label) == one`."""
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in sorted(self.params.items()))})"


class _UnreadableError(Exception):
    """What is wrong with a text, without the text itself."""


def parse_component(text: str) -> Component:
    """`pgd(steps=50, eps=8/255)` to its name and parameters.

    Raises UsageError, one line that repeats the text and points at the place.
    """
    text = text.strip()
    try:
        return _component(text)
    except _UnreadableError as problem:
        raise UsageError(f"{_one_line(text) or repr(text)}: {problem}") from None


def parse_number(text: str) -> float:
    """`0.03`, `1e-2` or `8/255` to a float. Raises UsageError for anything else, infinity and NaN included."""
    try:
        return float(_number(_parsed(text.strip())))
    except (_UnreadableError, OverflowError, ZeroDivisionError):
        raise UsageError(f"'{_one_line(text)}' is not a number: write it as 0.03, 1e-2 or 8/255") from None


def _component(text: str) -> Component:
    found = NAME.match(text)
    if found is None:
        raise _UnreadableError("there is no name: write name or name(key=value, ...)")
    name, rest = found.group(), text[found.end() :].lstrip()
    if not rest:
        return Component(name, {})
    if not rest.startswith("("):
        raise _UnreadableError(f"'{_one_line(rest)}' cannot follow the name: write {name}(key=value, ...)")
    # A placeholder stands for the name, which need not be a Python identifier.
    source = "_" + rest
    call = _parsed(source)
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise _UnreadableError("nothing can follow the closing ')'")
    if call.args:
        shown = _segment(call.args[0], source)
        raise _UnreadableError(f"'{shown}' has no name: write key=value, such as steps={shown}")
    params: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise _UnreadableError("'**' is not allowed: write key=value")
        if keyword.arg in params:
            raise _UnreadableError(f"'{keyword.arg}' is given twice")
        params[keyword.arg] = _value(keyword.value, source)
    return Component(name, params)


def _parsed(source: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an unknown escape such as '\d' is a mistake, not a matter for stderr
            return ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise _UnreadableError(_syntax_problem(error, source)) from None
    except (ValueError, RecursionError, MemoryError):
        raise _UnreadableError("this is too long or too deeply nested to be read") from None


def _syntax_problem(error: SyntaxError, source: str) -> str:
    message = error.msg or "cannot be read"
    if opened := re.match(r"'([(\[{])' was never closed", message):
        return f"missing '{CLOSING[opened.group(1)]}'"
    if "unterminated" in message:
        return "missing closing quote"
    lines = source.splitlines() or [""]
    line = lines[min(error.lineno or 1, len(lines)) - 1]
    near = _one_line(line[max((error.offset or 1) - 1, 0) :]) or "the end"
    return f"{message}, at '{near}': write name(key=value, ...), with text in quotes"


def _value(node: ast.expr, source: str) -> Any:
    match node:
        case ast.Constant(value=None | bool() | str() as value):
            return value
        case ast.List(elts=items):
            return [_value(item, source) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item, source) for item in items)
        case ast.Dict(keys=keys, values=values):
            return _dict(keys, values, source)
    try:
        return _number(node)
    except _UnreadableError:
        raise _UnreadableError(_no_value(node, source)) from None
    except ZeroDivisionError:
        raise _UnreadableError(f"'{_segment(node, source)}' divides by zero") from None
    except OverflowError:
        raise _UnreadableError(f"'{_segment(node, source)}' is not a finite number") from None


def _dict(keys: list[ast.expr | None], values: list[ast.expr], source: str) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key_node, value_node in zip(keys, values, strict=True):
        key = None if key_node is None else _value(key_node, source)
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise _UnreadableError("the keys of a dict must be text or whole numbers")
        if key in made:
            raise _UnreadableError(f"the key {key!r} is given twice")
        made[key] = _value(value_node, source)
    return made


def _number(node: ast.expr) -> int | float:
    """A number, a fraction of two, or minus one of these."""
    match node:
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _finite(_signed(left) / _signed(right))
        case ast.UnaryOp(op=ast.USub(), operand=ast.BinOp() as fraction):
            return -_number(fraction)
    return _signed(node)


def _signed(node: ast.expr) -> int | float:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
            return -_signed(operand)
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _finite(number)
    raise _UnreadableError("no number")


def _finite(number: int | float) -> int | float:
    if isinstance(number, float) and not math.isfinite(number):
        raise OverflowError
    return number


def _no_value(node: ast.expr, source: str) -> str:
    shown = _segment(node, source)
    if any(isinstance(part, ast.Call) for part in ast.walk(node)):
        return f"'{shown}' calls a function, which is not allowed: write the value itself"
    if isinstance(node, ast.Name) and node.id.capitalize() in ("True", "False", "None"):
        return f"'{shown}' is written {node.id.capitalize()}"
    return f"'{shown}' is no value: write a number, 8/255, True, None, a list, or text in quotes"


def _segment(node: ast.expr, source: str) -> str:
    return _one_line(ast.get_source_segment(source, node) or "")


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 2 * SHOWN else f"{flat[: SHOWN - 3]}...{flat[-SHOWN:]}"
