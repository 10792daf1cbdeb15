"""Networks of transformers from a local folder or from the Hugging Face hub: safetensors only, no code of others."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.plugin_tools.local_files import existing_folder, listed

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
WEIGHTS = "model.safetensors"


def folder_or_repository(
    name: str, revision: str | None, source: str, files: Sequence[str], example: str
) -> dict[str, Any]:
    """What to give to `from_pretrained`. files: those that a folder must hold. Raises UsageError."""
    folder = Path(name).expanduser()
    if not (folder.is_dir() or name.startswith(("/", ".", "~"))):
        if not HUB_NAME.fullmatch(name):
            raise UsageError(f"{source}: neither a folder nor the name of a repository, such as {example}")
        return {"pretrained_model_name_or_path": name, "revision": revision or "main"}
    folder = existing_folder(name, source.partition(":")[0])
    if revision is not None:
        raise UsageError(f"{source}: a folder has no revisions; leave revision out")
    missing = [file for file in files if not (folder / file).is_file()]
    if WEIGHTS in missing and (folder / f"{WEIGHTS}.index.json").is_file():
        missing.remove(WEIGHTS)
    if missing:
        writer = "model and processor" if "preprocessor_config.json" in files else "the model"
        raise UsageError(f"{source}: the folder has no {listed(missing)}; save_pretrained of {writer} writes them")
    return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}


def loaded(load: Any, given: dict[str, Any], source: str) -> Any:
    """What `load`, a `from_pretrained`, makes. Raises UsageError."""
    try:
        return load(**given, trust_remote_code=False)
    except Exception as error:  # no network, damaged files, code of others asked for, no safetensors
        advice = "" if "local_files_only" in given else "; without internet, name a local folder"
        raise UsageError(f"{source}: transformers cannot load it ({describe_error(error)}){advice}") from error


def network(kind: Any, config: Any, where: dict[str, Any], source: str) -> Any:
    """The network in float32, all of whose tensors are in the file. kind: a class with `from_pretrained`."""
    given = {**where, "config": config, "dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    with _without_bars():
        net, info = loaded(kind.from_pretrained, given, source)
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise UsageError(f"{source}: its weights lack {len(names)} tensors of the model: {listed(names)}")
    return net


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers beside the run's own."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
