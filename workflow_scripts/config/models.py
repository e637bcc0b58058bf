"""The configuration: every key, its type, its default and what it means.

The docstring below each key is its documentation: ``docs/config.md`` is generated from it (and a test compares).
Nothing here imports torch: the Snakefile checks the configuration with it each time it is read.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from workflow_scripts.config import citation
from workflow_scripts.config.base import Name, Strict, Where
from workflow_scripts.config.only import Only
from workflow_scripts.config.recipes import Recipe
from workflow_scripts.core import plugins
from workflow_scripts.core.claims import Claim
from workflow_scripts.core.errors import unknown


def _metric_rule(name: str) -> str:
    if name not in plugins.metric_rules():
        raise ValueError(str(unknown("metric rule", name, plugins.metric_rules())))
    return name


MetricRule = Annotated[str, AfterValidator(_metric_rule)]


class Network(Strict):
    """An architecture under the name that paths and tables use."""

    name: Name
    """Name in paths and tables."""
    model: str
    """A module of `workflow_scripts/models`."""
    options: dict[str, Any] = {}
    """Options of that module (see Networks below)."""


class Sweep(Strict):
    """Tune options of a score on ID train images against pseudo-OOD images, without test OOD data."""

    sweep: dict[str, Any] = {}
    """Options of `workflow_scripts/stages/sections/tune_options.py`; left out: its defaults."""


class Score(Strict):
    """A post-hoc score under the name that tables use."""

    name: Name
    """Name in paths and tables."""
    score: str = ""
    """A module of `workflow_scripts/scores`, or a Python file of your own (`./my_score.py`, see docs/own.md); left out:
    the module called `name`."""
    label: str = ""
    """Name in tables and figures; left out: `name`."""
    options: dict[str, Any] = {}
    """Options of that module (see Scores below)."""
    tune: Sweep | None = None
    """Options chosen by a sweep for each network; they replace those above (`himplos`: p and clip)."""
    where: Where = Where()
    """ID sets and networks this entry is for."""

    @property
    def module(self) -> str:
        return self.score or self.name


class Fusion(Strict):
    """Options of the score `fusion` for all scores of an experiment but the background's own."""

    background: Name = "background"
    """Name of the background score, one of the experiment's scores."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Share of the background score."""
    normalise: Literal["std", "none"] = "std"
    """`std`: both scores to the same standard deviation over the ID train images."""


class Tuning(Strict):
    """Options of an experiment's scores chosen three ways, side by side: as configured, on validation images, and
    without any OOD image. It adds a table; for each score of cached features whose declaration names options to search
    among (docs/scores.md), `{score}_id_only` and, with `ood`, `{score}_validation`."""

    id: Name | None = None
    """Dataset whose test split holds ID validation images, of the ID set's classes."""
    ood: list[Name] = []
    """Datasets whose test splits are OOD validation images; none of them is scored as an OOD set."""
    pseudo_ood: dict[str, Any] = {}
    """What stands for OOD without them: options of `workflow_scripts/stages/sections/extract_pseudo_ood.py`; left out:
    its defaults."""
    criterion: Literal["auroc", "fpr95"] = "auroc"
    """What is best at the chosen options, on average over the validation sets."""

    @model_validator(mode="after")
    def _both(self) -> Tuning:
        if (self.id is None) != (not self.ood):
            raise ValueError("tuning: id and ood expected together, ID and OOD validation images (found id: "
                             f"{self.id}, ood: {self.ood})")
        if len(set(self.ood)) < len(self.ood):
            raise ValueError(f"tuning.ood: each set once expected (found {self.ood})")
        return self


class Experiment(Strict):
    """Networks to train, and sets to score: ID x networks x recipes x seeds."""

    paper: Name
    """The table and the section of the page that the results go to."""
    id: Name
    """In-distribution dataset (a row of `config/datasets.yaml` with a train and a test split)."""
    networks: Annotated[list[Name], Field(min_length=1)]
    """Names out of `networks`."""
    recipes: Annotated[list[Name], Field(min_length=1)]
    """Names out of `recipes`."""
    scores: Annotated[list[Name], Field(min_length=1)]
    """Names out of `scores`."""
    ood: dict[Name, list[Name]]
    """OOD datasets by group, e.g. near: [...], far: [...]; their test splits are scored. No group is called `id`, `all`
    or `average`, which tables use."""
    shifted: list[Name] = []
    """Datasets of covariate-shifted ID images; their test splits are scored, and count as ID by the metric rule
    `openood-fs` (`compat`), the full spectrum."""
    fusion: Fusion | None = None
    """Adds to each score a second one, `{score}_fused`, that joins it with a background score; left out: none."""
    tuning: Tuning | None = None
    """Chooses options of the scores; left out: they are as configured."""
    seeds: int | list[int] | None = None
    """Own seeds of this experiment; left out: the seeds of the whole configuration."""
    compat: list[MetricRule] = []
    """Papers whose own metric rules are computed too, for every network on this ID set (`fpr95@himplos`, ...; see
    Metric rules below). `scood` is SC-OOD's reference protocol, which counts as ID what its lists say belongs to an ID
    class."""


