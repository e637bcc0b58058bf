"""The table of HIMPLoS's CIFAR-100 network as its release makes it, beside ours: times as fast.

    python -m benchmarks.protocol [--divide 50] [--repeats 1] [--odin]

Theirs, written from the description of the released loop: for each score and each of six OOD sets, the ID test images
and those of the set pass through the network again, twice a batch of 200 (features, then logits); before that, the ID
train images pass once for the prototypes. Ours: the stages `extract_features`, `precompute_statistics`, `score_sets`
for each score and `compute_metrics`, with all their files. Images are in memory or in a store, so that no decoding
counts; both sides have the same threads. Scores: those of the release that are computed from features (MSP, Energy,
ReAct, DICE, DICE with ReAct, HIMPLoS); `--odin` adds ODIN, whose gradient passes both sides make. Sizes: 50,000 train
images, 10,000 test images of the ID set and of each OOD set, divided. The network is a random DenseNet-BC-100-12, which
takes as long as the released one. Target: 25 times.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import common
from benchmarks.common import Figure, Report
from benchmarks.networks import normalised, pixels
from workflow_scripts.networks import checkpoint, devices
from workflow_scripts.networks.architecture import Network
from workflow_scripts.networks.load import build
from workflow_scripts.stages import compute_metrics, extract_features, precompute_statistics, score_network, score_sets

TARGET = 25.0
CLASSES, BATCH = 100, 200
TRAIN, TEST, SETS = 50_000, 10_000, ("svhn", "lsun_c", "lsun_r", "isun", "textures", "places")
NORMALISE = {"mean": [0.5] * 3, "std": [0.25] * 3}
SECTION = {"name": "densenet", "model": "densenet_bc", "options": {}}
SCORES: dict[str, dict[str, Any]] = {"msp": {}, "energy": {}, "react": {"clip": 1.0}, "dice": {"p": 70.0},
                                     "dice_react": {"p": 70.0, "clip": 1.0}, "himplos": {}}


class Data:
    """The same images as stores and as network inputs."""

    def __init__(self, folder: Path, divide: int):
        self.folder = folder
        counts = {"id.train": TRAIN, "id.test": TEST, **{f"{name}.test": TEST for name in SETS}}
        self.inputs, self.labels = {}, {}
        for seed, (name, count) in enumerate(counts.items()):
            images = pixels(max(count // divide, CLASSES if name == "id.train" else 2), seed=seed)
            self.inputs[name], self.labels[name] = normalised(images), torch.arange(len(images)) % CLASSES
            with h5py.File(folder / f"{name}.h5", "w") as file:
                file["images"], file["labels"] = images.numpy(), self.labels[name].numpy()
                file["names"] = np.array([str(number).encode() for number in range(len(images))])
                file.attrs.update(dataset=name.split(".")[0], split=name.split(".")[1], definition="{}", sources="{}",
                                  classes=json.dumps([str(c) for c in range(CLASSES)]))

    @property
    def tests(self) -> list[str]:
        return [name for name in self.inputs if name != "id.train"]


class Released:
    """The released loop."""

    def __init__(self, data: Data, network: nn.Module, odin: bool):
        self.data, self.network, self.odin = data, network, odin

    @torch.no_grad()
    def run(self) -> dict[str, dict[str, Tensor]]:
        """Scores of every set, by score."""
        x, labels = self.data.inputs["id.train"], self.data.labels["id.train"]
        h = torch.cat([self.network.features(part) for part in x.split(BATCH)])
        means = torch.stack([h[labels == c].mean(0) for c in range(CLASSES)])
        weight, bias = self.network.head.weight, self.network.head.bias
        mask = weight >= weight.quantile(0.6, dim=1, keepdim=True)
        contribution = h.mean(0) * weight
        sparse = weight * (contribution > contribution.quantile(0.7))
        forms: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "msp": lambda h, z: z.softmax(1).amax(1), "energy": lambda h, z: z.logsumexp(1),
            "react": lambda h, z: (h.clip(max=1.0) @ weight.T + bias).logsumexp(1),
            "dice": lambda h, z: (h @ sparse.T + bias).logsumexp(1),
            "dice_react": lambda h, z: (h.clip(max=1.0) @ sparse.T + bias).logsumexp(1),
            "himplos": lambda h, z: self._himplos(h, z.argmax(1), mask, means)}
        return {name: self._scores(lambda part, form=form: form(self.network.features(part), self.network(part)))
                for name, form in forms.items()} | ({"odin": self._scores(self._odin)} if self.odin else {})

    def _scores(self, form: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Of the ID test images, again for each OOD set, and of the sets."""
        found = {}
        for name in SETS:
            for images in ("id.test", f"{name}.test"):
                found[images] = torch.cat([form(part) for part in self.data.inputs[images].split(BATCH)])
        return found

    def _himplos(self, h: Tensor, predicted: Tensor, mask: Tensor, means: Tensor) -> Tensor:
        z = (h * mask[predicted]).clip(max=1.6) @ self.network.head.weight.T + self.network.head.bias
        return (z * nn.functional.cosine_similarity(means[predicted], h)[:, None]).logsumexp(1)

    @torch.enable_grad()
    def _odin(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        z = self.network(x) / 1000.0
        nn.functional.cross_entropy(z, z.argmax(1), reduction="sum").backward()
        with torch.no_grad():
            return (self.network(x - 0.004 * x.grad.sign()) / 1000.0).softmax(1).amax(1)


class Ours:
    """The stages."""

    def __init__(self, data: Data, path: Path, odin: bool):
        self.data, self.path, self.odin, self.folder = data, path, odin, data.folder / "ours"
        self.folder.mkdir()

    def run(self) -> None:
        sets, folder, threads = ["id.train", *self.data.tests], self.folder, torch.get_num_threads()
        passed = {"network": SECTION, "normalise": NORMALISE, "batch_size": None}
        files = [folder / f"{name}.h5" for name in ("id.train", "id.test", "ood")]
        machine = ["--device", "cpu", "--threads", threads]
        quietly(extract_features.main, ["--config", json.dumps({**passed, "sets": sets}), "--checkpoint", self.path,
                                        "--stores", *(self.data.folder / f"{name}.h5" for name in sets), "--out",
                                        *files, "--head", folder / "head.h5", *machine])
        quietly(precompute_statistics.main, ["--train", files[0], "--out", folder / "s.h5"])
        for name, options in SCORES.items():
            config = {"score": name, "options": options}
            quietly(score_sets.main, ["--config", json.dumps(config), "--sets", *files[1:], "--train", files[0],
                                      "--head", folder / "head.h5", "--statistics", folder / "s.h5", "--out",
                                      folder / f"{name}.scores.h5"])
        if self.odin:
            config = {**passed, "score": "odin", "sets": self.data.tests}
            quietly(score_network.main, ["--config", json.dumps(config), "--checkpoint", self.path, "--stores",
                                         *(self.data.folder / f"{name}.h5" for name in self.data.tests), "--out",
                                         folder / "odin.scores.h5", *machine])
        config = {"id": "id.test", "groups": {"far": [f"{name}.test" for name in SETS]}}
        quietly(compute_metrics.main, ["--config", json.dumps(config), "--scores", *sorted(folder.glob("*.scores.h5")),
                                       "--id-features", files[1], "--out", folder / "metrics.csv"])


def quietly(main: Callable[[list[str]], None], arguments: list[Any]) -> None:
    """A stage in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        main([str(argument) for argument in arguments])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.protocol", description=__doc__.splitlines()[0])
    parser.add_argument("--divide", type=int, default=50, help="of the images, one in so many")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--odin", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    devices.pick("cpu", args.threads)
    report = Report("protocol", "torch")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = Data(folder, args.divide)
        torch.manual_seed(0)
        network = build(Network.of(**SECTION), CLASSES).eval().requires_grad_(False)
        path = folder / "network.pt"
        checkpoint.save(path, network, {"network": "densenet", "classes": [str(c) for c in range(CLASSES)], "seed": 0,
                                        "history": []})
        ours, theirs = Ours(data, path, args.odin), Released(data, network, args.odin)
        times = common.turns({"theirs": theirs.run, "ours": ours.run}, args.repeats, warm=0)
    scores = len(SCORES) + args.odin
    report.add(Figure(f"{scores} scores x {len(SETS)} sets and prototypes, 1/{args.divide} of the images: times the "
                      "releases' protocol", common.ratio(times, "theirs", "ours"), "", None if args.odin else TARGET,
                      n=args.repeats, more={side: common.median(times, side) for side in times}))
    print(f"      {common.median(times, 'theirs'):.1f} s, ours {common.median(times, 'ours'):.1f} s", flush=True)
    report.write()


if __name__ == "__main__":
    main()
