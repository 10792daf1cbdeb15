"""torchvision's networks without weights, or with its own: downloaded, from its cache, or from a local copy."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torchvision
from torchvision.models import WeightsEnum

from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.global_randomness import seeded
from robustbench_lab.plugin_tools.weights import only_tensors
from robustbench_lab.provenance import file_sha256

HASH = re.compile(r"-([0-9a-f]{8,})\.")
"""In the names of torchvision's files: how their SHA-256 begins."""


def published_copy(name: str, file: str) -> WeightsEnum | None:
    """The weights that torchvision publishes for a network and that a local file is a copy of; None: it is of none.

    Loaded by torchvision's own builder, they get what it does for them alone: `inception_v3` and `googlenet` normalise
    once more, some detectors have batch normalisations without epsilon, `densenet`'s tensors have older names.
    """
    found = file_sha256(file)
    for one in torchvision.models.get_model_weights(name):
        begins = HASH.search(_file_name(one))
        if begins and found.startswith(begins[1]):
            return one
    return None


def network(name: str, source: str, published: WeightsEnum | None, copy: str | None = None, **given: Any) -> Any:
    """The network as torchvision builds it. published: the weights it gets; None: random ones, always the same.

    copy: a local file of these weights, in place of the download. given: what the builder takes. Nothing but tensors is
    ever read from a file. Raises UsageError.
    """
    try:
        with seeded("initial weights"), only_tensors(), _in_place_of_download(published, copy):
            return torchvision.models.get_model(name, weights=published, **given)
    except Exception as error:  # a wrong number of classes, no network, a damaged download
        advice = "; without internet, add weights='file.pth'" if isinstance(error, OSError) else ""
        raise UsageError(f"{source}: torchvision cannot make it ({describe_error(error)}){advice}") from error


@contextmanager
def _in_place_of_download(published: WeightsEnum | None, copy: str | None) -> Iterator[None]:
    """Its builder looks for its weights in a folder of downloads: one that holds the local copy."""
    if published is None or copy is None:
        yield
        return
    before = os.environ.get("TORCH_HOME")
    with tempfile.TemporaryDirectory() as home:
        downloads = Path(home) / "hub" / "checkpoints"
        downloads.mkdir(parents=True)
        (downloads / _file_name(published)).symlink_to(Path(copy).expanduser().resolve())
        os.environ["TORCH_HOME"] = home
        try:
            yield
        finally:
            if before is None:
                del os.environ["TORCH_HOME"]
            else:
                os.environ["TORCH_HOME"] = before


def _file_name(published: WeightsEnum) -> str:
    return Path(urlparse(published.url).path).name
