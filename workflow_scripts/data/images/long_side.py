"""Images of one shorter side and different longer sides, as a batch that is cut on the device.

What torchvision does with ``Resize(N)`` and ``RandomCrop(N, padding)`` on images that are not square: the window lies
anywhere in the padded long image (bgresample 1c).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workflow_scripts.core.changes import ResizedWindow
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.resample import boxes, resized_crop
from workflow_scripts.data.images.rows import CentreCrops


@dataclass(frozen=True)
class LongSide:
    """N uint8 images, not cut yet. ``images[index]`` is the batch of these numbers (or of a slice).

    The bytes may stay in the host's memory; what is cut is on ``device``.
    """

    pixels: Tensor
    """(P, 3) uint8, all images row by row, one after another."""
    first: Tensor
    """(N,) int64: the first pixel of each; on the device of ``pixels``, like those below."""
    width: Tensor
    """(N,) int64."""
    height: Tensor
    """(N,) int64."""
    side: int
    """The shorter side."""
    device: torch.device
    """Where cut images go."""

    @classmethod
    def of(cls, rows: CentreCrops, device: torch.device, resident: bool = True) -> LongSide:
        """The images of a store, read into memory.

        Args:
            resident: hold the bytes on ``device``, else on the host.
        """
        home = device if resident else torch.device("cpu")
        flat = torch.from_numpy(rows.flat[:]).to(home)
        first, width, height = (torch.from_numpy(x).to(home) for x in (rows.offsets // 3, rows.widths, rows.heights))
        return cls(flat.view(-1, 3), first, width, height, rows.side, device)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.side, self.side, 3

    def __getitem__(self, index: Tensor | slice) -> LongSide:
        index = index.to(self.first.device) if isinstance(index, Tensor) else index
        return replace(self, first=self.first[index], width=self.width[index], height=self.height[index])

    def centre(self) -> Tensor:
        """The central squares, as ``cropN`` stores them. -> (B, side, side, 3) uint8."""
        top, left = (((extent - self.side).double() / 2).round().long() for extent in (self.height, self.width))
        return self._cut(top, left, self.side)

    def window(self, size: int | None, padding: int, u: Tensor) -> Tensor:
        """A random window of each padded image.

        Args:
            size: of the window; ``None``: the shorter side.
            padding: black pixels on each side.
            u: (B, 2) uniforms.

        Returns:
            (B, size, size, 3) uint8.

        Raises:
            OODError: the window is larger than the shorter side with its padding.
        """
        size = size or self.side
        if size > self.side + 2 * padding:
            raise OODError(f"augment: a random_crop of {size} does not fit into images of a shorter side of "
                           f"{self.side} with a padding of {padding}")
        u = u.to(self.first.device)
        top, left = ((u[:, k] * (extent + 2 * padding - size + 1)).long() - padding
                     for k, extent in enumerate((self.height, self.width)))
        return self._cut(top, left, size)

    def resized(self, how: ResizedWindow, u: Tensor) -> Tensor:
        """A random window of each image, resized, as ``resample.random_resized_crop`` of one image.

        Args:
            u: (B, 22) uniforms.

        Returns:
            (B, size, size, 3) uint8.
        """
        box = boxes(self.height, self.width, how.scale, how.ratio, u.to(self.first.device))
        top, left, height, width = box.unbind(1)
        # no window is longer, whatever the long side: its shape is within `ratio`, its short side within the image's
        longest = math.ceil((self.side + 0.5) * max(how.ratio[1], 1 / how.ratio[0], 1))
        begin = torch.zeros_like(top)
        inside = torch.stack([begin, begin, height, width], 1)
        return resized_crop(self._cut(top, left, longest), inside, how.size)

    def _cut(self, top: Tensor, left: Tensor, size: int) -> Tensor:
        line = torch.arange(size, device=self.first.device)
        row, column = top[:, None] + line, left[:, None] + line  # (B, size)
        inside = (((row >= 0) & (row < self.height[:, None]))[:, :, None]
                  & ((column >= 0) & (column < self.width[:, None]))[:, None, :])
        width = self.width[:, None]
        start = self.first[:, None] + torch.minimum(row.clamp_min(0), self.height[:, None] - 1) * width
        place = start[:, :, None] + torch.minimum(column.clamp_min(0), width - 1)[:, None, :]
        cut = self.pixels.index_select(0, place.view(-1)).view(len(self), size, size, 3)
        return (cut * inside[..., None]).to(self.device)
