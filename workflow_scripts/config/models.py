"""The configuration: every key, its type, its default and what it means.

The docstring below each key is its documentation: ``docs/config.md`` is generated from it (and a test compares).
Nothing here imports torch: the Snakefile checks the configuration with it each time it is read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    """A mapping whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class Where(Strict):
    """Restricts an entry to some ID sets or networks; an empty list means all."""

    id: list[Name] = []
    """ID datasets the entry is for."""
    network: list[Name] = []
    """Networks the entry is for."""

    def matches(self, id: str, network: str) -> bool:
        return (not self.id or id in self.id) and (not self.network or network in self.network)


class Network(Strict):
    """An architecture under the name that paths and tables use."""

    name: Name
    """Name in paths and tables."""
    model: str
    """A module of `workflow_scripts/models`."""
    options: dict[str, Any] = {}
    """Options of that module (see Networks below)."""


class MeanStd(Strict):
    """Fixed normalisation per channel, on pixel values in 0..1."""

    mean: tuple[float, float, float]
    """Subtracted, per RGB channel."""
    std: tuple[float, float, float]
    """Divided by, per RGB channel."""


class Warmup(Strict):
    """A learning rate that first rises."""

    epochs: Annotated[int, Field(gt=0)]
    """Epochs until the schedule takes over."""
    start: Fraction
    """Learning rate of the first step as a fraction of lr."""


class Schedule(Strict):
    """Learning rate over the epochs."""

    name: Literal["constant", "cosine", "cosine_epochs", "multistep", "bit"]
    """`cosine` falls from lr to lr * floor over all steps, `cosine_epochs` once an epoch; `multistep` multiplies by
    gamma at each milestone; `bit` rises from 0, then falls to a tenth at each milestone, and its last step ends the
    training."""
    milestones: list[Annotated[int, Field(gt=0)]] = []
    """Epochs after which lr is multiplied by gamma (multistep)."""
    gamma: Annotated[float, Field(gt=0)] = 0.1
    """Factor of a milestone (multistep)."""
    floor: Fraction = 0.0
    """Last learning rate as a fraction of lr (cosine)."""
    warmup: Warmup | None = None
    """Rise linearly at first; left out: no."""
    steps: list[Annotated[int, Field(gt=0)]] = []
    """`bit`: last step of the rise, milestones, last step of all, in rising order; left out: BiT's rule by the number
    of train images."""

    @model_validator(mode="after")
    def _milestones(self) -> Schedule:
        if (self.name == "multistep") != bool(self.milestones):
            raise ValueError("milestones are given exactly when name is multistep")
        if self.steps and (self.name != "bit" or len(self.steps) < 2 or self.steps != sorted(set(self.steps))):
            raise ValueError("steps are given with name bit only, at least two, rising")
        return self


class Training(Strict):
    """Optimisation of one network: SGD over shuffled ID images."""

    epochs: Annotated[int, Field(gt=0)] | None = None
    """Passes over the ID train images; left out exactly with schedule `bit`, which counts in steps."""
    batch_size: Annotated[int, Field(gt=0)]
    """ID images per step."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate at the start."""
    schedule: Schedule
    """How the learning rate falls."""
    momentum: Fraction = 0.9
    """SGD momentum."""
    nesterov: bool = False
    """Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on all parameters."""
    drop_last: bool = False
    """Drop the last, smaller batch of an epoch."""

    @model_validator(mode="after")
    def _length(self) -> Training:
        if (self.epochs is None) != (self.schedule.name == "bit"):
            raise ValueError("epochs is required, but for schedule bit, where it is left out")
        return self


class CropWindow(Strict):
    """A random window that is smaller than the image, or of another size."""

    size: Annotated[int, Field(gt=0)]
    """Side of the window in pixels."""
    padding: Annotated[int, Field(ge=0)] = 0
    """Zero padding on each side before, in pixels."""


class RandomCrop(Strict):
    """Zero padding on each side, then a random window of the original size; of an image whose long side was kept
    (geometry `shortN`) a window of N x N. `{size: 128}` takes windows of another size."""

    random_crop: Annotated[int, Field(gt=0)] | CropWindow
    """Padding in pixels, or size and padding."""


