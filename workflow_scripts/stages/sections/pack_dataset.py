"""The section of :mod:`workflow_scripts.stages.pack_dataset`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from workflow_scripts.core.section import Section, options_of


class PackDataset(Section):
    """A split of a set, every image as it was published: no limit, sample or geometry is part of it."""

    dataset: str
    """Name of the dataset."""
    split: Literal["train", "val", "test"]
    """Its split."""
    reader: Literal["lmdb_images"] = "lmdb_images"
    """The reader of packed archives."""
    options: Annotated[Any, options_of("data.readers", "reader", "dataset '{dataset}' ({split})")]
    """Its options."""
    raw: list[Any] | None
    """What tells the raw files from others; not read."""
    only: tuple[str, str] | None = None
    """A list of images that the options name, and its hash; not read."""
