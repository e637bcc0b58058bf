"""How the weights of a network come to be: the keys below `recipes`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from workflow_scripts.config.base import Fraction, Name, PositiveFraction, Strict, Where


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
    """Optimisation of one network over shuffled ID images."""

    epochs: Annotated[int, Field(gt=0)] | None = None
    """Passes over the ID train images; left out exactly with schedule `bit`, which counts in steps."""
    batch_size: Annotated[int, Field(gt=0)]
    """ID images per step."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate at the start."""
    schedule: Schedule
    """How the learning rate falls."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    """`adam` has the moments of PyTorch's default (0.9 and 0.999), and neither `momentum` nor `nesterov`."""
    momentum: Fraction = 0.9
    """SGD momentum."""
    nesterov: bool = False
    """Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty on all parameters."""
    drop_last: bool = False
    """Drop the last, smaller batch of an epoch."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` computes all before the penultimate features in it; weights, head, loss and optimiser stay float32.
    Faster, and it changes numbers: docs/performance.md."""
    gpus: Annotated[int, Field(gt=0)] | Literal["auto"] | None = None
    """GPUs of this training; left out: the key `gpus` of the configuration."""

    @model_validator(mode="after")
    def _length(self) -> Training:
        if (self.epochs is None) != (self.schedule.name == "bit"):
            raise ValueError("epochs is required, but for schedule bit, where it is left out")
        if self.optimiser == "adam" and (self.nesterov or "momentum" in self.model_fields_set):
            raise ValueError("optimiser adam takes neither momentum nor nesterov, which are SGD's; leave them out")
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
    git_blob: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    """Id of the file's blob in a Git repository, for a file that is known by that alone (`git hash-object FILE`)."""
    key: str = ""
    """Entry of the file that holds the tensors; left out: the file is the tensors, or has them below `state_dict`."""
    strip_prefix: str = ""
    """Prefix to take off every tensor's name, e.g. `net.`; `module.`, which DataParallel adds, goes by itself."""
    rename: dict[str, str] = {}
    """Prefixes of tensor names to replace, as the names are without `module.`."""
    drop: list[str] = []
    """Prefixes of tensors of the file that the network does not have (heads that served training alone)."""
    fresh: list[str] = []
    """Prefixes of tensors of the network that the file does not have: they are the parent's, or start at random."""
    probe: bool = False
    """Fit the head on the ID train images, since the file has none or an untrained one; it says the ID accuracy."""
    url: Annotated[str, Field(pattern=r"^(https?://.*|gdrive:[\w-]+)?$")] = ""
    """Address of the file; `gdrive:ID` for Google Drive."""
    optional: bool = False
    """True: where the file is not there, this recipe and those that start from it are left out, which is said before
    the first job and on the page. The target `optional_weights` downloads such files, for the next run."""
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
    """Of the draw, then the same for every ID set, network and recipe that gives it; left out: each of them has its own
    draw for each of its seeds, as each run of the release has."""

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
    order: Literal["shuffled", "cycle", "block"] = "shuffled"
    """`shuffled`: each epoch begins a pass over the set in a new random order; `cycle`: it goes on with the pass that
    the epoch before left, so that all images are met before one is met again (background data resampling); `block`: a
    contiguous run of images from a random place in each epoch (G-OE)."""
    select: Select | None = None
    """Train against a part of them; left out: all."""


class Masks(Strict):
    """Pseudo-masks of the train images, from the class activation maps of a classifier."""

    classifier: Name
    """Recipe whose network makes them (same ID set, network and seed); `options` are those of the stage."""
    options: dict[str, Any] = {}
    """Options of `workflow_scripts/cams/options.py`; left out: its defaults."""


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
    Required but with `select_best`."""
    augment: list[Augmentation] = []
    """Random changes to the train images, in order."""
    frozen_blocks: bool = False
    """Train on the output of the parent's frozen blocks, computed once for each train image (model `clip_vit`)."""
    views: Literal[1, 2] = 1
    """How many augmentations of each image a step sees (2: methods that train contrastively)."""
    training: Training | None = None
    """Optimisation."""
    checkpoint: Checkpoint | None = None
    """Weights from a file, instead of method and training."""
    select_best: Among | None = None
    """One of other recipes' networks, instead of method and training."""
    outliers: Outliers | None = None
    """Images to train against, for methods that do."""
    images: Name | None = None
    """Dataset whose train split is trained on instead of the ID set's: the same images in another size."""
    masks: Masks | None = None
    """Pseudo-masks to train on, for methods that do."""
    validation: Validation | None = None
    """ID train images held out; left out: none."""
    keep: Literal["last", "best"] = "last"
    """The epoch whose weights are kept: the last one, or the one of best validation accuracy."""
    parent: Name | None = None
    """Recipe whose weights (same ID set, network and seed) are the start; none: random initialisation."""
    initialisation: Literal["fan_out"] | Annotated[float, Field(gt=0)] | None = None
    """Normal start weights of the convolutions: `fan_out` with standard deviation sqrt(2 / (kernel area * out
    channels)) (He et al. 2015), or a number, theirs; left out: as the network's module draws all its weights."""
    released: list[str] = []
    """Defects of the released code to reproduce in this recipe, e.g. [npos.B1]; none: corrected."""
    defects: list[str] | None = None
    """Defects that the script has which this recipe is of: only these can be reproduced; left out: all of its
    method's."""
    where: Where = Where()
    """ID sets and networks this entry is for."""

    @model_validator(mode="after")
    def _one_origin(self) -> Recipe:
        trained, read = bool(self.method and self.training), self.checkpoint is not None
        if self.select_best is not None:
            extra = sorted(self.model_fields_set - {"name", "label", "select_best", "where"})
            if extra:
                raise ValueError(f"recipe '{self.name}' chooses among others, which say themselves: {', '.join(extra)}")
            return self
        if trained == read or (read and (self.method or self.training)):
            raise ValueError(f"recipe '{self.name}' needs either method and training, or checkpoint, or "
                             "select_best")
        if self.checkpoint and self.parent and not self.checkpoint.fresh:
            raise ValueError(f"recipe '{self.name}': a checkpoint with a parent needs checkpoint.fresh, the tensors "
                             "that come from the parent")
        if self.frozen_blocks and not (trained and self.parent):
            raise ValueError(f"recipe '{self.name}': frozen_blocks needs a method, and a parent whose blocks "
                             "they are")
        if self.initialisation is not None and (not trained or self.parent):
            raise ValueError(f"recipe '{self.name}': initialisation is of a training without parent; leave it out")
        if self.normalise is None:
            raise ValueError(f"recipe '{self.name}' needs normalise")
        if self.keep == "best" and self.validation is None:
            raise ValueError(f"recipe '{self.name}': keep: best needs validation")
        return self
