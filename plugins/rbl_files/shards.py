"""A data set in one file, or in a folder of files that are its parts."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import existing_file, existing_folder, listed

SUFFIXES = (".parquet", ".arrow")
OF = re.compile(r"-of-0*(\d+)$")
"""How the names of Hugging Face's files end: `train-00000-of-00003`."""


def shards(path: str) -> list[Path]:
    """The file at `path`, or those of the folder there, in the order of their names.

    Their names may differ in numbers only, so that no test part is taken with the training part. Raises UsageError.
    """
    if not Path(path).expanduser().is_dir():
        return [existing_file(path, "parquet")]
    found = sorted(one for one in existing_folder(path, "parquet").iterdir() if one.suffix in SUFFIXES)
    if not found:
        raise UsageError(f"parquet: the folder '{path}' has no {' and no '.join(SUFFIXES)} file: name another")
    kinds = {re.sub(r"\d+", "0", one.name): one.name for one in found}
    if len(kinds) > 1:
        text = f"the folder '{path}' holds more than the parts of one data set ({listed(kinds.values())})"
        raise UsageError(f"parquet: {text}: name one file, or a folder of one")
    whole = OF.search(found[0].stem)
    if whole and int(whole[1]) != len(found):
        raise UsageError(f"parquet: the folder '{path}' has {len(found)} of {int(whole[1])} parts: add the others")
    return found


def _checked(path: str) -> str:
    shards(path)
    return path


ShardsPath = Annotated[str, AfterValidator(_checked)]
"""A factory's parameter that names such a file or folder: one that is not there is refused when the run is planned."""
