"""Parts of the reporting stages' sections: networks of a paper, pairs to compare, published numbers, the page."""

from __future__ import annotations

from typing import Literal

from workflow_scripts.core.claims import Claim
from workflow_scripts.core.section import Section

Way = Literal["id_only", "validation"]
"""How options of a score are chosen, beside those as configured: without OOD images, or on validation images."""
DEFAULT_METRICS = ["fpr95", "auroc"]
DEFAULT_ID_METRICS = ["accuracy"]


class Run(Section):
    """One trained network whose results a paper reports."""

    id: str
    """The ID set."""
    network: str
    """Name of the network."""
    recipe: str
    """Path name of its recipe."""
    label: str
    """The training's name in tables and figures."""
    seed: int
    """Seed of the training."""
    scores: list[str] | dict[str, str | None]
    """Its scores; for figures with the path of each score file, null where it has not run."""
    groups: dict[str, list[str]]
    """OOD sets by group."""
    metrics: str | None
    """Path of its metrics file, null where it has not run."""


class Counting(Section):
    """A paper's own rule of counting, whose numbers have tables of their own."""

    rule: str
    """Its name in metrics (`auroc@goe`)."""
    metrics: list[str]
    """OOD metrics that these tables show, without the rule's name."""
    id_metrics: list[str]
    """Metrics of the ID task that they show, with it where it counts them."""
    says: str
    """How it counts."""

    @property
    def names(self) -> list[str]:
        """The OOD metrics as results have them."""
        return [f"{name}@{self.rule}" for name in self.metrics]


class TunedScore(Section):
    """A score whose options were chosen."""

    name: str
    """Its name in results."""
    base: str
    """The score as it is configured."""
    way: Way
    """How they were chosen."""


class TrainingPair(Section):
    """Two trainings that differ in the defects that one of them reproduces."""

    id: str
    """The ID set."""
    network: str
    """Name of the network."""
    corrected: str
    """Path name of the recipe without the defects."""
    released: str
    """Path name of the recipe with them."""
    defects: list[str]
    """The defects."""


class Compare(Section):
    """What ran both corrected and as released."""

    trainings: list[TrainingPair] = []
    """Pairs of trainings."""
    rules: dict[str, str] = {}
    """Paper -> the defect of its metrics' rule (`auroc@goe`)."""
    sets: dict[str, str] = {}
    """How groups of test sets as released end (`+2g-1`, as in `far+2g-1`) -> the defects that they have."""


class Ours(Section):
    """Our run that a published number is held against."""

    id: str
    """The ID set."""
    network: str
    """Name of the network."""
    recipe: str
    """Path name of its recipe."""
    score: str
    """Name of the score."""


class PublishedRow(Section):
    """Published numbers of one training on one set, in print, and one run of ours."""

    training: str
    """Name in the source."""
    sets: str
    """Name of the set in the source, or `mean`."""
    values: list[float]
    """A number for each of the table's metrics."""
    ours: Ours | None = None
    """The run that compares."""
    because: str = ""
    """Why none does."""
    but_for: list[str] = []
    """Declared differences between the two trainings, or their scores."""
    inferred: list[str] = []
    """What of the training the source does not say."""
    datasets: list[str] | None = None
    """Our sets."""
    because_sets: str = ""
    """Why there are none."""
    but_for_sets: list[str] = []
    """Declared differences between the sets."""
    inferred_sets: list[str] = []
    """What of the sets the source does not say."""
    counts: dict[str, int] = {}
    """Test images that the ID set and our sets have where they are complete."""


class TrainImages(Section):
    """The train images of an ID set."""

    store: str
    """Path of the store."""
    count: int
    """Images of the complete set."""


class PublishedTable(Section):
    """Published numbers from one source."""

    source: str
    """Where they are printed."""
    verified: bool
    """Whether the source was read."""
    id: str
    """The ID set."""
    network: str
    """Name of the network in the source."""
    score: str
    """Name of the score in the source."""
    metrics: list[str]
    """Columns of `values`."""
    rows: list[PublishedRow]
    """The numbers."""


class PaperFiles(Section):
    """One paper's section of the page; a file that is not there is named as missing."""

    name: str
    """Name of the paper."""
    title: str
    """Its title."""
    about: str = ""
    """Text below the title."""
    reference: str = ""
    """Citation."""
    headline: str = ""
    """The score that the paper is about."""
    claim: Claim | None = None
    """What the page's first cards hold the run against."""
    csv: str | None = None
    """The tidy table."""
    md: str | None = None
    """The table in Markdown."""
    tex: str | None = None
    """The table in LaTeX."""
    published: str | None = None
    """Published numbers against ours."""
    intervals: str | None = None
    """Paired intervals of its scores."""
    over: Literal["images", "seeds"] = "images"
    """What the paired tests behind bold vary."""
    manifest: str | None = None
    """Where the numbers come from."""
    figures: list[str] = []
    """SVG or PNG, in order."""
    countings: list[Counting] = []
    """The paper's own rules, whose tables stand first."""
    metrics: list[str] = DEFAULT_METRICS
    """OOD metrics that the other tables show."""
    id_metrics: list[str] = DEFAULT_ID_METRICS
    """Metrics of the ID task that they show."""
    compare: Compare | None = None
    """What ran both corrected and as released."""
    tuned: list[TunedScore] = []
    """Scores whose options were chosen, which a table of their own shows."""
    families: dict[str, str] = {}
    """Score -> the family that tables with many scores show it in."""
    listed: dict[str, int] = {}
    """Test sets that published lists choose -> images of the list."""


class Page(Section):
    """The results page."""

    variant: str
    """Folder of the results."""
    title: str
    """Heading of the page."""
    papers: list[PaperFiles]
    """Its sections."""
    small: bool = False
    """Whether the run is not comparable with the papers."""
    about: str = ""
    """Opening text."""
    cards: str | None = None
    """What the cards stage wrote."""
    notes: dict[str, str] = {}
    """Set -> why a score can fall below chance on it."""
    names: dict[str, str] = {}
    """Printed names by key."""
