"""Memory: the peak of each stage of a finished run, its growth with the number of images, a bank of ImageNet's size.

    python -m benchmarks.memory [--results results/small] [--images 1000 8000] [--rows 1281167] [--width 2048]
                                [--parts stages images bank]

Each measured stage is a process of its own, whose largest resident size is read from the system (Linux). Images:
features, score (KNN) and evaluate on sets of each size; target: at most 1.1 times the peak at the smaller size. Bank:
KNN (K = 1000), ViM, Mahalanobis and ReAct on 500 images with a train set of `--rows` features of `--width` float32 in a
file that is written and deleted again (10.5 GB at the default); target: 4 GB. `--rows 200000 400000` shows the slope.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from benchmarks.common import ROOT, Figure, Report

GROWTH, LIMIT = 1.1, 4000.0  # times, MB
BLOCK = 8192


def stages(results: Path, report: Report) -> None:
    """The largest peak of each kind of job in the benchmark files of a finished run."""
    peaks: dict[str, list[float]] = {}
    for path in (results / "benchmarks").rglob("*.tsv"):
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row["max_rss"] for row in csv.DictReader(file, delimiter="\t")]
        peaks.setdefault(path.relative_to(results / "benchmarks").parts[0], []).extend(
            float(value) for value in rows if value not in ("-", "NA", ""))
    for kind, values in sorted(peaks.items()):
        if values:
            report.add(Figure(f"peak of {kind}", max(values), "MB", n=len(values)))


def peak(*arguments: object) -> float:
    """MB of the largest resident size of ``python -m ...`` in a process of its own.

    Raises:
        SystemExit: the stage failed.
    """
    code = ("import runpy, sys; sys.argv = sys.argv[1:]\n"
            "try: runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=False)\n"
            "finally: print('peak', open('/proc/self/status').read().split('VmHWM:')[1].split()[0], flush=True)")
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments[0]}: {done.stderr[-1500:]}")
    return float(done.stdout.rsplit("peak", 1)[1]) * 1024 / 1e6


def write_features(path: Path, rows: int, width: int, classes: int = 10, seed: int = 0) -> Path:
    """A features file as the features stage writes it, block by block."""
    rng = np.random.default_rng(seed)
    pattern = np.abs(rng.standard_normal((BLOCK, width), dtype=np.float32))
    with h5py.File(path, "w") as file:
        features = file.create_dataset("features", (rows, width), np.float32)
        logits = file.create_dataset("logits", (rows, classes), np.float32)
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            shift = np.float32(rng.random())  # no two blocks are the same
            features[start:start + count] = pattern[:count] + shift
            logits[start:start + count] = rng.standard_normal((count, classes), dtype=np.float32)
        file["labels"] = np.arange(rows) % classes
    return path


def write_head(path: Path, width: int, classes: int = 10) -> Path:
    with h5py.File(path, "w") as file:
        file["weight"] = np.random.default_rng(1).standard_normal((classes, width)).astype(np.float32)
        file["bias"] = np.zeros(classes, np.float32)
    return path


def images(counts: list[int], report: Report) -> None:
    """Peaks of features, score and evaluate for test sets of each size."""
    import torch

    from benchmarks.networks import pixels
    from workflow_scripts.models import resnet_cifar
    from workflow_scripts.networks import checkpoint
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        torch.manual_seed(0)
        options = {"blocks": [1, 1, 1, 1], "width": 16}
        network = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=16), 10)
        checkpoint.save(folder / "n.pt", network, {"network": "n", "classes": list("abcdefghij"), "seed": 0,
                                                   "history": []})
        section = {"network": {"name": "n", "model": "resnet_cifar", "options": options}, "batch_size": None,
                   "normalise": {"mean": [0.5] * 3, "std": [0.25] * 3}}
        write_features(folder / "id.train.h5", 5000, 128)
        for count in counts:
            made = pixels(count).numpy()
            for name in ("id", "ood"):
                with h5py.File(folder / f"{name}.test.h5", "w") as file:
                    file["images"], file["labels"] = made, np.arange(count) % 10
                    file["names"] = np.array([str(i).encode() for i in range(count)])
                    file.attrs.update(dataset=name, split="test", definition="{}", sources="{}",
                                      classes=json.dumps(list("abcdefghij")))
            out = folder / f"features{count}"
            out.mkdir()
            sets = [out / "id.test.h5", out / "ood.test.h5"]
            config = json.dumps(section | {"sets": ["id.test", "ood.test"]})
            found.setdefault("features", []).append(peak(
                "workflow_scripts.stages.extract_features", "--config", config, "--checkpoint", folder / "n.pt",
                "--stores",
                folder / "id.test.h5", folder / "ood.test.h5", "--out", *sets, "--device", "cpu", "--threads", 1))
            found.setdefault("score (KNN)", []).append(peak(
                "workflow_scripts.stages.score_sets", "--config", '{"score": "knn"}', "--sets", *sets, "--train",
                folder / "id.train.h5", "--out", out / "knn.h5"))
            found.setdefault("evaluate", []).append(peak(
                "workflow_scripts.stages.compute_metrics", "--config",
                '{"id": "id.test", "groups": {"far": ["ood.test"]}}',
                "--scores", out / "knn.h5", "--id-features", sets[0], "--out", out / "m.csv"))
    for stage, peaks in found.items():
        report.add(Figure(f"{stage}: peak at {counts[-1]:,} images over that at {counts[0]:,}", peaks[-1] / peaks[0],
                          "", GROWTH, True, more={"MB": peaks}))
        print(f"      {', '.join(f'{count:,}: {mb:.0f} MB' for count, mb in zip(counts, peaks, strict=True))}")


def bank(rows: list[int], width: int, report: Report, scores: tuple[str, ...]) -> None:
    """Peaks of scores whose train set lies in a file."""
    chosen = {"knn": {"K": min(1000, min(rows) // 2)}, "react": {}, "vim": {}, "mahalanobis": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_head(folder / "head.h5", width)
        test = write_features(folder / "id.test.h5", 500, width, seed=5)
        for count in rows:
            train = write_features(folder / "id.train.h5", count, width)
            statistics = peak("workflow_scripts.stages.precompute_statistics", "--train", train, "--out",
                              folder / "s.h5")
            report.add(Figure(f"class means, {count:,} x {width}: peak", statistics, "MB", LIMIT, True))
            for name in scores:
                config = json.dumps({"score": name, "options": chosen[name]})
                used = peak("workflow_scripts.stages.score_sets", "--config", config, "--sets", test, "--train",
                            train, "--head",
                            folder / "head.h5", "--statistics", folder / "s.h5", "--out", folder / "o.h5")
                report.add(Figure(f"{name}, bank of {count:,} x {width} ({4 * count * width / 1e9:.1f} GB): peak", used,
                                  "MB", LIMIT, True))
            train.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "small")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 8000])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_281_167])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--scores", nargs="+", default=["knn", "vim", "mahalanobis", "react"])
    parts = ["stages", "images", "bank"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    args = parser.parse_args()
    report = Report("memory", "numpy", "torch")
    if "stages" in args.parts:
        stages(args.results, report)
    if "images" in args.parts:
        images(args.images, report)
    if "bank" in args.parts:
        bank(args.rows, args.width, report, tuple(args.scores))
    report.write()


if __name__ == "__main__":
    main()
