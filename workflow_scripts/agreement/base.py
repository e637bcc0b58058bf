"""Published numbers computed again: what a check is given, and what it must give back.

A check is one module in this folder. It offers

``SPEC``
    a :class:`~workflow_scripts.core.specs.CheckSpec`; its field ``files`` says which files it reads.
``compute(given) -> {quantity: value}``
    the numbers as computed here, by the names under which ``config/published_checks.yaml`` has the printed ones.

Printed numbers stay text, as they are in their source: ``6.56``; ``0.21 +/- 0.03`` (the deviation of the draws they are
the mean of); ``0 within 1e-5`` (a largest difference, or a number whose own source gives no error). A value agrees with
``6.56`` if it rounds to it, with ``0.21 +/- 0.03`` if it is at most three deviations away, both before they were
rounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.data.reading import Images
from workflow_scripts.models import densenet_bc
from workflow_scripts.networks import foreign

_PRINTED = re.compile(r"(-?\d+(?:\.(\d+))?)(?:e-?\d+)?(?: \+/- (\d+(?:\.\d+)?)| within (\d+(?:\.\d+)?(?:e-?\d+)?))?")
_FLOAT = 1e-9  # of the arithmetic of decimal numbers


@dataclass(frozen=True)
class Given:
    """What a check computes from."""

    files: Mapping[str, tuple[Path, ...]]
    """Role -> its file, or several."""
    seed: int
    """Of the draws that the source made without a seed."""
    limit: int | None = None
    """So many images of each set, evenly spread, where a whole pass takes long; ``None``: all."""

    def file(self, role: str) -> Path:
        """The one file of a role.

        Raises:
            OODError: there are several.
        """
        first, *others = self.files[role]
        if others:
            raise OODError(f"file '{role}': one file expected, found {len(others) + 1}: {first}, {others[0]}, ...")
        return first

    def chosen(self, count: int) -> np.ndarray:
        """Numbers of the images that are looked at, ascending, (n,) of ``count``."""
        if self.limit is None or self.limit >= count:
            return np.arange(count)
        return np.linspace(0, count - 1, self.limit).astype(np.int64)


@dataclass(frozen=True)
class Line:
    """One printed number and ours."""

    quantity: str
    printed: str
    ours: float
    allowed: float
    """The largest difference with which the two agree."""
    reason: str
    """Where that comes from."""

    @property
    def difference(self) -> float:
        return self.ours - value(self.printed)

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.allowed + _FLOAT


def value(printed: str) -> float:
    """The number of a printed text, without what says how exact it is."""
    return float(printed.split()[0])


def allowance(printed: str, where: str = "printed") -> tuple[float, str]:
    """The largest difference with which a value agrees, and why.

    Raises:
        OODError: not one of the forms above.
    """
    match = _PRINTED.fullmatch(str(printed))
    if match is None:
        raise OODError(f"{where}: '{printed}' is no printed number; expected such as 6.56, 0.21 +/- 0.03, "
                       "0 within 1e-5")
    _, digits, deviation, within = match.groups()
    if within:
        return float(within), f"within {within}"
    half = _half(digits or "")
    if deviation:
        return 3 * (float(deviation) + _half(deviation.partition(".")[2])) + half, f"three deviations ({deviation})"
    return half, "the last printed digit"


def _half(digits: str) -> float:
    """Half of the last of these decimals: what rounding takes away at most."""
    return 0.5 * 10.0 ** -len(digits)


def lines(printed: Mapping[str, str], computed: Mapping[str, float], where: str) -> list[Line]:
    """Printed and computed numbers side by side, in the order in which they are printed.

    Raises:
        OODError: a quantity of one side that the other lacks.
    """
    for one, other, which in ((printed, computed, "computed"), (computed, printed, "printed")):
        lacking = next((name for name in one if name not in other), None)
        if lacking is not None:
            raise OODError(f"{where}: '{lacking}' is not {which}{nearest(lacking, other)}")
    found = []
    for name, text in printed.items():
        allowed, reason = allowance(text, f"{where}, {name}")
        found.append(Line(name, str(text), float(computed[name]), allowed, reason))
    return found


def lacking(patterns: Sequence[str]) -> str:
    """That none of the files of a role is there."""
    return f"none of {', '.join(patterns)} is there"


def rows(check: str, printed: Mapping[str, str], computed: Mapping[str, float],
         absent: Mapping[str, str]) -> list[dict[str, Any]]:
    """The table of a check, a mapping a line, in the order in which the numbers are printed.

    Args:
        absent: quantities that are not computed -> why.

    Raises:
        OODError: a quantity of one side that the other lacks.
    """
    wanted = {name: text for name, text in printed.items() if name not in absent}
    found = {line.quantity: {**asdict(line), "difference": line.difference, "agrees": line.agrees}
             for line in lines(wanted, computed, f"check '{check}'")}
    found |= {name: {"quantity": name, "printed": printed[name], "agrees": False, "reason": f"not computed: {why}"}
              for name, why in absent.items()}
    return [{"check": check, **found[name]} for name in printed]


def pixels(images: Images, index: np.ndarray) -> np.ndarray:
    """Images of a reader. -> uint8 (n, H, W, 3), in the order of ``index`` (ascending)."""
    found: np.ndarray | None = None
    for start, block in images.blocks(index):
        if found is None:
            found = np.empty((len(index), *block.shape[1:]), block.dtype)
        found[start:start + len(block)] = block
    assert found is not None  # a reader of no images ends in an error
    return found


def inputs(photos: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (n, H, W, 3) -> network inputs, float32 (n, 3, H, W)."""
    x = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def densenet(path: Path, classes: int, folded: bool = True) -> densenet_bc.DenseNet:
    """A released DenseNet-BC-100-12 in eval mode.

    Args:
        folded: batch norms join their convolutions, which makes passes without a gradient faster and those with one
            slower; only rounding differs.

    Raises:
        OODError: the file holds other tensors.
    """
    net = densenet_bc.build(densenet_bc.Options(depth=100, growth=12, reduction=0.5), classes)
    foreign.load(net, foreign.read(path), path, "DenseNet-BC-100-12")
    net.eval().requires_grad_(False)
    if folded:
        net.fold_batchnorms()
        return net
    return net.to(memory_format=torch.channels_last)


