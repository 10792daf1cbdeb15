"""The memory that a run takes: the peak for 10,000 CIFAR-sized samples beside that for 100, attack by attack.

    python benchmarks/memory.py --out benchmarks/results/memory.json

Each run is a process of its own, on cifar10_resnet_2b.onnx. 10,000 float32 images are 117 MiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from cases import CIFAR, SHARED

ATTACKS = ("pgd(steps=5)", "apgd(steps=5)", "square(queries=10)", "fab-t(steps=3, targets=1)", "fmn(steps=5)")
RUN = """
import sys
from robustbench_lab.cli.main import main
sys.exit(main())
"""


def peak_mebibytes(attack: str, samples: int, data: Path, folder: Path) -> float:
    """The largest resident size of one `rbl run`."""
    model = f"onnx(path={str(SHARED / 'models/cifar10_resnet_2b.onnx')!r}, mean={CIFAR['mean']}, std={CIFAR['std']})"
    command = ["run", "--attack", attack, "--model", model, "--dataset", f"npz(path={str(data)!r})", "--quiet"]
    command += ["--norm", "linf", "--eps", "2/255", "--samples", str(samples), "--device", "cpu", "--fresh"]
    before = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    report = before + "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", report, sys.executable, "-c", RUN, *command],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout.split()[-1]) / (1024 if sys.platform == "linux" else 1024**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with np.load(SHARED / "data/cifar10_test_5k.npz") as stored:
            images, labels = stored["images"], stored["labels"]
        twice = folder / "twice.npz"
        np.savez(twice, images=np.concatenate([images, images[:, :, ::-1]]), labels=np.concatenate([labels, labels]))
        for attack in ATTACKS:
            few, many = (peak_mebibytes(attack, samples, twice, folder) for samples in (100, 10_000))
            rows.append({"attack": attack, "peak_mib_100": few, "peak_mib_10000": many, "more_mib": many - few})
            print(f"{attack:28} {few:6.0f} MiB   {many:6.0f} MiB   {many - few:+6.0f} MiB", flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
