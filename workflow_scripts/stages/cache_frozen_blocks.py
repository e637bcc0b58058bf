"""Pass a store's images through a network's frozen blocks once: store -> float16 tokens, on which its tail is trained.

    python -m workflow_scripts.stages.cache_frozen_blocks --config JSON --checkpoint seed0.pt --store imagenet.train.h5
    --out x.h5

``tokens`` (N, tokens, width) lie in one piece, so that any row is read without the others; ViT-B/16: 0.3 MB an image.
The size is printed before anything is computed, and a disk without that much room is an error.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import h5py
import numpy as np
import torch

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.store import streamed
from workflow_scripts.models.base import WithFrozenBlocks
from workflow_scripts.networks import devices
from workflow_scripts.networks.forward import images_at_once, inputs
from workflow_scripts.networks.load import trained
from workflow_scripts.stages.sections.cache_frozen_blocks import CacheFrozenBlocks


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, CacheFrozenBlocks)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--store", required=True)
    devices.add_arguments(parser)
    parser.add_argument("--out", required=True)
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    device = devices.pick(args.device, args.threads, args.tf32)
    section: CacheFrozenBlocks = args.config
    network = trained(section.network, args.checkpoint, device)
    if not isinstance(network, WithFrozenBlocks):
        raise OODError(f"network '{section.network.name}' has no frozen blocks (model clip_vit has); take "
                       "`frozen_blocks` out of the recipe")
    with streamed(args.store) as store:
        shape = (len(store.labels), *network.token_shape)
        room = 2 * int(np.prod(shape, dtype=np.int64))
        print(f"{args.out}: {shape[0]:,} images of {shape[1]} x {shape[2]} float16 take {room / 1e9:.2f} GB",
              flush=True)
        free = shutil.disk_usage(Path(args.out).resolve().parent).free
        if room > free:
            raise OODError(f"{args.out}: {room / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; make room, or "
                           "move results/ to a larger disk")
        with atomic(args.out) as partial, h5py.File(partial, "w") as file, torch.inference_mode():
            tokens = file.create_dataset("tokens", shape, np.float16, track_times=False)
            size = images_at_once(section, network, store, device)
            for start, x in inputs(store, section.normalise, size, device):
                found = network.frozen_blocks(x).half()
                if not found.isfinite().all():
                    raise OODError(f"{args.store}: the frozen blocks' output for images {start}..{start + len(x) - 1} "
                                   "is not finite or beyond float16; the weights are damaged or of another model")
                tokens[start:start + len(x)] = found.cpu().numpy()


if __name__ == "__main__":
    main()