def logits(network: nn.Module, x: Tensor, size: int = 16) -> Tensor:
    """Logits of all inputs, (N, K) float32."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in x.split(size)])


def counted(found: int, expected: int, path: Path, what: str) -> None:
    """Refuse another number of lines than there are images.

    Raises:
        OODError: naming the file and both numbers.
    """
    if found != expected:
        raise OODError(f"{path}: {found:,} {what}, expected {expected:,}, one for each image; another file, or cut "
                       "off: fetch it again")


def labelled(wrong: np.ndarray, path: Path) -> np.ndarray:
    """Refuse labels that are not those of the images, for networks that err on a few per cent, or a quarter, of them.

    Args:
        wrong: (N,) bool.
        path: file of the labels.

    Raises:
        OODError: more than half of the predictions are wrong.
    """
    if wrong.mean() > 0.5:
        raise OODError(f"{path}: {wrong.mean():.0%} of the network's predictions are wrong, expected a few; its labels "
                       "are in another order than the images, or of another set: fetch the official file again")
    return wrong


def paired(gap: np.ndarray, path: Path, images: Path) -> np.ndarray:
    """Refuse scores that are not those of the images, one for one.

    Args:
        gap: (N,) absolute differences between the scores of a file and ours.

    Raises:
        OODError: half of them differ by more than 1e-4.
    """
    if np.median(gap) > 1e-4:
        raise OODError(f"{path}: half of its scores differ from ours by more than {np.median(gap):.2g}, expected at "
                       f"most 1e-5; they are in another order than the images of {images}, or of another network: "
                       "fetch the official files again")
    return gap
