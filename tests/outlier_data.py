"""Numbered outliers, and the recipe that trains against them."""

from __future__ import annotations

import torch

CPU = torch.device("cpu")
RECIPE = {
    "normalise": {"mean": [0.0, 0.0, 0.0], "std": [1 / 255] * 3}, "augment": [], "method": "goe", "options": {},
    "training": {"epochs": 2, "batch_size": 16, "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4,
                 "drop_last": False, "schedule": {"name": "constant", "milestones": [], "gamma": 0.1, "floor": 0.0}},
    "outliers": {"batch_size": 8, "order": "shuffled"}, "validation": None, "keep": "last",
}


def numbered(count: int, size: int = 8) -> torch.Tensor:
    """Images whose every pixel is (number // 256, number % 256, 7)."""
    number = torch.arange(count)
    return torch.stack((number // 256, number % 256, torch.full_like(number, 7)), 1).byte()[:, None, None].expand(
        count, size, size, 3).contiguous()
