"""Mahalanobis distances of several layers at a perturbed input, combined by a logistic regression.

Lee et al., NeurIPS 2018, section 2.2. For each stage l of the network, with h the spatial mean of its output, class
means mu_c and one covariance S over the ID train images:

- c = the nearest class; x' = x - m * sign(grad_x d^2(h(x), mu_c)), sign(0) = +1, a step in the normalised input space;
- M_l(x) = - min_c d^2(h(x'), mu_c) / 2, with d^2(h, mu) = (h - mu)^T S^+ (h - mu);
- score = the logit of P(ID) that a logistic regression gives to the M_l, each first brought to zero mean and unit
  variance over held-out ID images. (The release's -P(OOD) is a rising function of it, with ties where it saturates.)

No OOD image is used: the regression tells held-out ID train images from perturbed copies of them (FGSM, or Gaussian
noise). Half of them fit it, for each m; on the other half the m of the lowest FPR95 is chosen (equal: higher AUROC,
then the first). The Gaussians are of the train images that are not held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.scores.base import Known
from workflow_scripts.scores.mahalanobis import Gaussians, squared_distances
from workflow_scripts.scores.odin import downhill

SPEC = ScoreSpec(family="distance", needs={"network", "train_labels"}, least=20)  # a fifth is held out, at least 4


@dataclass(frozen=True)
class Options:
    magnitudes: Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)] = (
        0.0, 0.01, 0.005, 0.002, 0.0014, 0.001, 0.0005)
    """Sizes m of the input perturbation to choose from, in units of the normalised input."""
    held_out: Annotated[int, Gt(3)] = 1000
    """ID train images that fit and choose, evenly spaced in the set; at most a fifth of it."""
    pseudo_ood: Literal["fgsm", "noise"] = "fgsm"
    """What stands for OOD: one step up the cross-entropy of the label, or Gaussian noise."""
    strength: Annotated[float, Gt(0)] = 0.05
    """Size of the FGSM step, or standard deviation of the noise, in units of the normalised input; afterwards values
    are cut to the range that the held-out images have in each channel. It should stand out of the images' own noise:
    a change that no layer notices fixes no weights."""


@dataclass(frozen=True)
class State:
    """``gaussians`` of each stage, the chosen ``magnitude``, and score = intercept + sum_l weights_l M_l."""

    gaussians: list[Gaussians]
    magnitude: float
    weights: Tensor
    intercept: float


class Moments:
    """Class means and pooled within-class covariance of one layer, gathered batch by batch in float64.

    Sums are taken of h minus the first batch's mean, so that little is lost in the difference of squares.
    """

    def __init__(self, h: Tensor, classes: int):
        self.shift = h.double().mean(dim=0)
        self.sums = torch.zeros(classes, h.shape[1], dtype=torch.float64, device=h.device)
        self.squares = torch.zeros(h.shape[1], h.shape[1], dtype=torch.float64, device=h.device)
        self.counts = torch.zeros(classes, dtype=torch.float64, device=h.device)

    def add(self, h: Tensor, labels: Tensor) -> None:
        """Take in features (B, D) of images of ``labels`` (B,)."""
        h = h.double() - self.shift
        member = functional.one_hot(labels, len(self.counts)).double()  # (B, K)
        self.sums += member.T @ h
        self.counts += member.sum(dim=0)
        self.squares += h.T @ h

    def gaussians(self) -> Gaussians:
        """Gaussians of one covariance; directions without variance are ignored.

        Raises:
            OODError: a class without images.
        """
        empty = torch.nonzero(self.counts == 0).flatten().tolist()
        if empty:
            raise OODError(f"train set: class {empty[0]} has no image ({len(empty)} of {len(self.counts)} classes are "
                           "empty); every class needs at least one")
        means = self.sums / self.counts[:, None]
        covariance = (self.squares - self.sums.T @ means) / self.counts.sum()
        values, vectors = torch.linalg.eigh(covariance)  # rising
        real = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
        whiten = vectors[:, real] / values[real].sqrt()
        return Gaussians(self.shift, whiten, means @ whiten)


def layers(network: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Spatial means of the network's stages, one after the other. (N, 3, H, W) -> (N, D_l) each."""
    return (maps.mean(dim=(2, 3)) for maps in network.stages(x))


def layer(network: nn.Module, x: Tensor, number: int) -> Tensor:
    """The spatial mean of one stage; what lies behind it is not computed. -> (N, D_l)."""
    for found, h in enumerate(layers(network, x)):
        if found == number:
            return h
    raise IndexError(number)


