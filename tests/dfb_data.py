"""BiT weights by the recipe of the golden vectors, and small stores with pseudo-masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def bit_arrays(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The 153 arrays of an ``.npz`` of BiT-R50x1 with 11 classes, from a seed."""
    rng = np.random.RandomState(int(golden["bit_randomstate_seed"]))
    shapes = {str(n): tuple(int(s) for s in shape if s) for n, shape in
              zip(golden["bit_names"], golden["bit_shapes"], strict=True)}
    arrays = {}
    for name in sorted(shapes):
        a = rng.standard_normal(shapes[name])
        if name.endswith("gamma"):
            a = 1 + 0.2 * a
        else:
            a *= 0.1 if name.endswith(("beta", "bias")) else 0.03 if "/head/" in name else 0.05
        arrays[name] = a.astype(np.float32)
    return arrays


def forward(arrays: dict[str, np.ndarray], x: Tensor) -> tuple[Tensor, Tensor]:
    """BiT-R50x1 written from its description alone, in the arrays' own names and layout. -> features, logits."""
    w = {name: torch.from_numpy(a).to(x) for name, a in arrays.items()}

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = w[f"{name}/standardized_conv2d/kernel"].permute(3, 2, 0, 1)
        variance, mean = torch.var_mean(kernel, (1, 2, 3), correction=0, keepdim=True)
        return functional.conv2d(x, (kernel - mean) / (variance + 1e-10).sqrt(), None, stride, kernel.shape[-1] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        groups = x.reshape(len(x), 32, -1)
        variance, mean = torch.var_mean(groups, 2, correction=0, keepdim=True)
        x = ((groups - mean) / (variance + 1e-5).sqrt()).view_as(x)
        gamma, beta = (w[f"{name}/group_norm/{part}"][:, None, None] for part in ("gamma", "beta"))
        return (x * gamma + beta).clamp_min(0)

    x = conv(x, "resnet/root_block", 2)
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    for block, units in enumerate((3, 4, 6, 3), 1):
        for unit in range(1, units + 1):
            place = f"resnet/block{block}/unit{unit:02d}"
            stride = 2 if unit == 1 and block > 1 else 1
            active = norm(x, f"{place}/a")
            shortcut = conv(active, f"{place}/a/proj", stride) if unit == 1 else x
            out = norm(conv(active, f"{place}/a"), f"{place}/b")
            x = conv(norm(conv(out, f"{place}/b", stride), f"{place}/c"), f"{place}/c") + shortcut
    features = norm(x, "resnet").mean((2, 3))
    return features, features @ w["resnet/head/conv2d/kernel"][0, 0] + w["resnet/head/conv2d/bias"]
