"""Features of each network in images/s, against the plain forward pass, and what bfloat16 does to every score.

    python -m benchmarks.features [--networks densenet100 wrn40-2 resnet18] [--images 256] [--repeats 5] [--threads 2]
    python -m benchmarks.features --effect results/small      # of a finished run: its checkpoints, sets and scores

Plain: eager, NCHW, float32, batches of 100, memory as glibc keeps it. Ours is the features stage's own pass:
channels-last, in the batch size of each line and the one that the short measurement of `batch_size: auto` chooses.
Targets: 2.8 times plain in float32 at the fixed size, for densenet100; features within 1e-4 of the plain ones, relative
to their largest. The effect of `precision: bfloat16` is measured through the stages: features in both precisions, every
score of the finished run that is computed from features, its largest change of AUROC over all OOD sets, and of FPR95.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import common
from benchmarks.common import Figure, Report
from benchmarks.finished import Finished
from benchmarks.networks import FULL, SMALL, normalised, pixels, settled
from workflow_scripts.metrics.ood import ood_metrics
from workflow_scripts.networks import batching, devices
from workflow_scripts.networks.forward import penultimate
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.scores import cached
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import precompute_statistics as precompute
from workflow_scripts.stages import score_sets as score

TARGET, RELATIVE, PLAIN = 2.8, 1e-4, 100


@torch.inference_mode()
def measure(name: str, report: Report, count: int, repeats: int, networks: dict = FULL,
            sizes: tuple[int, ...] = (16, 32, 64, 128)) -> dict[str, float]:
    """Images/s of every side, printed with targets. -> how many times plain each is."""
    torch.manual_seed(0)
    plain = settled(networks[name](10))
    ours = copy.deepcopy(plain)
    ours.fold_batchnorms()
    ours, apart = (network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
                   for network in (ours, copy.deepcopy(plain)))
    x = normalised(pixels(count))
    last = x.contiguous(memory_format=torch.channels_last)

    def plainly() -> torch.Tensor:
        common.default_memory()
        return torch.cat([plain.features(part) for part in x.split(PLAIN)])

    def staged(size: int, precision: str, network: torch.nn.Module = ours) -> torch.Tensor:
        keep_freed_memory()  # as the stage does
        return torch.cat([penultimate(network, part, precision) for part in last.split(size)])

    sides = {"plain": plainly}
    sides |= {f"float32, {size}": lambda size=size: staged(size, "float32") for size in sizes}
    sides["bfloat16, 64"] = lambda: staged(64, "bfloat16")
    fixed = f"float32, {batching.FIXED['cpu']}"
    sides[f"{fixed}, not frozen"] = lambda: staged(batching.FIXED["cpu"], "float32", apart)
    expected, found, rough = (sides[side]() for side in ("plain", fixed, "bfloat16, 64"))
    difference = float((expected - found).abs().max() / expected.abs().max())
    times = common.turns(sides, repeats)
    ratios = {}
    for side in sides:
        ratios[side] = common.ratio(times, "plain", side)
        report.add(Figure(f"{name}, {side}: times plain", ratios[side], "", TARGET if (name, side) == (
            "densenet100", fixed) else None, n=repeats, more={"images/s": count / common.median(times, side)}))
        print(f"      {count / common.median(times, side):.0f} images/s", flush=True)
    report.add(Figure(f"{name}: largest difference of a feature, of the largest", difference, "", RELATIVE, True))
    report.add(Figure(f"{name}: the same of bfloat16", float((expected - rough).abs().max() / expected.abs().max())))
    report.add(Figure(f"{name}: batch size that `auto` chooses",
                      batching.batch_size("auto", ours, last[:1])))
    return ratios | {"difference": difference}


def scored(folder: Path, sets: list[str], name: str, entry: dict) -> dict[str, np.ndarray]:
    """Scores of each set by the score stage, from features in ``folder``."""
    out = folder / f"{name}.score.h5"
    score.main(["--config", json.dumps(entry), "--sets", *(str(folder / f"{s}.h5") for s in sets),
                "--train", str(next(folder.glob("*.train.h5"))), "--head", str(folder / "head.h5"),
                "--statistics", str(folder / "statistics.h5"), "--out", str(out)])
    with cached.opened(out) as file:
        return {s: file[s][:] for s in sets}


def effect(results: Path, report: Report) -> None:
    """What bfloat16 features do to each score of the network with the most scores in a finished run."""
    run = Finished(results)
    with tempfile.TemporaryDirectory() as temporary:
        metrics: dict[str, dict[str, dict]] = {}
        for precision in ("float32", "bfloat16"):
            folder = Path(temporary) / precision
            folder.mkdir()
            features.main(["--config", json.dumps(run.features | {"precision": precision}), "--checkpoint",
                           str(run.checkpoint), "--stores", *map(str, run.stores), "--out",
                           *(str(folder / f"{s}.h5") for s in run.features["sets"]),
                           "--head", str(folder / "head.h5"), "--device", "cpu", "--threads", "2"])
            precompute.main(["--train", str(folder / run.train), "--out", str(folder / "statistics.h5")])
            for name, entry in run.scores.items():
                values = scored(folder, run.tests, name, entry)
                id_scores = values.pop(run.tests[0])
                metrics.setdefault(name, {})[precision] = {s: ood_metrics(id_scores, v) for s, v in values.items()}
    for name, both in metrics.items():
        for metric in ("auroc", "fpr95"):
            change = max(abs(both["bfloat16"][s][metric] - both["float32"][s][metric]) for s in both["float32"])
            report.add(Figure(f"bfloat16, {name}: largest change of {metric} in points", 100 * change,
                              n=len(both["float32"])))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(FULL), default=["densenet100", "wrn40-2", "resnet18"])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="tiny networks: a test of the benchmark")
    parser.add_argument("--effect", type=Path, metavar="RESULTS", help="of a finished run: what bfloat16 changes")
    args = parser.parse_args()
    devices.pick("cpu", args.threads)
    if args.effect:
        report = Report("precision", "torch")
        effect(args.effect, report)
    else:
        report = Report("features", "torch")
        for name in args.networks:
            measure(name, report, args.images, args.repeats, SMALL if args.small else FULL)
    report.write()


if __name__ == "__main__":
    main()