class Imported(Strict):
    """Scores that another tool computed, in the same metrics and tables (see docs/own.md)."""

    name: Name
    """Name in paths."""
    label: str
    """Name in tables and figures; `[imported]` is added."""
    paper: Name
    """The paper whose table it stands in, one of the experiments'."""
    id: Name
    """ID set that the scores are of."""
    files: str | dict[Name, str]
    """A file (`.npz` or `.csv`) for each set; or one `.npz` with an array for each set. What a file may hold: scores of
    its set alone, `id` and `ood`, or `scores` (or `conf`) and `labels` of its set or of both sides."""
    higher_is: Literal["id", "ood"]
    """What a high score means; `ood`: signs are turned."""
    labels: Literal["negative_is_ood", "one_is_ood", "one_is_id"] = "negative_is_ood"
    """What `labels` in a file say: OOD is negative and ID a class number from 0 on; or they are 0 and 1."""
    score: Name = "score"
    """Name of the score in tables."""
    network: Name = "elsewhere"
    """Name of the network in paths and tables; that of one of ours puts the rows into its table."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of that network; entries of the same name are averaged over seeds."""
    count: Literal["same", "any"] = "same"
    """`same`: as many scores as our sets have images; `any`: of other lists of images, which the counts then say."""


class Picture(Strict):
    """A picture that is a paper's own, beside the figures that every paper has."""

    picture: str
    """A module of `workflow_scripts/pictures`."""
    name: Name | None = None
    """Name of its files; left out: the module's."""
    recipes: Annotated[list[Name], Field(min_length=1)]
    """Recipes whose networks it shows."""
    options: dict[str, Any] = {}
    """Options of that module (see Pictures below)."""

    @property
    def file(self) -> str:
        return self.name or self.picture


class Paper(Strict):
    """What the page says above an experiment's results."""

    name: Name
    """The `paper` of the experiments."""
    title: str
    """Heading of the section."""
    about: str = ""
    """A paragraph."""
    reference: str = ""
    """Where it was published, in your own words."""
    cite: Annotated[str, AfterValidator(citation.known)] = ""
    """Instead: one of the papers of `CITATION.cff` by its abbreviation, which gives the reference."""
    headline: str = ""
    """Score whose histograms are drawn; left out: the first of the experiment."""
    claim: Claim | None = None
    """What the page's first cards hold the run against; left out: no card."""
    pictures: list[Picture] = []
    """The paper's own pictures."""
    reliability: bool = False
    """Figures of that score as a confidence: risk over coverage, right, wrong and OOD images, reliability diagram; and
    AURC, AUGRC and ECE in the tables."""
    over: Literal["images", "seeds"] = "images"
    """What the paired tests behind bold vary. `images`: would the order of the scores hold on other images, for each
    trained network (DeLong for AUROC, the bootstrap for FPR95)? `seeds`: would it hold for other trainings (Student's
    t, from two seeds on)? The intervals of both are in `intervals/{paper}.csv`."""

    @model_validator(mode="after")
    def _one_reference(self) -> Paper:
        if self.reference and self.cite:
            raise ValueError(f"paper '{self.name}': either reference or cite expected, found both")
        return self

    @property
    def published(self) -> str:
        """Where it was published."""
        return citation.works()[self.cite].short if self.cite else self.reference


class Fidelity(Strict):
    """Corrected or as released."""

    released: list[str] = []
    """Defects of the released code to reproduce in every recipe they concern; empty: corrected."""


class Features(Strict):
    """The forward pass over all sets of a trained network."""

    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] | None = None
    """Images per forward pass; left out: 32 on the CPU, where their activations stay in its cache, 256 on a GPU.
    `auto`: the fastest of a few sizes by a short measurement, which stands in the log. The last bits of a feature may
    depend on the size, so with `auto` two runs may differ in them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the pass that writes features; `bfloat16` computes all before the penultimate features in it, the head in
    float32. Faster, and it changes numbers: what it does to each score is in docs/performance.md. Scores that run the
    network themselves stay in float32."""
    together: bool = False
    """One job per network for the ID and OOD sets (few processes: small runs) instead of one for each, where a new OOD
    set leaves the ID pass alone."""


class Resume(Strict):
    """Progress of unfinished trainings, from which a run that was stopped goes on."""

    minutes: Annotated[float, Field(ge=0)] = 10.0
    """How often it is written; it is also written when a job is told to stop (SIGTERM, SIGUSR1)."""


