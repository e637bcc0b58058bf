"""A user's folder outside the repository: network, weights, images, and the scores of another tool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

NET = '''
from torch import nn

from blocks import squeeze


class Net(nn.Module):
    """Two convolutions and two linear layers; a `view` needs the usual memory format."""

    def __init__(self, width, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.Conv2d(width, width, 3, 2), nn.ReLU())
        self.mix = nn.Linear(width * 49, 24)
        self.last = nn.Linear(24, num_classes)

    def forward(self, x):
        x = self.body(x)
        return self.last(squeeze(self.mix(x.view(len(x), -1))))


def make(width=8, num_classes=8):
    return Net(width, num_classes)
'''
BLOCKS = "from torch.nn.functional import relu\n\n\ndef squeeze(x):\n    return relu(x)\n"


def network(folder: Path) -> torch.nn.Module:
    """The module of NET's file, with weights of a seed, in eval mode."""
    scope: dict = {"__name__": "net"}
    exec(BLOCKS, scope)
    exec(NET.replace("from blocks import squeeze", ""), scope)
    torch.manual_seed(3)
    return scope["make"]().eval()


def write_images(folder: Path, sides: tuple[int, ...] = (20, 28, 36), count: int = 6) -> None:
    """PNG images of several sizes in two class folders."""
    random = np.random.RandomState(5)
    for name in ("owl", "ape"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            side = sides[i % len(sides)]
            pixels = random.randint(0, 256, (side, side + 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def write_theirs(folder: Path, n_id: int, n_ood: int, name: str = "theirs.npz") -> tuple[np.ndarray, np.ndarray]:
    """Scores of another tool, higher = more OOD; -> those of ID and OOD images."""
    random = np.random.RandomState(7)
    id_scores, ood_scores = random.normal(0, 1, n_id), random.normal(1, 1, n_ood)
    np.savez(folder / name, id=id_scores, ood=ood_scores)
    return id_scores, ood_scores


def write_all(folder: Path) -> None:
    """What the examples of docs/own.md take for granted."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(NET)
    (folder / "blocks.py").write_text(BLOCKS)
    torch.save(network(folder).state_dict(), folder / "weights.pt")
    write_images(folder / "photos")
    random = np.random.RandomState(6)
    np.savez(folder / "grey.npz", images=random.randint(0, 256, (12, 16, 16), dtype=np.uint8))
    write_theirs(folder, 443, 100)
