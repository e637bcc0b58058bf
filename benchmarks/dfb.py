"""Pseudo-masks: images per second in batches against one image at a time, and the size of a file of 50,000 of them.

    python -m benchmarks.dfb [--size R50x1] [--threads 2] [--device cpu|cuda] [--images 32] [--loop 4] [--repeats 3]

Both pass the same network over 128x128 images at four scales with mirror images and end in a pseudo-mask. The loop
takes an image at a time, makes the maps of all classes, as the release does, and filters with scipy; the stage takes a
batch, keeps one class, and standardises the weights once. Medians over interleaved repeats. Target: 2.5 on two cores, 5
on a GPU. The file holds the maps of random smooth activations, which have longer outlines than an object's; target:
50 MB.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.cams.files import create_masks
from workflow_scripts.cams.maps import SCALES, activation_maps
from workflow_scripts.cams.masks import foreground, pseudo_masks
from workflow_scripts.models import bit
from workflow_scripts.networks import devices

CLASSES, SIDE, MAPS = 100, 128, 50_000


@torch.inference_mode()
def one_by_one(network: nn.Module, x: Tensor) -> np.ndarray:
    """(N, 3, H, W) -> (N, H, W) labels."""
    labels = []
    for image in x:
        total = torch.zeros(CLASSES, SIDE, SIDE, device=x.device)
        for scale in SCALES:
            pair = torch.stack((image, image.flip(2)))
            if scale != 1:
                pair = functional.interpolate(pair, scale_factor=scale, mode="bicubic", align_corners=False)
            maps = network.dense(pair).relu_()
            if scale == 1:
                chosen = int(maps[0].mean((1, 2)).argmax())
            both = (maps[0] + maps[1].flip(2))[None]
            total += functional.interpolate(both, (SIDE, SIDE), mode="bilinear", align_corners=False)[0]
        cam = total[chosen].cpu().numpy()
        cam = ndimage.gaussian_filter(cam / (cam.max() + 1e-5), 4)
        cam -= cam.min()
        labels.append((cam / (cam.max() or 1) > 0.5) * (chosen + 1))
    return np.stack(labels)


def in_batches(network: nn.Module, x: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, H, W) labels."""
    cams, classes = activation_maps(network, x)
    return pseudo_masks(foreground(cams), classes).cpu()


def megabytes() -> float:
    """Size of a file of :data:`MAPS` pseudo-masks; 2,000 are written 25 times."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2000, 1, 4, 4, generator=generator)
    cams = functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    labels = torch.randint(0, CLASSES, (2000,), generator=generator)
    masks = pseudo_masks(foreground(cams), labels).numpy().astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.h5"
        with h5py.File(path, "w") as file:
            data = create_masks(file, MAPS, SIDE, SIDE, CLASSES)
            for start in range(0, MAPS, len(masks)):
                data[start:start + len(masks)] = masks
        return path.stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dfb", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(bit.SIZES), default="R50x1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    parser.add_argument("--images", type=int, default=32, help="of a batch")
    parser.add_argument("--loop", type=int, default=4, help="images of the loop in a repeat")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = devices.pick(args.device, args.threads)
    target = 5 if device.type == "cuda" else 2.5
    torch.manual_seed(0)
    network = bit.build(bit.Options(size=args.size), CLASSES)
    nn.init.normal_(network.fc.weight, std=0.03)
    frozen = bit.build(bit.Options(size=args.size), CLASSES)
    frozen.load_state_dict(network.state_dict())
    frozen.fold_batchnorms()
    network, frozen = (n.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
                       for n in (network, frozen))
    x = torch.randn(args.images, 3, SIDE, SIDE).to(device, memory_format=torch.channels_last)
    agree = float((torch.from_numpy(one_by_one(network, x[:2])) == in_batches(frozen, x[:2])).float().mean())
    times: dict[str, list[float]] = {"loop": [], "batch": []}
    for repeat in range(args.repeats + 1):
        for name, run, images in (("loop", lambda: one_by_one(network, x[:args.loop]), args.loop),
                                  ("batch", lambda: in_batches(frozen, x), args.images)):
            started = time.perf_counter()
            run()
            times[name] += [(time.perf_counter() - started) / images] if repeat else []
    speed = {name: 1 / statistics.median(values) for name, values in times.items()}
    on = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} thread(s)"
    print(f"BiT {args.size} on {on}, torch {torch.__version__}, float32; medians, n = {args.repeats}; share of labels "
          f"in which both agree: {agree:.4f}")
    print(f"  one image at a time {speed['loop']:8.2f} images/s")
    print(f"  batches of {args.images:<8d} {speed['batch']:8.2f} images/s")
    ratio, size = speed["batch"] / speed["loop"], megabytes()
    print(f"  ratio {ratio:.2f}  target {target}: {'reached' if ratio >= target else 'not reached'}")
    print(f"  {MAPS:,} pseudo-masks of {SIDE}x{SIDE}: {size:.1f} MB  target 50: "
          f"{'reached' if size < 50 else 'not reached'}")


if __name__ == "__main__":
    main()
