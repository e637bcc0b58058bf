"""The section of :mod:`workflow_scripts.stages.import_weights`."""

from __future__ import annotations

from typing import Any, Literal

from workflow_scripts.core.changes import Normalise
from workflow_scripts.core.section import Section
from workflow_scripts.networks.architecture import Network


class ImportWeights(Section):
    """A network, and the layout of the file that holds its weights."""

    network: Network
    """Architecture."""
    sha256: str | None = None
    """Expected hash of the file, or its first digits."""
    git_blob: str | None = None
    """Expected id of the file's blob in a Git repository."""
    raw: list[Any] | None = None
    """What tells the file from others where its hash is not given; not read."""
    key: str = ""
    """Entry of the file that holds the tensors, e.g. `model` or `checkpoint.model`; left out: found."""
    strip_prefix: str = ""
    """Prefix to take off every tensor's name; `module.` and `_orig_mod.` go by themselves."""
    rename: dict[str, str] = {}
    """Prefixes of tensor names to replace, as the names are without `module.`."""
    drop: list[str] = []
    """Prefixes of tensors of the file that the network does not have."""
    fresh: list[str] = []
    """Prefixes of tensors of the network that the file does not have."""
    probe: bool = False
    """Fit the head on the ID train images."""
    normalise: Normalise | None = None
    """Pixel values to network inputs, for probe."""
    head: Literal["load", "new"] = "load"
    """new: the file's head is of other classes; the network keeps its own fresh one."""
    background: bool = False
    """The file's network has K + 1 outputs, the first of which is the background."""