class Limit(Strict):
    """Cuts every stage short, to try a full-size configuration."""

    steps: Annotated[int, Field(gt=0)] | None = None
    """Training steps per network."""
    images: Annotated[int, Field(gt=0)] | None = None
    """Images per dataset and split (of each class at least two). No large set is packed for them: they come from the
    raw files. Batches, held-out images, queues and numbers of neighbours are cut to fit; what cannot be cut is refused
    before the first job, with a number that is enough."""


def _seeds(value: int | list[int]) -> list[int]:
    """A count or a list as a list."""
    seeds = list(range(value)) if isinstance(value, int) else value
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ValueError(f"at least one seed, each once, none negative (found {value!r})")
    return seeds


class Config(Strict):
    """One run of the workflow. A file given by --configfile stands alone: it inherits nothing from config.yaml."""

    variant: Name
    """All results of this configuration lie below results/{variant}/."""
    title: str = ""
    """Heading of the results page."""
    about: str = ""
    """Opening text of the results page."""
    small: bool = False
    """True: a small run, whose numbers the page does not compare with the papers'."""
    include: list[str] = []
    """Configuration files whose lists are put before this one's: relative to the repository, or with `./` and `../` to
    this file (as every path that begins so)."""
    data_root: str | None = None
    """Folder of the raw data; left out: the environment variable OOD_DATA. A relative one (of either) lies in the
    folder where the command is typed, unless it begins with `./`."""
    resources: str = "resources"
    """Folder of downloaded archives and of the lock file of their checksums."""
    offline: bool = False
    """True: download nothing; the run ends with a list of the files to place."""
    seeds: Annotated[int | list[int], Field(validate_default=True)] = 1
    """Seeds of every random choice, as a list or a count (3 means 0, 1, 2); each trains its own networks."""
    seeds_of: dict[Name, int | list[int]] = {}
    """Seeds of all experiments on an ID set, over `seeds` and over their own: `{imagenet100_squash: 1}`. So a file that
    includes another trains fewer networks where they cost most."""
    only: Only = Only()
    """A part of the work; left out: all of it. A run of a part has the files of the whole run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto: a GPU where there is one."""
    gpus: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """GPUs of a training: `auto` is one, that with the most free memory, as for all other jobs; n: the first n visible
    ones, each of which takes its share of every batch (docs/several_gpus.md). With device cpu: n processes."""
    tf32: bool = False
    """On a GPU convolutions and products round float32 inputs to 10 bits (TensorFloat-32): faster, other numbers. As
    with `device`, results that exist are kept when it changes."""
    fused: bool = True
    """On a GPU a training's optimiser changes all weights by one kernel of torch; false: by one for each operation.
    Only rounding differs. As with `device`, results that exist are kept when it changes."""
    compile: Literal["no", "kernels", "graphs"] = "no"
    """Compile a network's training passes with `torch.compile`: `kernels` fuses them (also on the CPU), `graphs` also
    records them as CUDA graphs. The first step then takes up to a minute, rounding differs, and a network that cannot
    be compiled ends its training with a line that says so. As with `device`, results that exist are kept when it
    changes."""
    threads: Annotated[int, Field(gt=0)] = 2
    """CPU threads of a job that runs a network; numbers on CPU are reproducible for the same count."""
    fidelity: Fidelity = Fidelity()
    """Corrected or as released."""
    features: Features = Features()
    """The forward pass over all sets."""
    resume: Resume = Resume()
    """Progress of unfinished trainings."""
    limit: Limit = Limit()
    """Cuts every stage short, to try a full-size configuration."""
    networks: list[Network] = []
    """Architectures by name."""
    recipes: list[Recipe] = []
    """Ways to train, by name."""
    scores: list[Score] = []
    """Post-hoc scores by name."""
    datasets: dict[Name, Any] = {}
    """Own datasets: rows like those of `config/datasets.yaml`, which they replace where the name is the same."""
    papers: list[Paper] = []
    """Headings and paragraphs of the results page."""
    notes: dict[str, str] = {}
    """A remark on a dataset, shown where its results are."""
    experiments: Annotated[list[Experiment], Field(min_length=1)]
    """What to run."""
    imported: list[Imported] = []
    """Scores of other tools."""

    @field_validator("resources")
    @classmethod
    def _folder(cls, value: str) -> str:
        if set(value) & set("{}"):
            raise ValueError(f"a folder without {{ and }} in its path expected, which are Snakemake's wildcards (found "
                             f"{value!r})")
        return os.path.expanduser(value)

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: int | list[int]) -> list[int]:
        return _seeds(value)

    @field_validator("seeds_of")
    @classmethod
    def _seeds_of(cls, value: dict[str, int | list[int]]) -> dict[str, list[int]]:
        return {id: _seeds(seeds) for id, seeds in value.items()}

    def gpus_of(self, recipe: Recipe) -> int:
        """GPUs, or with device cpu processes, that share a recipe's training."""
        own = recipe.training.gpus if recipe.training else None
        gpus = self.gpus if own is None else own
        return 1 if gpus == "auto" else gpus
