"""A training step of each paper, as the train stage does it and as a plain loop would: network, loss, batches, update.

Ours: images on the device as bytes, augmented there in batches, channels-last, freed memory kept. Plain: a DataLoader
over PIL images with torchvision's transforms, NCHW, eager, float32, glibc's own thresholds. Both have the same network
and the same code for the loss, so what a method gains within its loss is not counted here (benchmarks goe, npos,
resample).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from benchmarks.common import default_memory
from benchmarks.networks import FULL, SMALL, pixels
from workflow_scripts.core import plugins
from workflow_scripts.methods.base import Batch, EvalData, Method, Sizes
from workflow_scripts.methods.recipe import Recipe
from workflow_scripts.networks.load import in_bfloat16
from workflow_scripts.networks.memory import keep_freed_memory
from workflow_scripts.training.images import Images
from workflow_scripts.training.layout import channels_last
from workflow_scripts.training.loop import batches
from workflow_scripts.training.outliers import Outliers

EPOCH = 5  # NPOS's outliers are synthesised by then
STEPS = 390  # of an epoch
NORMALISE = {"mean": [0.5] * 3, "std": [0.25] * 3}
CROP_FLIP = ({"random_crop": 4}, {"horizontal_flip": 0.5})
VIEWS = ({"random_resized_crop": {"size": 32, "scale": [0.2, 1.0]}}, {"horizontal_flip": 0.5},
         {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8}},
         {"grayscale": 0.2})


@dataclass(frozen=True)
class Paper:
    """What a step of a paper's training is made of."""

    name: str
    network: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 128
    outliers: int = 0
    augment: tuple[dict[str, Any], ...] = CROP_FLIP
    views: int = 1
    stored: int = 32
    """Side of the stored images."""
    side: int = 32
    """Side of what the network sees."""
    masks: bool = False
    classes: int = 10

    def divided(self, by: int) -> Paper:
        """The same with smaller batches."""
        return replace(self, batch=max(self.batch // by, 8), outliers=self.outliers // by)

    @property
    def images(self) -> int:
        """Images of a step that go through the network and back, each view and outlier counted."""
        return self.batch * self.views + self.outliers


PAPERS = (
    Paper("himplos: DenseNet-BC-100-12, cross-entropy", "densenet100", "cross_entropy"),
    Paper("bgresample: WRN-40-4, weights of the background", "wrn40-4", "resample", {"snapshots": ()}, outliers=128),
    Paper("goe: WRN-40-2, G-OE", "wrn40-2", "goe", {"filter": "top", "k": 8}, outliers=256),
    Paper("npos: ResNet-18, NPOS", "resnet18", "npos", {"start": 0, "projection": 128}, batch=256, views=2,
          augment=VIEWS),
    Paper("dfb: BiT-R50x1 at 128x128, dense", "bit-r50x1", "dense", augment=(
        {"random_crop": {"size": 128}}, {"horizontal_flip": 0.5}), stored=160, side=128, masks=True),
)


def tiny(paper: Paper) -> Paper:
    """The paper's step at a size for tests."""
    paper = replace(paper, batch=16, outliers=16 if paper.outliers else 0)
    if paper.masks:
        crop = ({"random_crop": {"size": 32}}, {"horizontal_flip": 0.5})
        paper = replace(paper, stored=40, side=32, augment=crop)
    if paper.method == "npos":
        few = {"queue": 20, "K": 5, "select": 5, "sample_from": 10, "keep": 5, "projection": 16, "hidden": 8}
        paper = replace(paper, options=paper.options | few)
    return paper


class Step:
    """Steps of a paper's training with a network, a method and an optimiser of their own; subclasses give batches."""

    memory = torch.contiguous_format

    def __init__(self, paper: Paper, device: torch.device, networks: dict[str, Callable[[int], nn.Module]] = FULL,
                 count: int = 1024):
        torch.manual_seed(0)
        self.paper, self.device, self.count = paper, device, max(count, 4 * paper.batch)
        self.pixels, self.labels = pixels(self.count, paper.stored), torch.arange(self.count) % paper.classes
        self.pool = pixels(max(self.count, 4 * paper.outliers), seed=1) if paper.outliers else None
        self.maps = self.labels[:, None, None].expand(-1, paper.stored, paper.stored).contiguous() + 1
        self.maps[:, : paper.stored // 3] = 0
        background = plugins.spec("methods", paper.method).background
        self.network = networks[paper.network](paper.classes + background).to(device, memory_format=self.memory)
        if self.memory is torch.channels_last:
            channels_last(self.network)
        method = plugins.load("methods", paper.method)
        options = method.Options(**paper.options)
        self.method: Method = method.build(options, ())
        self.network.train()
        self.recipe = Recipe.of(
            training={"epochs": 500, "lr": 0.1, "batch_size": paper.batch, "drop_last": True,
                      "schedule": {"name": "constant"}},
            views=paper.views, masks=paper.masks, normalise=NORMALISE, augment=list(paper.augment),
            outliers={"batch_size": paper.outliers} if paper.outliers else None)
        self.method.check(self.recipe)
        self.method.setup(self.network, Sizes(0, 500, STEPS, self.count, device,
                                              len(self.pool) if paper.outliers else 0, paper.outliers))
        self.method.to(device)
        one = torch.zeros(2, 3, paper.side, paper.side, device=device).to(memory_format=self.memory)
        self.method.begin(self.network, EvalData(
            torch.arange(paper.classes, device=device).repeat_interleave(2000),
            lambda: iter([(one, self.labels[:2].to(device))]), lambda: iter(())))
        self.method.start_epoch(self.network, EPOCH)
        if paper.method == "npos":
            length = options.queue
            labels = torch.arange(paper.classes, device=device).repeat(length)
            rows = torch.rand(len(labels), self.network.head.in_features, generator=torch.Generator().manual_seed(2))
            self.method.queues.push(rows.to(device), labels)
        self.optimiser = torch.optim.SGD(self.method.parameter_groups(self.network), lr=1e-3, momentum=0.9)
        self.source = self.endless()

    def endless(self) -> Iterator[Batch]:
        raise NotImplementedError

    def prepare(self) -> None:
        """What holds for the process while this side works."""

    def loss(self, batch: Batch) -> Tensor:
        return self.method.loss(self.network, batch)[0]

    def run(self, batch: Batch | None = None) -> None:
        """A whole step, of the next batch or of this one."""
        self.prepare()
        batch = next(self.source) if batch is None else batch
        loss = self.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.method.after_step(self.network, batch)


class Ours(Step):
    """As the train stage; ``precision`` is `training.precision`."""

    memory = torch.channels_last

    def __init__(self, *given: Any, precision: str = "float32", **named: Any):
        super().__init__(*given, **named)
        if precision == "bfloat16":
            in_bfloat16(self.network)

    def endless(self) -> Iterator[Batch]:
        paper, where = self.paper, self.device
        data = Images(self.pixels.to(where), self.labels.to(where), self.maps.to(where) if paper.masks else None)
        outliers = None
        if paper.outliers:
            outliers = Outliers(self.pool.to(where), paper.outliers, "shuffled", 0, where, "random images")
        epoch = EPOCH
        while True:
            yield from batches(data, self.recipe, 0, epoch, outliers=outliers, order=self.method.order)
            epoch += 1

    def prepare(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()


class Plain(Step):
    """A DataLoader over PIL images."""

    def endless(self) -> Iterator[Batch]:
        paper = self.paper
        id_images = Pictures(self.pixels, self.labels, paper, self.maps if paper.masks else None)
        pool = Pictures(self.pool, torch.zeros(len(self.pool)), replace(paper, views=1)) if paper.outliers else None
        step = 0
        while True:
            beside = iter(DataLoader(pool, paper.outliers, shuffle=True, drop_last=True)) if paper.outliers else None
            for views, labels, index, masks in DataLoader(id_images, paper.batch, shuffle=True, drop_last=True):
                outliers = numbers = None
                if beside:
                    outliers, _, numbers, _ = next(beside)
                    outliers = outliers[0].to(self.device)
                views = [view.to(self.device) for view in views]
                yield Batch(views[0], labels.to(self.device), index.to(self.device), 0, EPOCH, step, outliers,
                            None if numbers is None else numbers.to(self.device), *views[1:],
                            masks=masks.to(self.device) if paper.masks else None)
                step += 1

    def prepare(self) -> None:
        if self.device.type == "cpu":
            default_memory()


class Pictures(Dataset):
    """PIL images with the paper's transforms: ([(3, H, W)] views, label, number, mask or 0)."""

    def __init__(self, images: Tensor, labels: Tensor, paper: Paper, masks: Tensor | None = None):
        self.images = [Image.fromarray(image.numpy()) for image in images]
        self.labels, self.paper, self.masks = labels, paper, masks
        end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**NORMALISE)]
        if paper.views > 1:
            begin = [v2.RandomResizedCrop(paper.side, (0.2, 1.0)), v2.RandomHorizontalFlip(),
                     v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), v2.RandomGrayscale(0.2)]
        else:
            begin = [v2.RandomCrop(paper.side, padding=4 if paper.side == paper.stored else None),
                     v2.RandomHorizontalFlip()]
        self.transform, self.end = v2.Compose([*begin, *end]), v2.Compose(end)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[list[Tensor], Tensor, int, Any]:
        if self.masks is None:
            return [self.transform(self.images[i]) for _ in range(self.paper.views)], self.labels[i], i, 0
        side = self.paper.side
        top, left = (int(torch.randint(0, self.paper.stored - side + 1, ())) for _ in range(2))
        image, mask = self.images[i].crop((left, top, left + side, top + side)), (
            self.masks[i, top:top + side, left:left + side])
        if torch.rand(()) < 0.5:
            image, mask = transforms.horizontal_flip(image), mask.flip(1)
        return [self.end(image)], self.labels[i], i, mask


def sides(paper: Paper, device: torch.device, small: bool = False, count: int = 1024, precision: str = "float32",
          ) -> dict[str, Step]:
    """Both sides of a paper, with the same weights."""
    networks = SMALL if small else FULL
    return {"plain": Plain(paper, device, networks, count),
            "ours": Ours(paper, device, networks, count, precision=precision)}