def confidences(network: nn.Module, gaussians: list[Gaussians], images: Tensor, magnitudes: tuple[float, ...],
                ) -> Tensor:
    """M_l of every image, stage and magnitude. (N, 3, H, W) -> (N, L, m) float64."""
    columns = []
    for number, model in enumerate(gaussians):
        direction = None
        if any(magnitudes):
            with torch.enable_grad():
                x = images.detach().requires_grad_()
                nearest = squared_distances(model, layer(network, x, number)).amin(dim=1)
                direction = downhill(torch.autograd.grad(nearest.sum(), x)[0])
        with torch.no_grad():
            for m in magnitudes:
                x = images + m * direction if m else images
                columns.append(squared_distances(model, layer(network, x, number)).amin(dim=1) / -2)
    return torch.stack(columns, dim=1).reshape(len(images), len(gaussians), len(magnitudes))


def pseudo_ood(options: Options, network: nn.Module, images: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
    """Perturbed copies of ID images, not cut yet. (N, 3, H, W), (N,) -> (N, 3, H, W)."""
    if options.pseudo_ood == "noise":
        noise = torch.randn(images.shape, generator=random).to(images)  # drawn on the CPU: the same on every device
        return images + options.strength * noise
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        loss = functional.cross_entropy(network(x), labels, reduction="sum")
        return images - options.strength * downhill(torch.autograd.grad(loss, x)[0])


def held_out(options: Options, labels: np.ndarray) -> np.ndarray:
    """Mask of the train images that fit and choose, evenly spaced; the first of each class is none. (M,) -> (M,) bool.

    Raises:
        OODError: too few train images.
    """
    free = np.setdiff1d(np.arange(len(labels)), np.unique(labels, return_index=True)[1])
    count = min(options.held_out, len(labels) // 5, len(free)) // 2 * 2
    if count < 4:
        raise OODError(f"train set: {len(labels)} images are too few; a fifth of them, beyond one of each class, is "
                       "held out, which must be at least 4")
    mask = np.zeros(len(labels), bool)
    mask[free[np.arange(count) * len(free) // count]] = True
    return mask


def fit(options: Options, known: Known, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> State:
    """Gaussians, magnitude and regression.

    Args:
        known: ``train_labels`` (M,), each 0..K-1.
        batches: once through the ID train images in order: (B, 3, H, W) network inputs and (B,) labels.

    Raises:
        OODError: too few train images, or a class without one.
    """
    aside = held_out(options, known.train_labels)
    moments: list[Moments] = []
    kept, start, size = [], 0, 1
    for x, labels in batches:
        mask = torch.from_numpy(aside[start:start + len(x)]).to(x.device)
        start, size = start + len(x), max(size, len(x))
        kept.append((x[mask], labels[mask]))
        with torch.no_grad():
            for number, h in enumerate(layers(network, x[~mask])):
                if number == len(moments):
                    moments.append(Moments(h, network.head.out_features))
                moments[number].add(h, labels[~mask])
    gaussians = [layer.gaussians() for layer in moments]

    clean, labels = (torch.cat(parts) for parts in zip(*kept, strict=True))
    low, high = (edge(clean, dim=(0, 2, 3))[:, None, None] for edge in (torch.amin, torch.amax))
    random = torch.Generator().manual_seed(0)
    known_id, pseudo = [], []
    for x, y in zip(clean.split(size), labels.split(size), strict=True):
        known_id.append(confidences(network, gaussians, x, options.magnitudes))
        cut = pseudo_ood(options, network, x, y, random).maximum(low).minimum(high)
        pseudo.append(confidences(network, gaussians, cut, options.magnitudes))
    inside, outside = torch.cat(known_id).cpu().numpy(), torch.cat(pseudo).cpu().numpy()  # (held out, L, m)
    best = None
    for column, m in enumerate(options.magnitudes):
        weights, intercept = regression(inside[::2, :, column], outside[::2, :, column])
        joined = curve(*(part[1::2, :, column] @ weights + intercept for part in (inside, outside)))
        rank = (fpr95(joined), -auroc(joined), column)
        if best is None or rank < best[0]:
            best = rank, m, weights, intercept
    _, m, weights, intercept = best
    return State(gaussians, m, torch.from_numpy(weights).to(clean.device), intercept)


def regression(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (L,) and intercept of the logit of P(ID), for (N, L) confidences of ID images and their opposites."""
    from sklearn.linear_model import LogisticRegression  # here, since it takes 3 s and scoring does without

    mean, std = inside.mean(axis=0), inside.std(axis=0)
    scale = np.where(std > 0, std, 1.0)
    x = (np.concatenate([inside, outside]) - mean) / scale
    model = LogisticRegression(max_iter=1000).fit(x, np.repeat([1, 0], [len(inside), len(outside)]))
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - mean @ weights)


def score(options: Options, known: Known, state: State, network: nn.Module, images: Tensor) -> Tensor:
    """The logit of P(ID). images (N, 3, H, W) -> (N,) float64."""
    found = confidences(network, state.gaussians, images, (state.magnitude,))[:, :, 0]
    return found @ state.weights + state.intercept
