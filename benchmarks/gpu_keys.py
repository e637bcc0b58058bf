"""What each key that speeds a training up does on this device: the training loop with it, against the loop without."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks import gpu_project as project
from benchmarks.gpu_rows import within
from benchmarks.gpu_speed import COMPILING, Case, Speeds

# (what is written in a configuration, the loop's own words); the first row is what the others are compared with
KEYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("the defaults", {}),
    ("fused: false", {"fused": False}),
    ("training.precision: bfloat16", {"precision": "bfloat16"}),
    ("compile: kernels", {"compiling": "kernels"}),
    ("compile: graphs", {"compiling": "graphs"}),
    ("training.precision: bfloat16, compile: kernels", {"precision": "bfloat16", "compiling": "kernels"}),
    ("training.precision: bfloat16, compile: graphs", {"precision": "bfloat16", "compiling": "graphs"}),
)
SHORT, CROP, HELD = 256, 224, 512  # ImageNet's shorter side, its crop, and images of which crops are taken


def all_keys(speeds: Speeds, case: Case) -> None:
    """A row for each key; CUDA graphs on a GPU alone."""
    plain: dict[str, float] = {}

    def row(words: dict[str, Any]) -> dict[str, Any]:
        with within(speeds.rows.left() - 5 if "compiling" not in words else COMPILING, "the loop"):
            found = speeds.loop(case, **words)
        plain.setdefault("images/s", found["images/s"])
        if "compiling" in words:
            found["backend"] = "inductor" if speeds.device.type == "cuda" else "eager: traced, not compiled"
        return found | {"times the defaults": found["images/s"] / plain["images/s"]}

    for name, words in KEYS:
        if words.get("compiling") != "graphs" or speeds.device.type == "cuda":
            needs = 30.0 if "compiling" in words else 8.0
            speeds.rows.run("keys", name, lambda words=words: row(words), 1 if speeds.small else needs)
    speeds.rows.run("keys", f"resident: short{SHORT}, its crops alone", lambda: crops(speeds), 5)


def crops(speeds: Speeds) -> dict[str, Any]:
    """Random resized crops of images that lie on the device with their long side: made, mirrored and normalised."""
    side, size, held = (32, 28, 16) if speeds.small else (SHORT, CROP, HELD)
    batch = 8 if speeds.small else 256
    width = torch.arange(held) % side + side
    first = (width * side).cumsum(0) - width * side
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (int((width * side).sum()), 3), dtype=torch.uint8, generator=generator)
    images = project.LongSide(*(x.to(speeds.device) for x in (pixels, first, width, torch.full_like(width, side))),
                              side, speeds.device)
    window = project.changes.ResizedWindow(size=size, scale=(0.4, 1.0))
    steps: list[project.changes.Step] = [project.changes.RandomResizedCrop(random_resized_crop=window),
                                         project.changes.HorizontalFlip(horizontal_flip=0.5)]
    index = (torch.arange(batch) % held).to(speeds.device)

    def made() -> None:
        project.normalise(project.augment(images[index], steps, 0, 0, index), project.CIFAR10)

    speeds.forget()
    return {"batch": batch, "images/s": batch / speeds.timed(made), "side": size}
