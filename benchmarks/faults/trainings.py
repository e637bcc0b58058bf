"""Faults that hit a training: killed outright, told to stop, its progress spoilt."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.scene import Row, Scene, kill, wait_for

MODELS = "results/small/models"
# one training of each method of the default run; path below MODELS, without the seed
TRAININGS = {
    "cross-entropy": "digits/resnet-small/pretrain", "outlier exposure": "digits/resnet-small/oe",
    "energy outlier exposure": "digits/resnet-small/energy-oe", "G-OE": "digits/resnet-small/goe",
    "weight learning": "digits/resnet-small/weights", "background fine-tuning": "digits/resnet-small/random-10",
    "NPOS": "digits/resnet-small/npos", "CIDER": "digits/resnet-small/cider",
    "classifier with mixup": "digits_placed/bit-small/classifier", "dense training": "digits_placed/bit-small/dense",
}


class Training:
    """A training stage by its own command, and what it makes undisturbed."""

    def __init__(self, scene: Scene, path: str):
        self.scene = scene
        self.stem = f"{MODELS}/{path}/seed0"
        self.outputs = [f"{self.stem}.pt", f"{self.stem}.h5"]
        self.resume = scene.folder / f"{self.stem}.pt.resume"
        self.log = scene.folder / f"{self.stem.replace('/models/', '/logs/models/')}.log"
        self.command = scene.command(self.outputs[0])
        self.remove()
        self.seconds = scene.finish(self.command)
        self.expected = scene.hashes(*self.outputs)
        self.files = scene.names(str(Path(self.stem).parent))

    def remove(self) -> None:
        for path in self.outputs:
            (self.scene.folder / path).unlink(missing_ok=True)

    def after(self) -> tuple[list[str], bool]:
        """Run to the end; what is not as it should be, and whether kept progress was taken up."""
        self.scene.finish(self.command)
        left = self.scene.names(str(Path(self.stem).parent)) - self.files
        return (self.scene.other_than(self.expected) + [f"{path}: left over" for path in sorted(left)],
                "going on after epoch" in self.log.read_text())

    def halves(self) -> list[str]:
        """Declared outputs that stand there and are not whole."""
        return [f"{path}: half written" for path, found in self.scene.hashes(*self.outputs).items()
                if found not in ("missing", self.expected[path])]


def faults(scene: Scene, wanted: set[str], names: list[str], moments: int, seed: int) -> Iterator[Row]:
    """Rows of the trainings called ``names``."""
    for name in names:
        training = Training(scene, TRAININGS[name])
        chance = random.Random(f"{seed} {name}")
        if "kill" in wanted:
            yield killed(training, name, moments, chance)
        if "signal" in wanted:
            for number in (signal.SIGTERM, signal.SIGUSR1):
                yield told_to_stop(training, name, number, chance)
        if "resume" in wanted:
            yield spoilt(training, name)


def killed(training: Training, name: str, moments: int, chance: random.Random) -> Row:
    """kill -9 at random moments, from the start of the process to its end."""
    row = Row("kill -9", name)
    for _ in range(moments):
        training.remove()
        job = training.scene.start(training.command)
        time.sleep(chance.uniform(0.1, 0.95) * training.seconds)
        kill(job)
        problems = training.halves()
        found, continued = training.after()
        row.add(problems + found, continued)
    return row


def told_to_stop(training: Training, name: str, number: signal.Signals, chance: random.Random) -> Row:
    """A signal while it trains; it must end by itself, say so, and go on where it was."""
    row = Row(number.name, name)
    training.remove()
    job = training.scene.start(training.command)
    if wait_for(training.resume.exists, job):
        time.sleep(chance.uniform(0, 0.3) * training.seconds)
    status = kill(job, number)
    said = training.log.read_text()
    problems = training.halves()
    if f"stopped by {number.name}" in said and not status:
        problems.append("ended with status 0 though it was stopped")
    found, continued = training.after()
    row.add(problems + found, continued)
    return row


def spoilt(training: Training, name: str) -> Row:
    """Progress cut off in the middle of its file: said so, and begun anew."""
    row = Row("progress file truncated", name)
    training.remove()
    job = training.scene.start(training.command)
    there = wait_for(training.resume.exists, job)
    kill(job)
    if there and training.resume.exists():
        training.resume.write_bytes(training.resume.read_bytes()[:1000])
    problems, _ = training.after()
    if there and "cannot be read" not in training.log.read_text():
        problems.append("the broken progress was not named")
    row.add(problems)
    return row
