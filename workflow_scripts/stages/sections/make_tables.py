"""The section of the tables stage."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.core.section import Section
from workflow_scripts.reporting.inputs import (
    DEFAULT_ID_METRICS,
    DEFAULT_METRICS,
    Compare,
    Counting,
    PublishedTable,
    Run,
    TrainImages,
    TunedScore,
)


class MakeTables(Section):
    paper: str
    """Name of the paper."""
    title: str
    """Its title."""
    runs: list[Run]
    """The networks whose results it reports."""
    names: dict[str, str] = {}
    """Printed names by key."""
    countings: list[Counting] = []
    """The paper's own rules, whose tables stand first."""
    metrics: list[str] = DEFAULT_METRICS
    """OOD metrics that the other tables show; the CSV has all."""
    id_metrics: list[str] = DEFAULT_ID_METRICS
    """Metrics of the ID task that they show."""
    over: Literal["images", "seeds"] = "images"
    """What the paired tests behind bold vary."""
    compare: Compare | None = None
    """What ran both corrected and as released."""
    tuned: list[TunedScore] = []
    """Scores whose options were chosen, which a table of their own shows."""
    families: dict[str, str] = {}
    """Score -> the family that tables with many scores show it in."""
    listed: dict[str, int] = {}
    """Test sets that published lists choose -> images of the list."""
    published: list[PublishedTable] = []
    """Numbers of the paper itself."""
    train_images: dict[str, TrainImages] = {}
    """ID set -> its train images, where a published number is held against a network trained on them."""
