"""Divergence from uniform of a network's predictions on outliers, before it is trained against them.

    python -m workflow_scripts.stages.measure_distances --config JSON --checkpoint parent.pt --store outliers.h5
    --out distances.h5

Written: ``index`` (n,) int64 image numbers, ``kl`` (n,) float32, KL(uniform || softmax) in nats, ``log_msp`` (n,)
float32. Of more than :data:`MOST` images as many are looked at, evenly spread over the set.
"""

from __future__ import annotations

import h5py
import numpy as np
import torch

from workflow_scripts.core.errors import stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.augment import normalise
from workflow_scripts.data.images.store import streamed
from workflow_scripts.methods.background import divergence
from workflow_scripts.networks import devices
from workflow_scripts.networks.batching import batch_size
from workflow_scripts.networks.load import trained
from workflow_scripts.stages.sections.measure_distances import MeasureDistances

MOST = 100_000


@stage
@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    parser = stage_parser(__spec__, __doc__, MeasureDistances)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--store", required=True, help="store of the outliers")
    devices.add_arguments(parser)
    parser.add_argument("--out", required=True)
    args = parser.parse_args(argv)
    device = devices.pick(args.device, args.threads, args.tf32)
    section: MeasureDistances = args.config
    network = trained(section.network, args.checkpoint, device)
    with streamed(args.store) as store:
        count = len(store.labels)
        index = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(np.int64))
        found = []
        example = normalise(torch.from_numpy(store.photos()[:1]).to(device), section.normalise)
        size = batch_size(section.batch_size, network, example)
        for part in np.array_split(index, -(-len(index) // size)):
            pixels = torch.from_numpy(store.photos()[part]).to(device)
            logits = network(normalise(pixels, section.normalise))
            log_msp = logits.log_softmax(1).amax(1)
            found.append(torch.stack((divergence(logits, "uniform_kl"), log_msp)).float().cpu().numpy())
    kl, log_msp = np.concatenate(found, axis=1)
    with atomic(args.out) as partial, h5py.File(partial, "w") as file:
        for key, values in (("index", index), ("kl", kl), ("log_msp", log_msp)):
            file.create_dataset(key, data=values, track_times=False)
    print(f"{len(index):,} of {count:,} images, mean divergence {kl.mean():.4f} nats")


if __name__ == "__main__":
    main()
