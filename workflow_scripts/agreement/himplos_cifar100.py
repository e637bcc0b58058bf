"""HIMPLoS and DICE on CIFAR-100: the network that both release, and what their code gives for it.

The released functions were run once, in double precision, on two images that need no file: sin(k / 100) for k = 0..6143
as (2, 3, 32, 32), not normalised. The prototypes are the positive part of the head's rows, so that no train image is
needed. Test images come in the official order; the mean features are DICE's, of the train images.
"""

from __future__ import annotations

import numpy as np
import torch

from workflow_scripts.agreement.base import Given, densenet, inputs, labelled, logits, pixels
from workflow_scripts.agreement.dice_cifar10 import MEAN, STD, compared
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import CheckSpec
from workflow_scripts.data.readers import cifar_binary
from workflow_scripts.models.densenet_bc import DenseNet
from workflow_scripts.scores import energy, himplos
from workflow_scripts.scores.base import Batch, Head, Known, Statistics

SPEC = CheckSpec(files={"network", "test", "means", "train"})

CLASSES = 100
VARIANTS = {"HIMPLoS": himplos.Options(p=60, clip=1.6),
            "mask and clip": himplos.Options(p=60, clip=1.6, cosine=False),
            "smoothing alone": himplos.Options(p=0, clip=float("inf"))}


def waves(net: DenseNet) -> dict[str, float]:
    """What the released functions gave for the two sine images.

    Args:
        net: in double precision, its batch norms apart.
    """
    x = torch.sin(torch.arange(2 * 3 * 32 * 32, dtype=torch.float64) / 100).reshape(2, 3, 32, 32)
    with torch.inference_mode():
        h = net.features(x)
        z = net.head(h).numpy()
    head = Head(net.head.weight.numpy(), net.head.bias.numpy())
    prototypes = head.weight.clip(min=0)
    known = Known(head=head, statistics=Statistics(prototypes, np.ones(CLASSES), prototypes.mean(0)))
    batch = Batch(features=h.numpy(), logits=z)
    found = {"predicted class": z.argmax(1), "largest logit": z.max(1), "sum of the features": h.sum(1).numpy(),
             "Energy": energy.score(energy.Options(), known, None, batch),
             "cosine to the prototype": himplos.cosines(prototypes, z.argmax(1), batch.features)}
    for name, options in VARIANTS.items():
        found[name] = himplos.score(options, known, himplos.fit(options, known), batch)
    return {f"sine image {i + 1}, {name}": float(values[i]) for i in (0, 1) for name, values in found.items()}


def compute(given: Given) -> dict[str, float]:
    """The sine images, the test error, and the mean features where the train images are there."""
    path = given.file("network")
    found = waves(densenet(path, CLASSES, folded=False).double())
    files = cifar_binary.Options(files=str(given.file("test")), members="test.bin", records="cifar100")
    images = cifar_binary.read(files, None)
    if len(images) != 10_000:
        raise OODError(f"{given.file('test')}: {len(images):,} images, expected CIFAR-100's 10,000 test images")
    net, index = densenet(path, CLASSES), given.chosen(len(images))
    z = logits(net, inputs(pixels(images, index), MEAN, STD))
    wrong = labelled(z.argmax(1).numpy() != images.labels[index], given.file("test"))
    found["test error"] = 100 * float(wrong.mean())
    if "train" in given.files:
        files = cifar_binary.Options(files=str(given.file("train")), members="train.bin", records="cifar100")
        found |= compared(given, net, cifar_binary.read(files, None))
    return found
