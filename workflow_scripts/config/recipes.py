"""How the weights of a network come to be: the keys below `recipes`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from workflow_scripts.config.base import Name, Strict, Where
from workflow_scripts.core.changes import Normalise, Step
from workflow_scripts.core.optimisation import Optimisation, OutlierBatches, Validation

RESIDENT = r"^(squash|crop|short|resize[1-9][0-9]*crop)[1-9][0-9]*(bicubic)?$"


class Training(Optimisation):
    """Optimisation of one network over shuffled ID images."""

    gpus: Annotated[int, Field(gt=0)] | Literal["auto"] | None = None
    """GPUs of this training; left out: the key `gpus` of the configuration."""

    @model_validator(mode="after")
    def _moments(self) -> Training:
        if self.optimiser == "adam" and (self.nesterov or "momentum" in self.model_fields_set):
            raise ValueError("optimiser adam takes neither momentum nor nesterov, which are SGD's; leave them out")
        return self


class Checkpoint(Strict):
    """Weights that were trained elsewhere: a file of tensors, read without executing anything in it."""

    file: str
    """Path below the data root, absolute path or `file://` URL; where nothing is there, `url` is downloaded."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None
    """Expected hash of the file, or its first digits (torchvision's file names end in eight of them)."""
    git_blob: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    """Id of the file's blob in a Git repository, for a file that is known by that alone (`git hash-object FILE`)."""
    key: str = ""
    """Entry of the file that holds the tensors, e.g. `model` or `checkpoint.model`; left out: found."""
    strip_prefix: str = ""
    """Prefix to take off every tensor's name, e.g. `net.`; `module.` and `_orig_mod.` go by themselves."""
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
    classes: Annotated[int, Field(gt=1)] | None = None
    """Outputs of the file's head, where it is known: an ID set of another number of classes is refused before the first
    job."""
    seen: list[Name] = []
    """Datasets beside the ID set whose images the network was trained or tuned on: none of them may be a test set."""


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


class Outliers(OutlierBatches):
    """A set of images without ID semantics that a method trains against."""

    dataset: Name
    """A row of `config/datasets.yaml`; its train split."""
    select: Select | None = None
    """Train against a part of them; left out: all."""


class Masks(Strict):
    """Pseudo-masks of the train images, from the class activation maps of a classifier."""

    classifier: Name
    """Recipe whose network makes them (same ID set, network and seed); `options` are those of the stage."""
    options: dict[str, Any] = {}
    """Options of `workflow_scripts/cams/options.py`; left out: its defaults."""


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
    """A module of `workflow_scripts/methods`, or a Python file of your own (`./my_method.py`, see docs/own.md)."""
    options: dict[str, Any] = {}
    """Options of that module (see Methods below)."""
    normalise: Normalise | None = None
    """Pixel values to network inputs: a fixed mean and std, or `per_image`: zero mean and unit std of each image.
    Required but with `select_best`."""
    augment: list[Step] = []
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
    resident: Annotated[str, Field(pattern=RESIDENT)] | None = None
    """Of a dataset with `pixels: decoded`, decode the train images once, in this geometry (`short256`,
    `resize256crop224`), and hold them on the device as uint8; it must have room for them, and a first random resized
    crop is then cut out of that image, not of the whole one: another input. Images as they are evaluated stay those of
    the dataset's geometry. Left out: decoded in each epoch, in time."""
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