class HorizontalFlip(Strict):
    """Mirror left-right."""

    horizontal_flip: Fraction
    """Probability."""


class Jitter(Strict):
    """How much colours change."""

    brightness: Annotated[float, Field(ge=0)] = 0.0
    """Factor in max(0, 1 - x)..1 + x; 0: unchanged."""
    contrast: Annotated[float, Field(ge=0)] = 0.0
    """As brightness."""
    saturation: Annotated[float, Field(ge=0)] = 0.0
    """As brightness."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Turn in -x..x of the full circle."""
    p: Fraction = 1.0
    """Probability that an image is changed at all."""


class ColorJitter(Strict):
    """Brightness, contrast, saturation and hue by random factors, in random order."""

    color_jitter: Jitter
    """How much, and how often."""


class Grayscale(Strict):
    """Grey, in three equal channels."""

    grayscale: Fraction
    """Probability."""


class ResizedWindow(Strict):
    """A random window and the size it is brought to."""

    size: Annotated[int, Field(gt=0)]
    """Side of the result in pixels."""
    scale: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    """Smallest and largest share of the image's area."""
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (3 / 4, 4 / 3)
    """Smallest and largest width / height."""

    @model_validator(mode="after")
    def _ordered(self) -> ResizedWindow:
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("scale and ratio are [smallest, largest]")
        return self


class RandomResizedCrop(Strict):
    """A random window, resized (bilinear). Of a dataset with `pixels: decoded` it is cut out of the whole image, as the
    first step; otherwise out of the stored one."""

    random_resized_crop: ResizedWindow
    """Size, share of the area, shape."""


_AUGMENTATIONS = {"random_crop": "RandomCrop", "horizontal_flip": "HorizontalFlip", "color_jitter": "ColorJitter",
                  "grayscale": "Grayscale", "random_resized_crop": "RandomResizedCrop"}


def _kind(step: Any) -> str | None:
    names = step if isinstance(step, dict) else getattr(type(step), "model_fields", ())
    return next((_AUGMENTATIONS[name] for name in names if name in _AUGMENTATIONS), None)


Augmentation = Annotated[
    Annotated[RandomCrop, Tag("RandomCrop")] | Annotated[HorizontalFlip, Tag("HorizontalFlip")]
    | Annotated[ColorJitter, Tag("ColorJitter")] | Annotated[Grayscale, Tag("Grayscale")]
    | Annotated[RandomResizedCrop, Tag("RandomResizedCrop")],
    Discriminator(_kind, custom_error_type="augmentation",
                  custom_error_message=f"one of {', '.join(_AUGMENTATIONS)} expected")]


