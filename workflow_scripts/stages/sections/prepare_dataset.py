"""The section of :mod:`workflow_scripts.stages.prepare_dataset`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from workflow_scripts.core.listed import ListUsed
from workflow_scripts.core.section import Section, options_of


class Sample(Section):
    """A random subset."""

    n: int
    """Images to take; a smaller set is taken whole."""
    seed: int = 0
    """Seed of the draw."""


class PrepareDataset(Section):
    """A split of a dataset as it is used; it becomes the store's definition."""

    dataset: str
    """Name of the dataset."""
    split: Literal["train", "val", "test"]
    """Its split."""
    reader: str
    """Module in `workflow_scripts/data/readers`."""
    options: Annotated[Any, options_of("data.readers", "reader", "dataset '{dataset}' ({split})")]
    """Its options."""
    classes: int | list[str]
    """Classes of a labelled set: names in the order of the labels, or their number; 0: labels are not used."""
    geometry: str
    """How images reach the stored size."""
    limit_per_class: int | None
    """Keep the first so many images of each class, in file order."""
    sample: Sample | None
    """Then draw a random subset."""
    count: int | None
    """Images of the complete set; another number is refused, where `limit` does not cut it."""
    raw: list[Any] | None
    """What tells the raw files from others; not read."""
    keep: tuple[str, str] | None = None
    """A list of the names of the images to keep (a path below the repository), and its hash."""
    listed: ListUsed | None = None
    """A published list that chooses and orders the images; its file is given beside."""
    only: tuple[str, str] | None = None
    """A list of images that the reader's options name, and its hash; not read."""
    hold_out: int | None = None
    """So many images of train are the split val instead."""
    pixels: Literal["stored", "decoded"] = "stored"
    """decoded: nothing is stored; images are decoded from their archive whenever they are read."""
    limit: int | None = None
    """Images to keep for a run cut short; null: all."""
