"""The output of frozen blocks, of a file that is larger than memory: rows are read as they are asked for."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import not_to_blame


class Tokens:
    """Rows of ``tokens`` of a file of :mod:`workflow_scripts.stages.cache_frozen_blocks`.

    Args:
        path: the file.
        count: images it must have.
        shape: (tokens, width) of the network that reads it.
        device: where the rows go.

    Raises:
        OODError: no such file, or of another set or network.
    """

    def __init__(self, path: str | Path, count: int, shape: tuple[int, int], device: torch.device):
        try:
            with h5py.File(path) as file:
                tokens = file["tokens"]
                found, offset = tokens.shape, tokens.id.get_offset()
        except (OSError, KeyError) as error:
            not_to_blame(path, error)
            raise OODError(f"{path}: no cached output of frozen blocks; run the stage "
                           "cache_frozen_blocks again") from None
        if found != (count, *shape):
            raise OODError(f"{path}: tokens are {found}, expected {(count, *shape)}; they are of another set or "
                           "network, delete the file and run again")
        self.rows = np.memmap(path, np.float16, "r", offset, found)
        self.device = device

    def __getitem__(self, index: Tensor) -> Tensor:
        """(B,) int64 -> (B, tokens, width) float32 on the device."""
        order = index.cpu().numpy()
        return torch.from_numpy(self.rows[order]).to(self.device, non_blocking=True).float()