class Checkpoint(Strict):
    """Weights that were trained elsewhere: a file of tensors, read without executing anything in it."""

    file: str
    """Path below the data root, absolute path or `file://` URL; where nothing is there, `url` is downloaded."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None
    """Expected hash of the file, or its first digits (torchvision's file names end in eight of them)."""
    key: str = ""
    """Entry of the file that holds the tensors, e.g. `state_dict`; left out: the file is the tensors."""
    strip_prefix: str = ""
    """Prefix to take off every tensor's name, e.g. `module.`."""
    rename: dict[str, str] = {}
    """Prefixes of tensor names to replace."""
    drop: list[str] = []
    """Prefixes of tensors of the file that the network does not have (heads that served training alone)."""
    fresh: list[str] = []
    """Prefixes of tensors of the network that the file does not have: they are the parent's, or start at random."""
    probe: bool = False
    """Fit the head on the ID train images, since the file has none or an untrained one; it says the ID accuracy."""
    url: Annotated[str, Field(pattern="^(https?://|$)")] = ""
    """Address of the file."""
    head: Literal["load", "new"] = "load"
    """`new`: the file's head is of other classes; the network keeps its own fresh one."""
    background: bool = False
    """The file's network has K + 1 outputs, the first of which is the background."""


class Select(Strict):
    """Train against a part of the outliers."""

    rule: Literal["random", "learned"]
    """`random`: each image with the same chance; `learned`: in proportion to the weights of another recipe."""
    ratio: Annotated[float, Field(gt=0, le=1)]
    """Share of the images that is kept, on average (`size: drawn`) or exactly."""
    weights: Name | None = None
    """Recipe that learned the weights (same ID set, network and seed), for `learned`."""
    size: Literal["drawn", "exact"] = "drawn"
    """`drawn`: as released, `learned` keeps each image or not by its own draw; `exact`: ratio times all images."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Of the draw; left out: the seed of the network."""

    @model_validator(mode="after")
    def _weights(self) -> Select:
        if (self.rule == "learned") != (self.weights is not None):
            raise ValueError("weights names a recipe exactly when rule is learned")
        return self


class Outliers(Strict):
    """A set of images without ID semantics that a method trains against."""

    dataset: Name
    """A row of `config/datasets.yaml`; its train split."""
    batch_size: Annotated[int, Field(gt=0)] = 256
    """Outlier images per step."""
    order: Literal["shuffled", "block"] = "shuffled"
    """`block`: a contiguous run of images from a random place in each epoch."""
    select: Select | None = None
    """Train against a part of them; left out: all."""


class Masks(Strict):
    """Label maps of the train images, from the class activation maps of a classifier."""

    classifier: Name
    """Recipe whose network makes them (same ID set, network and seed); `options` are those of the stage."""
    options: dict[str, Any] = {}
    """Options of `workflow_scripts/cam.py`; left out: its defaults."""


class Validation(Strict):
    """ID train images that are held out to choose the epoch."""

    count: Annotated[int, Field(gt=0)]
    """How many."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of their draw, where there is no list."""
    list: str | None = None
    """File of image numbers, one in a line, counted from 0."""


class Among(Strict):
    """Of several recipes, the network that does best on held-out ID train images and held-out outliers.

    No test image is involved. The recipes share their normalisation, their `validation` (the ID images) and their
    outlier set, whose row in the table of datasets holds outliers out (`hold_out`).
    """

    among: Annotated[list[Name], Field(min_length=2)]
    """Names of recipes that train; of equally good ones the first is taken."""
    by: Literal["auroc", "fpr95", "aupr_in", "aupr_out", "detection_error", "accuracy", "aurc"] = "auroc"
    """What is best: of the held-out images against the outliers, or of the ID task, by the softmax probability."""


class Recipe(Strict):
    """How the weights of a network come to be: trained by a method, read from a file, or chosen among others."""

    name: Name
    """Name in paths; defects of the release are appended (`npos+B1`)."""
    label: str
    """Name in tables and figures."""
    method: str = ""
    """A module of `workflow_scripts/methods`."""
    options: dict[str, Any] = {}
    """Options of that module (see Methods below)."""
    normalise: Literal["per_image"] | MeanStd | None = None
    """Pixel values to network inputs: a fixed mean and std, or `per_image`: zero mean and unit std of each image.
    Required but with `choose`."""
    augment: list[Augmentation] = []
    """Random changes to the train images, in order."""
    trunk: bool = False
    """Train on the output of the parent's frozen trunk, computed once for each train image (model `clip_vit`)."""
    views: Literal[1, 2] = 1
    """How many augmentations of each image a step sees (2: methods that train contrastively)."""
    training: Training | None = None
    """Optimisation."""
    checkpoint: Checkpoint | None = None
    """Weights from a file, instead of method and training."""
    choose: Among | None = None
    """One of other recipes' networks, instead of method and training."""
    outliers: Outliers | None = None
    """Images to train against, for methods that do."""
    images: Name | None = None
    """Dataset whose train split is trained on instead of the ID set's: the same images in another size."""
    masks: Masks | None = None
    """Label maps to train on, for methods that do."""
    validation: Validation | None = None
    """ID train images held out; left out: none."""
    keep: Literal["last", "best"] = "last"
    """The epoch whose weights are kept: the last one, or the one of best validation accuracy."""
    parent: Name | None = None
    """Recipe whose weights (same ID set, network and seed) are the start; none: random initialisation."""
    released: list[str] = []
    """Defects of the released code to reproduce in this recipe, e.g. [npos.B1]; none: corrected."""
    where: Where = Where()
    """ID sets and networks this entry is for."""

    @model_validator(mode="after")
    def _one_origin(self) -> Recipe:
        trained, read = bool(self.method and self.training), self.checkpoint is not None
        if self.choose is not None:
            extra = sorted(self.model_fields_set - {"name", "label", "choose", "where"})
            if extra:
                raise ValueError(f"recipe '{self.name}' chooses among others, which say themselves: {', '.join(extra)}")
            return self
        if trained == read or (read and (self.method or self.training)):
            raise ValueError(f"recipe '{self.name}' needs either method and training, or checkpoint, or choose")
        if read and self.parent and not self.checkpoint.fresh:
            raise ValueError(f"recipe '{self.name}': a checkpoint with a parent needs checkpoint.fresh, the tensors "
                             "that come from the parent")
        if self.trunk and not (trained and self.parent):
            raise ValueError(f"recipe '{self.name}': trunk needs a method, and a parent whose trunk it is")
        if self.normalise is None:
            raise ValueError(f"recipe '{self.name}' needs normalise")
        if self.keep == "best" and self.validation is None:
            raise ValueError(f"recipe '{self.name}': keep: best needs validation")
        return self


class Sweep(Strict):
    """Choose options of a score on ID train images against pseudo-OOD images, without test OOD data."""

    sweep: dict[str, Any] = {}
    """Options of `workflow_scripts/sweep.py`; left out: its defaults."""


class Score(Strict):
    """A post-hoc score under the name that tables use."""

    name: Name
    """Name in paths and tables."""
    score: str = ""
    """A module of `workflow_scripts/scores`; left out: the one called `name`."""
    label: str = ""
    """Name in tables and figures; left out: `name`."""
    options: dict[str, Any] = {}
    """Options of that module (see Scores below)."""
    choose: Sweep | None = None
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
    """OOD datasets by group, e.g. near: [...], far: [...]; their test splits are scored."""
    fusion: Fusion | None = None
    """Adds to each score a second one, `{score}_fused`, that joins it with a background score; left out: none."""
    seeds: int | list[int] | None = None
    """Own seeds of this experiment; left out: the seeds of the whole configuration."""
    compat: list[Literal["bg-resample", "dfb", "goe", "himplos", "npos", "openood", "scood"]] = []
    """Papers whose own metric rules are computed too, for every network on this ID set (`fpr95@himplos`, ...).
    `scood` is SC-OOD's reference protocol, which counts as ID what its lists say belongs to an ID class."""


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
    """Where it was published."""
    headline: str = ""
    """Score whose histograms are drawn; left out: the first of the experiment."""
    pictures: list[Picture] = []
    """The paper's own pictures."""
    reliability: bool = False
    """Figures of that score as a confidence: risk over coverage, right, wrong and OOD images, reliability diagram; and
    AURC and ECE in the tables."""


class Fidelity(Strict):
    """Corrected or as released."""

    released: list[str] = []
    """Defects of the released code to reproduce in every recipe they concern; empty: corrected."""


class Features(Strict):
    """The forward pass over all sets of a trained network."""

    batch_size: Annotated[int, Field(gt=0)] = 256
    """Images per forward pass."""
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
    """Images per dataset and split. No large set is packed for them: they come from the raw files."""


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
    """Configuration files (relative to the repository) whose lists are put before this one's."""
    data_root: str | None = None
    """Folder of the raw data; left out: the environment variable OOD_DATA."""
    resources: str = "resources"
    """Folder of downloaded archives and of the lock file of their checksums."""
    offline: bool = False
    """True: download nothing; the run ends with a list of the files to place."""
    seeds: Annotated[int | list[int], Field(validate_default=True)] = 1
    """Seeds of every random choice, as a list or a count (3 means 0, 1, 2); each trains its own networks."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto: a GPU where there is one."""
    gpus: Literal["auto"] = "auto"
    """Which GPU a job takes: `auto` is the one with the most free memory."""
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

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: int | list[int]) -> list[int]:
        seeds = list(range(value)) if isinstance(value, int) else value
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(f"at least one seed, each once, none negative (found {value!r})")
        return seeds
