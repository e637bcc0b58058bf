"""Every score of cached features of one CIFAR network on OpenOOD's test sets: seconds in all, and of each score.

    python -m benchmarks.many_scores [--classes 10 100] [--train 50000] [--divide 1] [--scores knn vim]

Features are made up: 512 columns, class means with noise, not negative, of 50,000 ID train and 162,660 test images in
seven sets of the sizes of the protocol. Each score is the stage `score_sets` with its options as they are, in this
process, writing its file; the class means are counted, too. Scores that run a network are named and left out. Target:
two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks.common import Figure, Report
from workflow_scripts.core import plugins
from workflow_scripts.stages import precompute_statistics, score_sets

LIMIT = 120.0  # seconds
WIDTH = 512
SETS = {"cifar10.test": 9000, "cifar100.test": 9000, "tin.test": 7793, "mnist.test": 70_000, "svhn.test": 26_032,
        "textures.test": 5640, "places365.test": 35_195}
"""Test images of OpenOOD v1.5 with CIFAR-10 as ID set."""
NOT_FEATURES = {"network", "scores", "background", "shuffled"}
"""Needs that a network's own features do not meet."""


def cached_scores() -> tuple[list[str], list[str]]:
    """Scores of cached features of any network, and the others."""
    names = plugins.names("scores")
    fitting = [name for name in names if not plugins.spec("scores", name).needs & NOT_FEATURES]
    return fitting, [name for name in names if name not in fitting]


def write(folder: Path, classes: int, train: int, divide: int) -> None:
    """Features files, head and class means' source."""
    rng = np.random.default_rng(0)
    means = rng.gamma(0.5, 0.6, (classes, WIDTH)).astype(np.float32)
    with h5py.File(folder / "head.h5", "w") as file:
        weight, bias = means - means.mean(0), np.zeros(classes, np.float32)
        file["weight"], file["bias"] = weight, bias
        file["bn_weight"], file["bn_bias"] = np.full(WIDTH, 0.5, np.float32), np.full(WIDTH, 0.3, np.float32)

    def fill(group: h5py.Group, count: int, id: bool) -> None:
        labels = np.arange(count) % classes
        near = means[labels] if id else 0.5 * means[rng.integers(0, classes, count)]
        features = np.maximum(near + rng.normal(0, 0.4, (count, WIDTH)).astype(np.float32), 0)
        group["features"], group["logits"] = features, features @ weight.T + bias
        group["labels"] = labels if id else np.full(count, -1)

    with h5py.File(folder / "id.train.h5", "w") as file:
        fill(file, train // divide, True)
    with h5py.File(folder / "tests.h5", "w") as file:
        for place, (name, count) in enumerate(SETS.items()):
            fill(file.create_group(name), count // divide, place == 0)


def measure(report: Report, names: list[str], classes: int, train: int, divide: int) -> None:
    """Seconds of each score, and of all."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, classes, train, divide)
        found = {}
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            precompute_statistics.main(["--train", str(folder / "id.train.h5"), "--out", str(folder / "s.h5")])
        found["class means"] = time.perf_counter() - began
        for name in names:
            began = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                score_sets.main(["--config", json.dumps({"score": name}), "--sets", str(folder / "tests.h5"), "--train",
                                 str(folder / "id.train.h5"), "--head", str(folder / "head.h5"), "--statistics",
                                 str(folder / "s.h5"), "--out", str(folder / "out.h5")])
            found[name] = time.perf_counter() - began
            print(f"      {name}: {found[name]:.2f} s", flush=True)
    images = sum(SETS.values()) // divide
    what = f"{len(names)} scores, C = {classes}, {train // divide:,} train and {images:,} test images"
    report.add(Figure(f"{what}: seconds", sum(found.values()), "s", LIMIT if divide == 1 else None, True,
                      more={name: round(value, 3) for name, value in found.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_scores", description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--divide", type=int, default=1, help="of the images, one in so many")
    parser.add_argument("--scores", nargs="+", help="these alone")
    args = parser.parse_args()
    names, others = cached_scores()
    report = Report("many_scores", "numpy")
    print(f"  left out, since they need more than features: {', '.join(others)}")
    for classes in args.classes:
        measure(report, args.scores or names, classes, args.train, args.divide)
    report.write()


if __name__ == "__main__":
    main()
