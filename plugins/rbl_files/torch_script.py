"""A user's own `nn.Module`, made by a function or class of their own Python script."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator
from torch import nn

from robustbench_lab.errors import UsageError, describe_error, did_you_mean
from robustbench_lab.global_randomness import seeded
from robustbench_lab.plugin_tools.local_files import ExistingFile, existing_file
from robustbench_lab.plugin_tools.normalization import normalized
from robustbench_lab.plugin_tools.weights import MatchBy, apply_weights


def _checked_path(path: str) -> str:
    _split(path)
    return path


ScriptObject = Annotated[str, AfterValidator(_checked_path)]
"""`script.py:object`, looked for when the run is planned."""


def torch_model(
    path: ScriptObject,
    weights: ExistingFile | None = None,
    args: dict[str, Any] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    weights_by: MatchBy = "name",
) -> nn.Module:
    """The model that `object(**args)` of the script makes, for images in [0, 1]. The script is run: it is your code.

    path: `script.py:object`, a function or class (or an `nn.Module` itself). weights: `.safetensors`, or a state_dict
    written by `torch.save`; without it the script loads its own. mean, std: normalisation by channel, where the model
    does not hold its own. weights_by: see `apply_weights`. Raises UsageError.
    """
    script, name = _split(path)
    with _importable(script.parent), seeded("initial weights"):
        target = _find(_run(script), name, script)
        model = target if isinstance(target, nn.Module) and args is None else _call(target, args or {}, script, name)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"torch: {name} in '{script}' made something of type {type(model).__name__}, not a torch.nn.Module"
        )
    if weights is not None:
        apply_weights(model, weights, f"{name} of '{script}'", weights_by)
    return normalized(model, mean, std).eval()


def _split(path: str) -> tuple[Path, str]:
    file, colon, name = path.rpartition(":")
    if not colon or not name.isidentifier():
        hint = (
            "weights go in weights=" if Path(path).suffix in {".pt", ".pth", ".safetensors"} else "name what makes it"
        )
        raise UsageError(f"torch: path is '{path}', not of the form 'script.py:make_model'; {hint}")
    return existing_file(file, "torch"), name


def _run(script: Path) -> ModuleType:
    """The script as a module of its own name, so that it shadows no other."""
    digest = hashlib.sha256(str(script.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"rbl_script_{script.stem}_{digest}", script)
    if spec is None or spec.loader is None:
        raise UsageError(f"torch: '{script}' is not a Python script; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up
    with _script_errors(script):
        spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, name: str, script: Path) -> Any:
    if not hasattr(module, name):
        known = [one for one in vars(module) if not one.startswith("_")]
        raise UsageError(f"torch: '{script}' has no '{name}'.{did_you_mean(name, known)}")
    return getattr(module, name)


def _call(target: Any, args: dict[str, Any], script: Path, name: str) -> Any:
    if not callable(target) or isinstance(target, nn.Module):
        raise UsageError(f"torch: {name} in '{script}' is of type {type(target).__name__}; name a function or class")
    with _script_errors(script):
        return target(**args)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """What lies beside the script can be imported by it, as when Python runs it.

    Such modules are forgotten afterwards: another script's helper may have the same name.
    """
    folder = folder.resolve()
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        roots = {name.partition(".")[0] for name in set(sys.modules) - before}
        for root in roots - before:
            if _lies_in(sys.modules.get(root), folder):
                for name in [one for one in sys.modules if one == root or one.startswith(f"{root}.")]:
                    del sys.modules[name]


def _lies_in(module: ModuleType | None, folder: Path) -> bool:
    """Whether a top-level module is `folder/name.py` or `folder/name/`."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(folder == Path(place).resolve().parent for place in places if place)


@contextmanager
def _script_errors(script: Path) -> Iterator[None]:
    """An error of the user's script as one line, with the script's own line number."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError) and error.filename:
            frames.append((error.filename, error.lineno))
        lines = [line for file, line in frames if Path(file).resolve() == script.resolve()]
        where = f", line {lines[-1]}" if lines else ""
        raise UsageError(f"torch: '{script}'{where}: {describe_error(error)}") from error
