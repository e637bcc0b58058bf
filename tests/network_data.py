"""Image stores and a small checkpoint for the stages that run a network."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import torch

from workflow_scripts.models import resnet_cifar
from workflow_scripts.networks import checkpoint

SECTION = {"name": "tiny", "model": "resnet_cifar", "options": {"blocks": [1, 1, 1, 1], "width": 4}}
CLASSES = 3
CONFIG = {"network": SECTION, "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}, "batch_size": 16}


def images(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes told apart by the row that is bright: (N, 16, 16, 3) uint8, (N,) int64."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = rng.integers(0, 60, (count, 16, 16, 3), dtype=np.uint8)
    for c in range(CLASSES):
        pixels[labels == c, 2 + 5 * c:4 + 5 * c] += 150
    return pixels, labels


def write_store(path: Path, labels: np.ndarray, classes: int = CLASSES, **pixels: np.ndarray) -> Path:
    """A store of ``images`` or ``inputs``."""
    with h5py.File(path, "w") as file:
        for key, values in pixels.items():
            file[key] = values
        file["labels"] = np.asarray(labels, np.int64)
        file["names"] = np.array([str(i).encode() for i in range(len(labels))])
        dataset, split, _ = path.name.split(".")
        file.attrs.update(dataset=dataset, split=split, definition="{}", sources="{}",
                          classes=json.dumps([f"class {c}" for c in range(classes)]))
    return path


def network() -> torch.nn.Module:
    """Random weights, batch norms that have seen images, eval mode."""
    torch.manual_seed(0)
    net = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), CLASSES)
    x = torch.from_numpy(images(90)[0]).permute(0, 3, 1, 2) / 63.75 - 2
    for _ in range(20):
        net(x)
    return net.eval().requires_grad_(False)


def write_all(folder: Path) -> torch.nn.Module:
    """Checkpoint, ID train and test stores, and a noise store of network inputs. -> the network."""
    net = network()
    checkpoint.save(folder / "seed0.pt", net, {
        "network": "tiny", "classes": ["class 0", "class 1", "class 2"], "seed": 0, "history": []})
    for split, count, seed in (("train", 300, 1), ("test", 40, 2)):
        pixels, labels = images(count, seed)
        write_store(folder / f"rows.{split}.h5", labels, images=pixels)
    noise = np.random.default_rng(3).normal(0, 1, (30, 3, 16, 16)).astype(np.float32)
    write_store(folder / "noise.test.h5", np.full(30, -1), 0, inputs=noise)
    return net


def saved(path: Path, content: object, **more: object) -> Path:
    """The file of ``torch.save``."""
    torch.save(content, path, **more)
    return path
