"""What the pages show is what happens: their commands and programs are run, their files and links exist.

A page is read from top to bottom in a folder of its own. In it,

- a block ```` ```python title="name.py" ```` (or toml) is a file that is written to the folder, or that a command above
  it must have written;
- a block ```` ```python runnable ```` is a program that is run;
- in a block ```` ```console ````, every line `$ rbl ...` is run and must end with exit code 0, or with the one that a
  comment `# exit code 2` on the line names. The lines below it must appear in what the command prints, numbers
  aside; `...` stands for anything.

Files that a page names and does not show (`net.onnx`, `test.npz`, ...) are small real ones made here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')
EXIT_CODE = re.compile(r"# exit code (\d+)")

FOR_THE_SHELL = re.compile(r"[<>|&;$*~`]")
"""What makes a line more than words, quotes and a comment."""

ForkedRbl = Callable[[Sequence[str], Path, Mapping[str, str]], "subprocess.CompletedProcess[str]"]

ELSEWHERE = {
    "README.md": {
        "rbl run --attack pgd": "getting-started.md",
        "rbl run --attack pgd --model \"onnx(path='net.onnx')\" "
        "--model \"torch(path='my_model.py:make_model', weights='weights.safetensors')\" "
        "--dataset \"npz(path='test.npz')\" --norm linf --eps 8/255": "your-own-model.md",
    }
}
"""Commands of a page that take long, and the page that has them too and of which they are run."""

MY_MODEL = """
from torch import nn


def make_model(hidden: int = 32) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
"""
MY_PROJECT = """
import numpy as np
import torch
from my_model import make_model
from safetensors.torch import load_file

model = make_model()
model.load_state_dict(load_file("weights.safetensors"))
data = np.load("test.npz")
images, labels = torch.from_numpy(data["images"])[:, None].float() / 255, data["labels"]
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    info: str
    body: str

    @property
    def title(self) -> str | None:
        found = TITLE.search(self.info)
        return found and found[1]


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the lines shown below it."""

    line: str
    shown: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        named = EXIT_CODE.search(self.line)
        return int(named[1]) if named else 0


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["language"], one["info"].strip(), one["body"]) for one in found]


def commands(block: Block) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        yield Command(line, tuple(shown))


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a user who has a small trained network and data."""
    import numpy as np
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import save_file
    from sklearn.datasets import load_digits, load_sample_images

    folder = tmp_path_factory.mktemp("material")
    (folder / "my_model.py").write_text(MY_MODEL)
    (folder / "my_project.py").write_text(MY_PROJECT)
    digits = load_digits()
    images, labels = (digits.images * 255 / 16).round().astype(np.uint8), digits.target.astype(np.int64)
    np.savez_compressed(folder / "test.npz", images=images[:200], labels=labels[:200])
    net = _trained(torch.from_numpy(images[200:])[:, None].float() / 255, torch.from_numpy(labels[200:]))
    save_file(net.state_dict(), folder / "weights.safetensors")
    axes = {"images": {0: "batch"}}
    example = torch.zeros(1, 1, 8, 8)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # the exporter that onnx2torch reads
        torch.onnx.export(
            net, example, folder / "net.onnx", input_names=["images"], dynamic_axes=axes, opset_version=13, dynamo=False
        )
    torch.manual_seed(0)
    save_file(timm.create_model("resnet18").state_dict(), folder / "resnet18.safetensors")
    for name, photo in zip(("flower", "temple"), load_sample_images().images, strict=True):
        (folder / "val" / name).mkdir(parents=True)
        Image.fromarray(photo[:300, :400]).save(folder / "val" / name / "0.png")
    return folder


def _trained(images, labels):
    import torch

    namespace: dict[str, object] = {}
    exec(MY_MODEL, namespace)  # noqa: S102 (our own text, above)
    torch.manual_seed(0)
    net = namespace["make_model"]()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net.eval()


def provide(page: Path, material: Path, folder: Path) -> None:
    """The files that the page, or one provided for it, names and does not show."""
    own = {block.title for block in blocks(page)}
    text = page.read_text(encoding="utf-8") + (MY_PROJECT if "my_project" in page.read_text(encoding="utf-8") else "")
    for file in material.iterdir():
        named = re.search(rf"\b{re.escape(file.stem)}\b", text)
        if named and file.name not in own:
            (shutil.copytree if file.is_dir() else shutil.copy)(file, folder / file.name)


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}


def run(command: str | list[str], folder: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        shell=isinstance(command, str),
        input=stdin,
        capture_output=True,
        text=True,
    )


def comparable(line: str) -> str:
    """A line without what differs from machine to machine: numbers, hashes, widths, bars."""
    line = re.sub(r"\b[0-9a-f]{6,}\b", "0", line)
    line = re.sub(r"\d+([.,:]\d+)*", "0", line)
    line = re.sub(r"[━┄]+", "", line)
    line = re.sub(r"─+", "─", line)
    return " ".join(line.split())


def shows(command: Command, folder: Path, forked_rbl: ForkedRbl) -> None:
    if FOR_THE_SHELL.search(command.line):
        done = run(command.line, folder)
    else:
        done = forked_rbl(shlex.split(command.line, comments=True)[1:], folder, environment(folder))
    printed = done.stdout + done.stderr
    assert done.returncode == command.exit_code, f"$ {command.line}\n{printed}"
    assert "Traceback" not in printed, f"$ {command.line}\n{printed}"
    lines = {comparable(line) for line in printed.splitlines()}
    absent = [one for one in command.shown if one.strip() not in ("", "...") and comparable(one) not in lines]
    assert not absent, f"$ {command.line}\nis shown to print {absent}, but prints\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_shows(page: Path, material: Path, tmp_path: Path, forked_rbl: ForkedRbl) -> None:
    provide(page, material, tmp_path)
    for block in blocks(page):
        if block.title:
            file = tmp_path / block.title
            assert not file.exists() or file.read_text() == block.body, f"a command has written another {block.title}"
            file.write_text(block.body)
        elif block.language == "console":
            for command in commands(block):
                if command.line.startswith("rbl ") and command.line not in ELSEWHERE.get(page.name, {}):
                    shows(command, tmp_path, forked_rbl)
        elif block.info == "runnable":
            done = run([sys.executable, "-"], tmp_path, block.body)
            assert done.returncode == 0, f"{block.body}\n{done.stderr}"


def test_what_a_page_leaves_to_another_stands_in_both() -> None:
    shown = {page.name: {command.line for block in blocks(page) for command in commands(block)} for page in PAGES}
    for page, left in ELSEWHERE.items():
        for line, other in left.items():
            assert line in shown[page] & (shown[other] - ELSEWHERE.get(other, {}).keys())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_make_targets_that_a_page_shows_exist(page: Path) -> None:
    shown = {
        command.line.split()[1] for block in blocks(page) for command in commands(block) if command.line[:5] == "make "
    }
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert shown <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]
    broken = [link for link in links if not leads_somewhere(page, link)]
    assert not broken


def leads_somewhere(page: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or anchor in anchors(target)


def anchors(page: Path) -> set[str]:
    """Of the page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda example: example.name)
def test_an_example_program_runs(example: Path, tmp_path: Path) -> None:
    done = run([sys.executable, str(example)], tmp_path)
    assert done.returncode == 0, done.stderr
