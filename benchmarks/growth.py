"""How time grows with images, classes, OOD sets and seeds: CPU seconds of the stages, and a picture.

    python -m benchmarks.growth [--repeats 3] [--small] [--picture docs/images/growth.svg]

The stages run in this process on one thread, with a small network and 16x16 images; seconds are the process's own, so
that other work on the machine counts little. Images: features, KNN (bank of 5,000) and metrics of two test sets.
Classes: five scores that use class means or the head, and metrics. OOD sets and seeds: train a step, features, three
scores and metrics. The exponent of growth is log(t2 / t1) / log(n2 / n1) between the two largest sizes: 1 is linear;
target: at most 1.15.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.common import ROOT, Figure, Report
from benchmarks.memory import write_features, write_head
from benchmarks.networks import pixels
from workflow_scripts.models import resnet_cifar
from workflow_scripts.networks import checkpoint, devices
from workflow_scripts.stages import compute_metrics as evaluate
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import precompute_statistics as precompute
from workflow_scripts.stages import score_sets as score
from workflow_scripts.stages import train_network as train

TARGET = 1.15
SIZES = {"images": (1000, 10_000, 100_000), "classes": (10, 100, 1000), "OOD sets": (1, 4, 16), "seeds": (1, 2, 4, 8)}
SMALL = {"images": (200, 400), "classes": (5, 10), "OOD sets": (1, 2), "seeds": (1, 2)}
OPTIONS = {"blocks": [1, 1, 1, 1], "width": 4}
NETWORK = {"name": "n", "model": "resnet_cifar", "options": OPTIONS}
NORMALISE = {"mean": [0.5] * 3, "std": [0.25] * 3}
CLASSES, SIDE = 10, 16


def call(main: Callable[[list[str]], None], *arguments: object) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        main([str(argument) for argument in arguments])


def store(path: Path, images: np.ndarray) -> Path:
    name, split, _ = path.name.split(".")
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = images, np.arange(len(images)) % CLASSES
        file["names"] = np.array([str(i).encode() for i in range(len(images))])
        file.attrs.update(dataset=name, split=split, definition="{}", sources="{}",
                          classes=json.dumps([str(c) for c in range(CLASSES)]))
    return path


def chain(folder: Path, tests: list[Path], scores: dict[str, dict], checkpoint_file: Path) -> None:
    """Features, class means, scores and metrics of one network; the first of ``tests`` is ID."""
    sets = [folder / "id.train.h5", *tests]
    outs = [folder / "out" / path.name for path in sets]
    config = {"network": NETWORK, "normalise": NORMALISE, "batch_size": 64, "sets": [p.stem for p in sets]}
    call(features.main, "--config", json.dumps(config), "--checkpoint", checkpoint_file, "--stores", *sets,
         "--out", *outs, "--head", folder / "out" / "head.h5", "--device", "cpu", "--threads", 1)
    scored(folder / "out", outs[0], outs[1:], scores)


def scored(out: Path, train: Path, tests: list[Path], scores: dict[str, dict]) -> None:
    """Class means, scores and metrics from features; ``head.h5`` lies in ``out``."""
    call(precompute.main, "--train", train, "--out", out / "statistics.h5")
    for name, options in scores.items():
        call(score.main, "--config", json.dumps({"score": name, "options": options}), "--sets", *tests,
             "--train", train, "--head", out / "head.h5", "--statistics", out / "statistics.h5",
             "--out", out / f"{name}.scores")
    config = {"id": tests[0].stem, "groups": {"far": [path.stem for path in tests[1:]]}}
    call(evaluate.main, "--config", json.dumps(config), "--scores", *(out / f"{name}.scores" for name in scores),
         "--id-features", tests[0], "--out", out / "metrics.csv")


def of_images(folder: Path, count: int) -> Callable[[], None]:
    tests = [store(folder / f"{name}.test.h5", pixels(count, SIDE, i).numpy()) for i, name in enumerate(("id", "ood"))]
    return lambda: chain(folder, tests, {"knn": {"K": 50}, "energy": {}}, folder / "seed0.pt")


def of_classes(folder: Path, count: int) -> Callable[[], None]:
    out = folder / "out"
    write_head(out / "head.h5", 128, count)
    train = write_features(out / "wide.train.h5", 5000, 128, count)
    tests = [write_features(out / f"{name}.test.h5", 2000, 128, count, seed) for seed, name in enumerate(("id", "ood"))]
    names = {"mahalanobis": {}, "dice": {}, "himplos": {}, "kl_matching": {}, "msp": {}}
    return lambda: scored(out, train, tests, names)


def of_sets(folder: Path, count: int) -> Callable[[], None]:
    tests = [store(folder / f"s{i}.test.h5", pixels(1000, SIDE, i).numpy()) for i in range(1 + count)]
    return lambda: chain(folder, tests, {"knn": {"K": 50}, "energy": {}, "mahalanobis": {}}, folder / "seed0.pt")


def of_seeds(folder: Path, count: int) -> Callable[[], None]:
    tests = [store(folder / f"s{i}.test.h5", pixels(1000, SIDE, i).numpy()) for i in range(3)]
    recipe = {"method": "cross_entropy", "options": {}, "augment": [], "normalise": NORMALISE, "training": {
        "epochs": 1, "batch_size": 64, "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4,
        "drop_last": True, "schedule": {"name": "constant"}}}

    def work() -> None:
        for seed in range(count):
            config = {"network": NETWORK, "recipe": recipe, "released": [], "steps": 20}
            call(train.main, "--config", json.dumps(config), "--data", folder / "id.train.h5", "--seed", seed,
                 "--device", "cpu", "--threads", 1, "--out", folder / "trained.pt")
            chain(folder, tests, {"knn": {"K": 50}, "energy": {}, "mahalanobis": {}}, folder / "trained.pt")

    return work


WORK = {"images": of_images, "classes": of_classes, "OOD sets": of_sets, "seeds": of_seeds}


def measure(report: Report, sizes: dict[str, tuple[int, ...]], repeats: int) -> dict[str, dict[int, float]]:
    """CPU seconds by what grows and its size; the exponents are printed."""
    found: dict[str, dict[int, float]] = {}
    for what, counts in sizes.items():
        found[what] = {}
        for count in counts:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                (folder / "out").mkdir()
                store(folder / "id.train.h5", pixels(2000, SIDE, 99).numpy())
                torch.manual_seed(0)
                network = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), CLASSES)
                checkpoint.save(folder / "seed0.pt", network, {
                    "network": "n", "classes": [str(c) for c in range(CLASSES)], "seed": 0, "history": []})
                work, seconds = WORK[what](folder, count), []
                for _ in range(repeats):
                    started = time.process_time()
                    work()
                    seconds.append(time.process_time() - started)
            found[what][count] = statistics.median(seconds)
            print(f"  {count:>7,} {what}: {found[what][count]:.3f} s", flush=True)
        (n1, t1), (n2, t2) = list(found[what].items())[-2:]
        exponent = math.log(t2 / t1) / math.log(n2 / n1)
        report.add(Figure(f"{what}: exponent of growth from {n1:,} to {n2:,}", exponent, "", TARGET, True, repeats,
                          {"CPU seconds": found[what]}))
    return found


def picture(found: dict[str, dict[int, float]], path: Path) -> None:
    """A panel for each thing that grows, with a line of slope 1 through the last point."""
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib import ticker
    plt.rcParams.update({"svg.hashsalt": "growth", "font.size": 8})
    figure, panels = plt.subplots(1, len(found), figsize=(9, 2.4), layout="constrained")
    for panel, (what, times) in zip(panels, found.items(), strict=True):
        counts, seconds = np.array(list(times)), np.array(list(times.values()))
        panel.loglog(counts, seconds[-1] * counts / counts[-1], color="0.7", label="linear")
        panel.loglog(counts, seconds, "o-", color="#1f5fa8", label="measured")
        panel.set(xlabel=what, ylabel="CPU seconds" if panel is panels[0] else None)
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_minor_locator(ticker.NullLocator())
        panel.yaxis.set_major_formatter("{x:g}")
    panels[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="small sizes: a test of the benchmark")
    parser.add_argument("--picture", type=Path, default=ROOT / "results" / "benchmarks" / "growth.svg")
    args = parser.parse_args()
    devices.pick("cpu", 1)
    report = Report("growth", "torch", "numpy")
    with threadpool_limits(1):
        found = measure(report, SMALL if args.small else SIZES, args.repeats)
    picture(found, args.picture)
    report.write()


if __name__ == "__main__":
    main()
