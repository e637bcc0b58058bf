"""Select the best of several trained networks without test images: held-out ID train images against held-out outliers.

    python -m workflow_scripts.stages.select_best_recipe --config '{"network": {"name": "wrn40-2", "model":
        "wide_resnet", "options": {}}, "candidates": ["goe-k8", "goe-k20"], "by": "auroc", "normalise": "per_image",
        "validation": {"count": 5000, "seed": 0, "list": null}, "batch_size": 256}'
        --checkpoints goe-k8/seed0.pt goe-k20/seed0.pt --data DATA/cifar10.train.h5 --outliers DATA/pool.val.h5
        --csv choice.csv --out seed0.pt

G-OE's code of 2022 had such a script: the metrics of its test script, with the 5,000 held-out images of CIFAR as ID and
5,000 of Tiny Images as OOD. What its authors then looked at is not known; here ``by`` says it. The confidence is the
largest softmax probability, the images are not augmented, ID is positive. The checkpoint of the best is copied.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data.images.augment import normalise
from workflow_scripts.data.images.store import Rows, load_store
from workflow_scripts.metrics.confidence import id_metrics, predict
from workflow_scripts.metrics.ood import ood_metrics
from workflow_scripts.models.base import Classifier
from workflow_scripts.networks import devices
from workflow_scripts.networks.architecture import Pass
from workflow_scripts.networks.batching import batch_size
from workflow_scripts.networks.load import trained
from workflow_scripts.stages.sections.select_best_recipe import SelectBestRecipe
from workflow_scripts.training.validation import hold_out

HIGHER = {"auroc": True, "fpr95": False, "aupr_in": True, "aupr_out": True, "detection_error": False, "accuracy": True,
          "aurc": False}


@torch.inference_mode()
def logits(network: Classifier, images: np.ndarray | Rows, section: Pass, device: torch.device) -> np.ndarray:
    """Outputs of the network. images (N, H, W, 3) uint8 -> (N, K) float64.

    Raises:
        OODError: the network has diverged.
    """
    def inputs(start: int, count: int) -> Tensor:
        return normalise(torch.from_numpy(images[start:start + count]).to(device), section.normalise)

    size = batch_size(section.batch_size, network, inputs(0, 1))
    parts = [network(inputs(start, size)) for start in range(0, len(images), size)]
    found = torch.cat(parts).double().cpu().numpy()
    if not np.isfinite(found).all():
        raise OODError("the network's outputs are not finite; it has diverged")
    return found


def measure(id_logits: np.ndarray, labels: np.ndarray, ood_logits: np.ndarray) -> dict[str, float]:
    """Metrics of the ID task and of ID against outliers, by log MSP. logits (N, K), labels (N,), logits (M, K)."""
    confidences = [z.max(1) - np.logaddexp.reduce(z, axis=1) for z in (id_logits, ood_logits)]
    predicted, probability = predict(id_logits)
    return {**id_metrics(confidences[0], predicted == labels, probability), **ood_metrics(*confidences),
            "n_id": len(id_logits), "n_outliers": len(ood_logits)}


def best(rows: list[dict[str, Any]], by: str) -> int:
    """The row that is best by a metric; of equal ones the first."""
    return int(np.argmax([row[by] if HIGHER[by] else -row[by] for row in rows]))


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, SelectBestRecipe)
    parser.add_argument("--checkpoints", required=True, nargs="+", help="in the order of the candidates")
    parser.add_argument("--data", required=True, help="store of the ID train images, of which `validation` is held out")
    parser.add_argument("--outliers", required=True, help="store of held-out outliers")
    parser.add_argument("--csv", required=True, help="table to write: a row for each candidate")
    parser.add_argument("--out", required=True, help="the best one's checkpoint")
    devices.add_arguments(parser)
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    section: SelectBestRecipe = args.config
    if len(section.candidates) != len(args.checkpoints):
        raise OODError(f"--checkpoints: {len(section.candidates)} candidates need as many, found "
                       f"{len(args.checkpoints)}")
    device = devices.pick(args.device, args.threads, args.tf32)
    data, pool = load_store(args.data), load_store(args.outliers)
    held = hold_out(section.validation, len(data.labels))[1].numpy()
    if not len(held):
        raise OODError("--config validation: no ID train image is held out, so there is nothing to choose by")
    rows = []
    for name, path in zip(section.candidates, args.checkpoints, strict=True):
        network = trained(section.network, path, device)
        rows.append({"recipe": name, **measure(logits(network, data.photos()[held], section, device), data.labels[held],
                                               logits(network, pool.photos(), section, device))})
    chosen = best(rows, section.by)
    with atomic(args.csv) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*rows[0], "by", "chosen"], lineterminator="\n")
        table.writeheader()
        table.writerows({**row, "by": section.by, "chosen": int(i == chosen)} for i, row in enumerate(rows))
    with atomic(args.out) as partial:
        shutil.copyfile(args.checkpoints[chosen], partial)
    values = ", ".join(f"{row[section.by]:.4f}" for row in rows)
    print(f"chosen by {section.by}: {rows[chosen]['recipe']} (of {values})")


if __name__ == "__main__":
    main()
