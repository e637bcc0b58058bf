"""Divergence from uniform of a network's predictions on outliers, before it is trained against them.

    python -m workflow_scripts.stages.measure_distances --config JSON --checkpoint parent.pt --store outliers.h5
    --out distances.h5

Written: ``index`` (n,) int64 image numbers, ``kl`` (n,) float32, KL(uniform || softmax) in nats, ``log_msp`` (n,)
float32. Of more than :data:`MOST` images as many are looked at, evenly spread over the set.
"""

from __future__ import annotations

import json

import h5py
import numpy as np
import torch

from workflow_scripts.core.errors import command, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.data.images.augment import normalise
from workflow_scripts.data.images.store import streamed
from workflow_scripts.methods.background import divergence
from workflow_scripts.networks import device
from workflow_scripts.networks.batching import batch_size
from workflow_scripts.networks.load import trained

MOST = 100_000


@stage
@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    parser = command(__spec__, __doc__)
    parser.add_argument("--config", required=True, type=json.loads, metavar="JSON",
                        help="network, normalise and batch_size, as the workflow prints them")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--store", required=True, help="store of the outliers")
    parser.add_argument("--device", default="auto", choices=device.NAMES)
    parser.add_argument("--tf32", action="store_true", help=device.TF32)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--out", required=True)
    args = parser.parse_args(argv)
    where = device.pick(args.device, args.threads, args.tf32)
    network = trained(args.config["network"], args.checkpoint, where)
    with streamed(args.store) as store:
        count = len(store.labels)
        index = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(np.int64))
        found = []
        example = normalise(torch.from_numpy(store.images[:1]).to(where), args.config["normalise"])
        size = batch_size(args.config["batch_size"], network, example)
        for part in np.array_split(index, -(-len(index) // size)):
            pixels = torch.from_numpy(store.images[part]).to(where)
            logits = network(normalise(pixels, args.config["normalise"]))
            log_msp = logits.log_softmax(1).amax(1)
            found.append(torch.stack((divergence(logits, "uniform_kl"), log_msp)).float().cpu().numpy())
    kl, log_msp = np.concatenate(found, axis=1)
    with atomic(args.out) as partial, h5py.File(partial, "w") as file:
        for key, values in (("index", index), ("kl", kl), ("log_msp", log_msp)):
            file.create_dataset(key, data=values, track_times=False)
    print(f"{len(index):,} of {count:,} images, mean divergence {kl.mean():.4f} nats")


if __name__ == "__main__":
    main()
