"""ResNet-18 on CIFAR-10 by OpenOOD's recipe on one GPU, scored on near and far sets, beside the published row.

    python -m benchmarks.gpu_train --data FOLDER --minutes 6 [--out FOLDER]
    python -m benchmarks.gpu_train --data FOLDER --device cpu --small     # the same code path without a GPU

FOLDER: official files or mosaics, see benchmarks/gpu_data.py. Recipe (openood v1.5, BaseTrainer and BasePreprocessor):
100 epochs, batches of 128, SGD with lr 0.1, momentum 0.9, Nesterov, weight decay 5e-4 for all tensors, a cosine over
all steps down to 1e-6, crop of 32 from a black border of 4, flip. Other than there: bfloat16 before the head, the last
incomplete batch of an epoch dropped, the last weights in place of the best ones. Training as in benchmarks/gpu_step.py,
which says why; network, method, augmentation, schedule, scores and metrics are the project's. An epoch is timed first;
then as many whole trainings of 100 epochs run, one after another, as the time allows, or a single shorter one, which
the result says. Each seed is scored and written as soon as it is trained. Needs what benchmarks/gpu_check.py needs.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import gpu_data, gpu_step
from benchmarks import gpu_project as project
from benchmarks.gpu_check import about, command, device_of
from benchmarks.gpu_rows import MEASURED, Rows

EPOCHS = 100
NETWORK: dict[str, Any] = {}
TINY = {"blocks": (1, 1, 1, 1), "width": 8}
TRAIN = 50_000  # images of CIFAR-10's train set
PASS = 1000  # images of a forward pass
# OpenOOD v1.5's leaderboard, CIFAR-10, ResNet-18, 3 seeds: near and far AUROC, mean and standard deviation
PUBLISHED = {
    "msp": (88.03, 0.25, 90.73, 0.43), "temperature": (88.09, 0.31, 90.97, 0.52), "energy": (87.58, 0.46, 91.21, 0.92),
    "max_logit": (87.52, 0.47, 91.10, 0.89), "react": (87.11, 0.61, 90.42, 1.41), "dice": (78.34, 0.79, 84.23, 1.89),
    "ash": (75.27, 1.04, 78.49, 2.58), "scale": (82.55, 0.36, 86.39, 1.86), "knn": (90.64, 0.20, 92.96, 0.14),
    "vim": (88.68, 0.28, 93.48, 0.24), "mahalanobis": (84.20, 2.40, 89.72, 1.36),
    "relative_mahalanobis": (89.80, 0.28, 92.20, 0.21), "gradnorm": (54.90, 0.98, 57.55, 3.22),
    "kl_matching": (79.19, 0.80, 82.68, 0.21), "gen": (88.20, 0.30, 91.35, 0.69),
}
ACCURACY = (95.06, 0.30)
FIRST = ("msp", "knn", "energy", "vim", "relative_mahalanobis", "mahalanobis", "max_logit", "gen", "react")
LEFT_OUT = {"mcm"}  # of CLIP's text head
RESERVE, SCORING = 8.0, 25.0  # seconds at the end, and what scoring a seed is taken for before the first one


class Run:
    """The sets on the device, the step, and the rows of one run."""

    def __init__(self, rows: Rows, device: torch.device, data: Path, small: bool, compiled: bool):
        self.rows, self.device, self.small, self.compiled = rows, device, small, compiled
        self.options = TINY if small else NETWORK
        self.recipe = project.recipe(EPOCHS, 32 if small else 128, 0.1, floor=1e-5)
        self.sets: dict[str, Tensor] = {}
        self.labels: dict[str, Tensor] = {}
        for name in gpu_data.SETS:
            rows.run("data", name, lambda name=name: self.read(data, name), 0)
        self.scoring = SCORING
        self.done: list[dict[str, Any]] = []

    def read(self, folder: Path, name: str) -> dict[str, Any]:
        """A set onto the device."""
        found = gpu_data.load(folder, name)
        missing = {}
        if name == "cifar10_train":
            missing["note"] = f"{TRAIN - len(found.labels):,} of {TRAIN:,} are not there"
        if self.small:
            rows = np.unique(np.linspace(0, len(found.labels) - 1, 256 if name == "cifar10_train" else 60).astype(int))
            found = found.take(rows, f"{found.what}, thinned out for a test")
        self.sets[name] = torch.from_numpy(np.ascontiguousarray(found.pixels)).to(self.device)
        self.labels[name] = torch.from_numpy(found.labels).to(self.device)
        side = "ID" if name.startswith("cifar10_") else "near" if name in gpu_data.NEAR else "far"
        return {"images": len(found.labels), "side": side, "what": found.what, **missing}

    def network(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return project.model("resnet_cifar", 10, **self.options)

    def all(self) -> None:
        """As many trainings as fit."""
        for name in ("cifar10_train", "cifar10_test"):
            if name not in self.sets:
                raise SystemExit(f"{name} cannot be read; see the first rows of {self.rows.out / self.rows.name}.md")
        self.rows.run("training", "an epoch", self.prepare, 10)
        if self.rows.rows[-1]["status"] != MEASURED:
            raise SystemExit("the training step does not run; see the last row")
        epochs, seeds = self.plan()
        for seed in range(seeds):
            if seed and self.rows.left() < epochs * self.epoch * 1.02 + self.scoring + RESERVE:
                break
            row = self.rows.run("training", f"seed {seed}", lambda seed=seed: self.train(seed, epochs), 0,
                                stop=False)  # a finished training is worth a few seconds
            if row["status"] == MEASURED:
                self.score(seed)
                self.summarise(epochs)

    def step(self) -> tuple[gpu_step.FastStep, str]:
        """The step, compiled and recorded where that works, and what did not."""
        problems = []
        for compiled, graph in ((True, True), (False, True), (False, False)):
            if compiled and not self.compiled:
                continue
            fast = gpu_step.FastStep(self.network(0).to(self.device), self.recipe.training.batch_size,
                                     project.SGD, graph=graph, compiled=compiled)
            try:
                fast.record(0.25 * self.rows.left())
                launched = "recorded" if fast.graph is not None else "launched one by one"
                return fast, "; ".join([f"{'compiled, ' if compiled else ''}{launched}", *problems])
            except Exception as error:
                problems.append(f"compiled {compiled}, graph {graph}: {type(error).__name__}: {str(error)[:200]}")
        raise RuntimeError("; ".join(problems))

    def prepare(self) -> dict[str, Any]:
        """Make the step and time epochs."""
        started = time.perf_counter()
        self.fast, how = self.step()
        ready = time.perf_counter() - started
        given = self.fast, self.sets["cifar10_train"], self.labels["cifar10_train"], self.recipe, 0
        self.epoch = min(gpu_step.train(*given, EPOCHS, only=1) for _ in range(2))
        count = len(self.labels["cifar10_train"])
        return {"step": how, "ready after, s": ready, "epoch, s": self.epoch, "images/s": count / self.epoch}

    def plan(self) -> tuple[int, int]:
        """(epochs of a training, trainings): 100 where one fits, else fewer and one."""
        if self.small:
            return 1, 1
        left = self.rows.left() - RESERVE
        seeds = int(left / (EPOCHS * self.epoch * 1.02 + self.scoring))
        if seeds:
            return EPOCHS, seeds + 1  # the last one only if scoring turns out shorter
        return max(1, int((left - self.scoring) / self.epoch / 1.02)), 1

    def train(self, seed: int, epochs: int) -> dict[str, Any]:
        self.fast.restart(self.network(seed).to(self.device).state_dict())
        labels, started = self.labels["cifar10_train"], time.perf_counter()

        def report(epoch: int) -> None:
            if (epoch + 1) % 10 == 0:
                print(f"  seed {seed}: epoch {epoch + 1}/{epochs} launched, {time.perf_counter() - started:.1f} s",
                      flush=True)

        seconds = gpu_step.train(self.fast, self.sets["cifar10_train"], labels, self.recipe, seed, epochs,
                                 report=report)
        steps = len(labels) // len(self.fast.labels) * epochs
        loss = float(self.fast.total) / steps
        if not np.isfinite(loss):
            raise RuntimeError(f"the loss is {loss}")
        self.extract()
        found = self.logits["cifar10_test"].argmax(1) == self.labels["cifar10_test"]
        fitted = self.logits["cifar10_train"].argmax(1) == self.labels["cifar10_train"]
        accuracy = 100 * float(found.double().mean())
        self.done.append({"seed": seed, "accuracy": accuracy, "scores": {}})
        return {"epochs": epochs, "accuracy": accuracy, "published": "{} ± {}".format(*ACCURACY),
                "train images classified correctly": 100 * float(fitted.double().mean()), "mean loss": loss,
                "training, s": seconds, "images/s": steps * len(self.fast.labels) / seconds}

    @torch.inference_mode()
    def extract(self) -> None:
        """Features and logits of all sets in float32, from a frozen network of the trained weights."""
        network = self.network(0).to(self.device)
        network.load_state_dict(self.fast.network.state_dict())
        network.eval().fold_batchnorms()
        network.to(memory_format=torch.channels_last)
        self.head, self.norm = network.head, network.last_batchnorm
        self.features, self.logits = {}, {}
        for name, pixels in self.sets.items():
            parts = [network.features(project.normalise(part, self.recipe.normalise)) for part in pixels.split(PASS)]
            self.features[name] = torch.cat(parts)
            self.logits[name] = network.head(self.features[name])

    def score(self, seed: int) -> None:
        """Every score of this seed, one row each."""
        started = time.perf_counter()
        known = project.known_of(self.head, self.norm, self.features["cifar10_train"], self.logits["cifar10_train"],
                                 self.labels["cifar10_train"])
        names = [name for name in project.on_features() if name not in LEFT_OUT]
        for name in [*FIRST, *(name for name in names if name not in FIRST)]:
            self.rows.run(f"scores, seed {seed}", name, lambda name=name: self.measure(name, known), 1)
        self.scoring = time.perf_counter() - started + 3

    @torch.inference_mode()
    def measure(self, name: str, known: Any) -> dict[str, Any]:
        """AUROC and FPR95 in percent on each set, and their means over near and far sets."""
        run = project.fitted_scores(name, known)
        scores = {key: run(project.evidence.Batch(self.features[key], self.logits[key])).cpu().numpy()
                  for key in self.sets if key != "cifar10_train"}
        found: dict[str, Any] = {}
        for key in (*gpu_data.NEAR, *gpu_data.FAR):
            if key in scores:
                metrics = project.ood_metrics(scores["cifar10_test"], scores[key])
                found |= {f"{key} AUROC": 100 * metrics["auroc"], f"{key} FPR95": 100 * metrics["fpr95"]}
        for side, members in (("near", gpu_data.NEAR), ("far", gpu_data.FAR)):
            there = [key for key in members if key in scores]
            for metric in ("AUROC", "FPR95"):
                if there:
                    found[f"{side} {metric}"] = statistics.mean(found[f"{key} {metric}"] for key in there)
        self.done[-1]["scores"][name] = found
        return found

    def summarise(self, epochs: int) -> None:
        """Rows of the summary, first in the file: ours beside the published ones."""
        lines = [{"section": "summary", "name": "accuracy", "status": MEASURED, "seeds": len(self.done),
                  "epochs": epochs, "accuracy": spread([run["accuracy"] for run in self.done]),
                  "published accuracy": "{:.2f} ± {:.2f}".format(*ACCURACY)}]
        for name in dict.fromkeys(name for run in self.done for name in run["scores"]):
            runs = [run["scores"][name] for run in self.done if name in run["scores"]]
            line = {"section": "summary", "name": name, "status": MEASURED, "seeds": len(runs), "epochs": epochs}
            for side, at in (("near", 0), ("far", 2)):
                line[f"{side} AUROC"] = spread([run[f"{side} AUROC"] for run in runs if f"{side} AUROC" in run])
                if name in PUBLISHED:
                    line[f"published {side}"] = "{:.2f} ± {:.2f}".format(*PUBLISHED[name][at:at + 2])
            lines.append(line | {"near FPR95": spread([run["near FPR95"] for run in runs if "near FPR95" in run])})
        self.rows.rows = lines + [row for row in self.rows.rows if row["section"] != "summary"]
        self.rows.write()
        for line in lines:
            print("  " + ", ".join(f"{key} {value}" for key, value in line.items() if key not in ("section", "status")),
                  flush=True)


def spread(values: list[float]) -> str:
    """Mean, and with several seeds their standard deviation."""
    if not values:
        return ""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def main(argv: list[str] | None = None) -> int:
    parser = command("gpu_train", __doc__, 6.0, "a tiny network, few images, one epoch: a test")
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--compiled", action="store_true", help="give the network's pass to torch.compile")
    args = parser.parse_args(argv)
    device = device_of(args)
    notes = {"recipe": "OpenOOD v1.5, CIFAR-10, ResNet-18", "published far": "MNIST, SVHN, Textures and Places365 in "
             "full; here the sets of the table 'data'", "published": "leaderboard of OpenOOD v1.5, 3 seeds, best "
             "validation epoch"}
    rows = Rows("gpu_train", args.out, about(device, args.threads) | notes, args.minutes)
    Run(rows, device, args.data, args.small, args.compiled).all()
    print(f"{rows.count(MEASURED)} rows; {rows.out / rows.name}.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
