"""Twenty post-hoc scores of six OOD sets from one checkpoint, beside pytorch-ood 0.4.0 with the same detectors.

    uv run --with pytorch-ood==0.4.0 python -m benchmarks.scoring [--network resnet-small] [--repeats 3] [--small]

ID train 2,000 images, ID test 500, 500 for each OOD set, 32x32. Theirs: `fit` of each detector that needs it, then one
`Benchmark.evaluate` of all twenty with its cache on, images as tensors in memory in batches of 100, so that no decoding
counts against it. Ours: the stages in one process (features, statistics, a score stage for each score, metrics), with
all their files. Cold: nothing is there but the checkpoint. Warm: fitted detectors and a filled cache on their side,
feature files on ours; all scores and metrics are computed again. Targets: 10 times cold, 3 times warm; a score added to
a finished run makes no forward pass. The AUROC of each score and set must agree first.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from benchmarks import common
from benchmarks.common import Figure, Report
from benchmarks.networks import normalised, pixels
from workflow_scripts.networks import batching, checkpoint, devices
from workflow_scripts.networks.architecture import Network
from workflow_scripts.networks.load import build
from workflow_scripts.stages import compute_metrics as evaluate
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import precompute_statistics as precompute
from workflow_scripts.stages import score_network
from workflow_scripts.stages import score_sets as score

COLD, WARM = 10.0, 3.0
CLASSES, BATCH = 10, 100
SETS = tuple(f"ood{i}" for i in range(6))
FILES = ("id.train", "id.test", "ood")
"""Features files, as the workflow has them."""
NORMALISE = {"mean": [0.5] * 3, "std": [0.25] * 3}
NETWORKS = {
    "tiny": ("resnet_cifar", {"blocks": [1, 1, 1, 1], "width": 4}),
    "resnet-small": ("resnet_cifar", {"blocks": [1, 1, 1, 1], "width": 16}),
    "resnet18": ("resnet_cifar", {}),
    "densenet100": ("densenet_bc", {}),
}
# name here -> module and options here; the detectors of `detectors` are the same scores
SCORES: dict[str, tuple[str, dict[str, Any]]] = {
    "msp": ("msp", {}), "temperature": ("temperature", {"temperature": 2.0}), "max_logit": ("max_logit", {}),
    "energy": ("energy", {}), "energy_t2": ("energy", {"temperature": 2.0}), "entropy": ("entropy", {}),
    "gen": ("gen", {"M": 10}), "kl_matching": ("kl_matching", {}), "odin": ("odin", {"epsilon": 0.0014}),
    "react": ("react", {"percentile": 90.0}), "dice": ("dice", {"p": 70.0}),
    "ash_p": ("ash", {"variant": "p", "p": 65.0}), "ash_s": ("ash", {"variant": "s", "p": 65.0}),
    "ash_b": ("ash", {"variant": "b", "p": 65.0}), "scale": ("scale", {"p": 65.0}), "gradnorm": ("gradnorm", {}),
    "knn": ("knn", {"K": 50}), "vim": ("vim", {"dim": 16}), "mahalanobis": ("mahalanobis", {}),
    "relative_mahalanobis": ("relative_mahalanobis", {}),
}
STAGES: dict[str, float] = {}
"""Seconds in each of our stages."""
LOOSE = {"gen", "mahalanobis", "relative_mahalanobis", "odin"}
"""Scores whose definitions differ in a detail (tests/scores/test_peers.py); their AUROC may differ by 0.02."""


class Data:
    """Stores, and the same images as network inputs."""

    def __init__(self, folder: Path, train: int, test: int):
        self.folder, self.inputs, self.labels = folder, {}, {}
        for seed, (name, count) in enumerate({"id.train": train, "id.test": test,
                                              **{f"{name}.test": test for name in SETS}}.items()):
            images, labels = pixels(count, seed=seed), torch.arange(count) % CLASSES
            bright = 120 if name.startswith("id") else 10 * seed  # of the rows that tell the classes apart
            for c in range(CLASSES):
                images[labels == c, 3 * c:3 * c + 3] = images[labels == c, 3 * c:3 * c + 3] // 2 + bright
            self.inputs[name], self.labels[name] = normalised(images), labels
            with h5py.File(folder / f"{name}.h5", "w") as file:
                file["images"], file["labels"] = images.numpy(), labels.numpy()
                file["names"] = np.array([str(i).encode() for i in range(count)])
                file.attrs.update(dataset=name.split(".")[0], split=name.split(".")[1], definition="{}", sources="{}",
                                  classes=json.dumps([str(c) for c in range(CLASSES)]))

    @property
    def tests(self) -> list[str]:
        return ["id.test", *(f"{name}.test" for name in SETS)]


def train(network: nn.Module, data: Data) -> nn.Module:
    """A few steps, so that logits and features mean something."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    x, y = data.inputs["id.train"], data.labels["id.train"]
    for step in range(20):
        rows = torch.arange(64) + 64 * step
        loss = nn.functional.cross_entropy(network(x[rows % len(x)]), y[rows % len(x)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


# ---- ours ------------------------------------------------------------------------------------------------------------

class Ours:
    def __init__(self, data: Data, section: dict[str, Any], path: Path):
        self.data, self.section, self.path, self.folder = data, section, path, data.folder / "ours"
        (self.folder / "scores").mkdir(parents=True)

    def cold(self) -> None:
        sets = ["id.train", *self.data.tests]
        run(features.main, ["--config", json.dumps({"network": self.section, "normalise": NORMALISE, "batch_size": None,
                                                    "sets": sets}),
                            "--checkpoint", self.path, "--stores", *(self.data.folder / f"{s}.h5" for s in sets),
                            "--out", *(self.folder / f"{s}.h5" for s in FILES), "--head", self.folder / "head.h5",
                            "--device", "cpu", "--threads", torch.get_num_threads()])
        run(precompute.main, ["--train", self.folder / "id.train.h5", "--out", self.folder / "statistics.h5"])
        self.warm()

    def warm(self) -> None:
        """Every score and metric from the feature files; those that run the network, from the stores."""
        for name in SCORES:
            self.score(name)
        config = {"id": "id.test", "groups": {"far": [f"{s}.test" for s in SETS]}, "compat": []}
        run(evaluate.main, ["--config", json.dumps(config), "--scores",
                            *(self.folder / "scores" / f"{name}.h5" for name in SCORES), "--id-features",
                            self.folder / "id.test.h5", "--out", self.folder / "metrics.csv"])

    def score(self, name: str) -> None:
        module, options = SCORES[name]
        config = {"score": module, "name": name, "options": options}
        out = self.folder / "scores" / f"{name}.h5"
        if module == "odin":
            config |= {"network": self.section, "normalise": NORMALISE, "batch_size": None, "sets": self.data.tests}
            run(score_network.main, ["--config", json.dumps(config), "--checkpoint", self.path, "--stores",
                                     *(self.data.folder / f"{s}.h5" for s in self.data.tests), "--out", out,
                                     "--device", "cpu", "--threads", torch.get_num_threads()])
            return
        run(score.main, ["--config", json.dumps(config), "--sets", *(self.folder / f"{s}.h5" for s in FILES[1:]),
                         "--train", self.folder / "id.train.h5", "--head", self.folder / "head.h5",
                         "--statistics", self.folder / "statistics.h5", "--out", out])

    def auroc(self) -> dict[tuple[str, str], float]:
        with open(self.folder / "metrics.csv", newline="", encoding="utf-8") as file:
            return {(row["score"], row["dataset"].split(".")[0]): float(row["value"]) for row in csv.DictReader(file)
                    if row["metric"] == "auroc" and row["group"] == "far"}


def run(main: Callable[[list[str]], None], arguments: list[Any]) -> None:
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        main([str(argument) for argument in arguments])
    name = main.__module__.rpartition(".")[2]
    STAGES[name] = STAGES.get(name, 0.0) + time.perf_counter() - began


# ---- theirs ----------------------------------------------------------------------------------------------------------

class Theirs:
    def __init__(self, data: Data, network: nn.Module):
        from pytorch_ood.benchmark.base import Benchmark
        self.data, self.network = data, network
        tests = {name: TensorDataset(data.inputs[name], data.labels[name] if name == "id.test"
                                     else torch.full((len(data.inputs[name]),), -1)) for name in data.tests}

        class Sets(Benchmark):
            ood_names = list(SETS)

            def train_set(self) -> TensorDataset:
                return TensorDataset(data.inputs["id.train"], data.labels["id.train"])

            def test_sets(self, known: bool = True, unknown: bool = True) -> list[ConcatDataset]:
                return [ConcatDataset([tests["id.test"], tests[f"{name}.test"]]) for name in SETS]

        self.kind = Sets

    def cold(self) -> None:
        common.default_memory()
        self.sets, self.detectors = self.kind(), detectors(self.network)
        for detector in self.detectors.values():
            detector.fit(DataLoader(self.sets.train_set(), batch_size=BATCH))
        self.warm()

    def warm(self) -> None:
        common.default_memory()
        self.rows = self.sets.evaluate(list(self.detectors.values()), {"batch_size": BATCH}, cache=True)

    def auroc(self) -> dict[tuple[str, str], float]:
        names = [(score, name) for name in SETS for score in self.detectors]
        return {key: float(row["AUROC"]) for key, row in zip(names, self.rows, strict=True)}


def detectors(network: nn.Module) -> dict[str, Any]:
    """pytorch-ood's twenty, by the names of :data:`SCORES`."""
    from pytorch_ood import detector as peer
    head = network.head
    weight, bias = head.weight, head.bias

    def maps(x: Tensor) -> Tensor:  # pooled, as the papers' code and ours shape them
        return network.features(x)[:, :, None, None]

    def pooled(features: Tensor) -> Tensor:
        return head(features.flatten(1))

    return {
        "msp": peer.MaxSoftmax(network), "temperature": peer.MaxSoftmax(network, 2.0),
        "max_logit": peer.MaxLogit(network), "energy": peer.EnergyBased(network),
        "energy_t2": peer.EnergyBased(network, 2.0), "entropy": peer.Entropy(network),
        "gen": peer.GEN(network, 0.1, 10), "kl_matching": peer.KLMatching(network),
        "odin": peer.ODIN(network, eps=0.0014, temperature=1000.0),
        "react": peer.ReAct(maps, pooled, percentile=0.9),
        "dice": peer.DICE(network.features, weight, bias, 0.7),
        **{f"ash_{v}": peer.ASH(maps, pooled, f"ash-{v}", 0.65) for v in "psb"},
        "scale": peer.SCALE(maps, pooled, 0.65),
        "gradnorm": peer.GradNorm(network, param_filter=lambda name: name in ("fc.weight", "linear.weight")),
        "knn": peer.KNN(network.features, 50), "vim": peer.ViM(network.features, 16, weight, bias),
        "mahalanobis": peer.Mahalanobis(network.features), "relative_mahalanobis": peer.RMD(network.features),
    }


# ---- both ------------------------------------------------------------------------------------------------------------

class Counted:
    """Counts the forward passes of any network while it is active."""

    def __enter__(self) -> Counted:
        self.passes = 0
        self.hook = nn.modules.module.register_module_forward_hook(self._count)
        return self

    def _count(self, *_: object) -> None:
        self.passes += 1

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def compare(report: Report, network: str, train_images: int, test_images: int, repeats: int) -> None:
    """Print how many times faster ours is, cold and warm, once all AUROC agree."""
    warnings.simplefilter("ignore")
    model, options = NETWORKS[network]
    section = {"name": network, "model": model, "options": options}
    with tempfile.TemporaryDirectory() as temporary:
        data = Data(Path(temporary), train_images, test_images)
        torch.manual_seed(0)
        net = train(build(Network.of(**section), CLASSES), data)
        path = Path(temporary) / "network.pt"
        checkpoint.save(path, net, {"network": network, "classes": [str(c) for c in range(CLASSES)], "seed": 0,
                                    "history": []})
        for parameter in net.head.parameters():
            parameter.requires_grad_(True)  # their GradNorm takes gradients
        ours, theirs = Ours(data, section, path), Theirs(data, net)
        STAGES.clear()
        cold = common.turns({"theirs": theirs.cold, "ours": ours.cold}, repeats, warm=0)
        print("  ours, cold, mean seconds: " + ", ".join(f"{name} {seconds / repeats:.2f}" for name, seconds in
                                                       STAGES.items()), flush=True)
        disagreeing(ours.auroc(), theirs.auroc())
        warm = common.turns({"theirs": theirs.warm, "ours": ours.warm}, repeats, warm=0)
        with Counted() as counted:
            ours.score("energy_t2")
    size = f"{network}, {len(SCORES)} scores x {len(SETS)} sets"
    for what, times, target in (("cold", cold, COLD), ("both caches warm", warm, WARM)):
        report.add(Figure(f"{size}, {what}: times pytorch-ood", common.ratio(times, "theirs", "ours"), "", target,
                          n=repeats, more={side: common.median(times, side) for side in times}))
        print(f"      {common.median(times, 'theirs'):.1f} s, ours {common.median(times, 'ours'):.1f} s", flush=True)
    report.add(Figure(f"{size}: forward passes that one more score makes", counted.passes, "", 0, True))
    report.add(Figure(f"{size}: images in a batch of ours (theirs {BATCH})", batching.FIXED["cpu"]))


def disagreeing(ours: dict[tuple[str, str], float], theirs: dict[tuple[str, str], float]) -> None:
    """Raises ValueError where an AUROC of a score and a set differs by more than its definition allows."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"different scores or sets: {sorted(ours.keys() ^ theirs.keys())}")
    if all(value in (0.0, 1.0) for value in ours.values()):
        raise ValueError("every AUROC is 0 or 1: nothing is compared")
    off = {key: (ours[key], theirs[key]) for key in ours
           if not abs(ours[key] - theirs[key]) <= (0.02 if key[0] in LOOSE else 1e-3)}
    if off:
        raise ValueError(f"AUROC here and there differ: {off}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet-small")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    devices.pick("cpu", args.threads)
    torch.use_deterministic_algorithms(False)
    report = Report("scoring", "torch", "pytorch-ood")
    compare(report, args.network, args.train, args.test, args.repeats)
    report.write()


if __name__ == "__main__":
    main()
