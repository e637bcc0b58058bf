"""Pass a store's images through a network's frozen trunk once: store -> float16 tokens, from which its tail is trained.

    python -m workflow_scripts.stages.cache_trunk --config JSON --checkpoint seed0.pt --store imagenet.train.h5 --out
    x.h5

``tokens`` (N, tokens, width) lie in one piece, so that any row is read without the others; ViT-B/16: 0.3 MB an image.
The size is printed before anything is computed, and a disk without that much room is an error.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import torch

from workflow_scripts.core.errors import OODError, command, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.data.images.store import streamed
from workflow_scripts.networks import device
from workflow_scripts.networks.load import trained
from workflow_scripts.stages.extract_features import inputs, sized


def arguments() -> argparse.ArgumentParser:
    parser = command(__spec__, __doc__)
    parser.add_argument("--config", required=True, type=json.loads, metavar="JSON",
                        help="network, normalise, batch_size, as the workflow prints them")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--device", default="auto", choices=device.NAMES)
    parser.add_argument("--tf32", action="store_true", help=device.TF32)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--out", required=True)
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    where = device.pick(args.device, args.threads, args.tf32)
    network = trained(args.config["network"], args.checkpoint, where)
    if not hasattr(network, "trunk"):
        raise OODError(f"network '{args.config['network']['name']}' has no frozen trunk (model clip_vit has one); take "
                       "`trunk` out of the recipe")
    with streamed(args.store) as store:
        shape = (len(store.labels), *network.token_shape)
        size = 2 * int(np.prod(shape, dtype=np.int64))
        print(f"{args.out}: {shape[0]:,} images of {shape[1]} x {shape[2]} float16 take {size / 1e9:.2f} GB",
              flush=True)
        free = shutil.disk_usage(Path(args.out).resolve().parent).free
        if size > free:
            raise OODError(f"{args.out}: {size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; make room, or "
                           "move results/ to a larger disk")
        with atomic(args.out) as partial, h5py.File(partial, "w") as file, torch.inference_mode():
            tokens = file.create_dataset("tokens", shape, np.float16, track_times=False)
            for start, x in inputs(store, sized(args.config, network, store, where), where):
                found = network.trunk(x).half()
                if not found.isfinite().all():
                    raise OODError(f"{args.store}: the trunk's output for images {start}..{start + len(x) - 1} is not "
                                   "finite or beyond float16; the weights are damaged or of another model")
                tokens[start:start + len(x)] = found.cpu().numpy()


if __name__ == "__main__":
    main()
