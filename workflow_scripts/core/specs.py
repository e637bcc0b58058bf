"""What a plugin declares of itself: ``SPEC = ScoreSpec(needs={"logits"})`` at the top of its module.

One frozen dataclass per kind of plugin. A declaration is read out of the module's syntax tree, so that a configuration
is checked without importing torch; therefore its values are literals. It is then made through the dataclass, as on
import: a field that does not exist or has another type is an error. Standard library only.
"""

from __future__ import annotations

import ast
import functools
import typing
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from workflow_scripts.core.errors import OODError, nearest, unknown

ScoreInput = Literal[
    "logits",  # (N, K) of the images to score
    "features",  # (N, D) penultimate features of the images to score
    "head",  # the last linear layer
    "batchnorm",  # affine part of the last batch norm before pooling
    "statistics",  # class means, counts and overall mean of the ID train features (the precompute stage)
    "train_features",  # (M, D) of the ID train images
    "train_logits",  # (M, K) of the ID train images
    "train_labels",  # (M,)
    "background",  # (N,) logit of the background output of the images to score (DFB's networks have one)
    "train_background",  # (M,) of the ID train images
    "shuffled",  # logits and background of ID train images cut into cells in random order
    "scores",  # (N, 2) two other scores of the images to score
    "train_scores",  # (M, 2) of the ID train images
    "network",  # the network itself: gradients, perturbed inputs or feature maps
    "input_std",  # of each channel, by which the network's inputs were divided
]
Family = Literal["logits", "shaped features", "distance", "gradient", "vision-language", "background", "other"]
"""What a score is made from: the logits alone; a head on features that were clipped, pruned or scaled; distances or
densities in feature space; gradients or images that follow them; texts; a background output."""
PictureInput = Literal[
    "record",  # training record: history, and what the method learned
    "checkpoint",  # weights
    "outliers",  # store of the images trained against
    "selection",  # numbers of the outliers that were kept
    "distances",  # divergence of the outliers under the parent network
    "metrics",  # metrics of all scores
    "scores",  # scores of the ID test set and the OOD sets, a list
    "panels",  # a few images of each set with their activation, label and dense maps
    "train",  # ID train store
    "test",  # ID test store
    "ood",  # stores of the OOD sets, a list
    "train_features",  # features of the ID train images
    "test_features",  # features of the ID test images
    "ood_features",  # features of the OOD sets, a list of files (scores.cached.sets says what they hold)
    "head",  # the last linear layer
    "statistics",  # class means of the ID train features
]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A declaration. Sets and lists may be given for frozen sets and tuples.

    Raises:
        OODError: a value of another type than its field's, naming both.
    """

    def __post_init__(self) -> None:
        declared: type = type(self)
        for name, kind in _types(declared).items():
            value = _checked(getattr(self, name), kind, f"{declared.__name__}.{name}")
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class EvaluatedSpec(Spec):
    """A plugin of the evaluation: it trains nothing."""

    defects: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Defect of a release -> what the released code does, and how its numbers are made here beside the corrected ones;
    empty: it cannot be asked for in `fidelity.released`."""


@dataclass(frozen=True, kw_only=True)
class ScoreSpec(EvaluatedSpec):
    """A module of ``scores``, or a user's score file."""

    family: Family = "other"
    """Among which scores tables show it."""
    needs: frozenset[ScoreInput]
    """What it reads; whoever runs it provides exactly that."""
    tune: tuple[str, ...] = ()
    """Options that can be chosen on ID images alone (`scores[].tune`), with values to try in
    ``stages/tune_options.py``. Of a score that needs the train features one option, which counts train images; such a
    score offers ``among_train(options)``, the options by which an image of the train set itself is scored."""
    space: dict[str, tuple[object, ...]] = field(default_factory=dict)
    """Options worth a search -> values to try, at least two, of which those that a network or bank is too small for are
    left out."""
    confidence: dict[str, Literal["score", "exp", "plus_one"]] = field(default_factory=dict)
    """How its values become the confidence that a release thresholds (a probability, ...): they are it, its logarithm,
    or it less 1. By the options for which that holds, written ``option=value``; ``""``: all others. Empty: no release
    thresholds this score."""
    bank: str = ""
    """Option that counts ID train images, of which there must be as many."""
    least: int = 1
    """ID train images that it can be fitted to at least."""
    joined: bool = True
    """False: `fusion` cannot join it with a background score."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, values in self.space.items():
            if len(set(values)) < 2:
                raise OODError(f"ScoreSpec.space[{option!r}]: expected at least two different values to try, found "
                               f"{values!r}; add one, or leave the option out of the space")


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Spec):
    """A module of ``methods``, or a user's method file."""

    defects: dict[str, str] = field(default_factory=dict)
    """Defects of the released code that it can reproduce: id -> what the released code does."""
    shared_defects: tuple[str, ...] = ()
    """Defects that it can reproduce, too, and another method describes."""
    outliers: str = ""
    """When it trains with the recipe's outliers: `always`, or the id of the defect that makes it so."""
    at_most: tuple[tuple[str, str, str, str], ...] = ()
    """(option, other option, its value, key of the recipe): with that value of the other option, the option may not be
    more than that key."""
    bank: tuple[str, ...] = ()
    """Options that count features of a class, `views` of each train image in an epoch, which must be there before the
    last epoch."""
    reads_test: str = ""
    """The defect that makes it read the ID test images."""
    normalise: tuple[tuple[str, dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]], ...] = ()
    """(defect, `normalise` of a recipe, what replaces it when networks are evaluated)."""
    background: bool = False
    """The network it trains has K + 1 outputs, the first of which is the background."""
    probe: bool = False
    """The network's head is fitted after the training."""
    learns_weights: bool = False
    """The training record holds `theta`, weights of the outliers that a selection can follow."""
    late_from: str = ""
    """Option that is an epoch: before it the options and defects below change nothing, to the bit, so that trainings
    which differ in them alone share those epochs. Empty: every option counts from the first step. Of a user's file it
    says nothing: its trainings share no epochs."""
    late: dict[str, Any] = field(default_factory=dict)
    """Options that count from then on -> a value that `check` accepts with every other option."""
    late_defects: tuple[str, ...] = ()
    """Defects that count from then on."""
    never_late: tuple[str, ...] = ()
    """Options that, at 0, and defects that, reproduced, make it never come."""
    gathered: tuple[str, ...] = ()
    """Options of what is gathered before that epoch for the time after it."""
    carried: tuple[str, ...] = ()
    """Prefixes of the method's parameters and buffers that the shared epochs change."""
    early_form: str = ""
    """Method that it is before that epoch, with the defaults of its options; empty: none but itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for defect in self.defects:
            if "." not in defect.strip("."):
                raise OODError("MethodSpec.defects: expected ids such as paper.1, whose last part stands in paths, "
                               f"found {defect!r}")

    @property
    def switches(self) -> tuple[str, ...]:
        """Ids of all defects that it can reproduce."""
        return (*self.defects, *self.shared_defects)


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A module of ``models``."""

    maps: bool = True
    """False: it has no feature maps, and scores that read them cannot be asked for."""
    draws: tuple[str, ...] = ()
    """When it draws random numbers in training: `always`, an option (unless it is 0), or `option=value`. Empty:
    never."""


@dataclass(frozen=True, kw_only=True)
class PictureSpec(Spec):
    """A module of ``pictures``."""

    needs: frozenset[PictureInput]
    """Kinds of files it reads for each network."""
    scope: Literal["one", "all"] = "all"
    """Whether it is drawn of the first network that the configuration names for it, or of all of them."""


@dataclass(frozen=True, kw_only=True)
class ReaderSpec(EvaluatedSpec):
    """A module of ``data/readers``."""

    beside: tuple[str, ...] = ()
    """Names of files and folders that are read too where they stand beside the raw files."""


@dataclass(frozen=True, kw_only=True)
class RuleSpec(EvaluatedSpec):
    """A module of ``metrics/rules``: how a paper's release counts."""

    columns: tuple[str, ...] = ()
    """Metrics of the OOD task that the paper's tables, or its release, print, in their order; they get a table of their
    own. Empty: what the rule counts stands in the CSV alone."""
    id_columns: tuple[str, ...] = ()
    """Metrics of the ID task beside them, as in the CSV (``aurc@goe``); empty: those of the other tables."""
    says: str = ""
    """How it counts, for readers of that table."""
    draws: float = 0.0
    """OOD images that it draws for each ID image, rounded down: an OOD set has at least as many; 0: it takes all."""


@dataclass(frozen=True, kw_only=True)
class CheckSpec(Spec):
    """A module of ``agreement``: published numbers computed again."""

    files: frozenset[str]
    """What it reads, by the names that ``files`` of its entry in ``config/published_checks.yaml`` uses."""


KINDS: dict[str, type[Spec]] = {"scores": ScoreSpec, "methods": MethodSpec, "models": ModelSpec,
                                "pictures": PictureSpec, "data.readers": ReaderSpec, "metrics.rules": RuleSpec,
                                "agreement": CheckSpec}
"""By the package that holds such plugins."""
S = TypeVar("S", bound=Spec)
_EXAMPLES: dict[type[Spec], str] = {ScoreSpec: 'needs={"logits"}', PictureSpec: 'needs={"metrics"}',
                                    CheckSpec: 'files={"network"}'}


def read(tree: ast.Module, kind: type[S], file: str | Path) -> S:
    """The declaration in a module's syntax tree; nothing of the module is executed.

    Raises:
        OODError: there is none, it is one of another kind, or no literal, or has a wrong field; one line that names
            ``file``, the field and the nearest one.
    """
    allowed = [f.name for f in fields(kind)]
    form = f"SPEC = {kind.__name__}({_EXAMPLES.get(kind, '')})"
    found = None
    for node in tree.body:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        if name == "SPEC":
            found = node.value
        elif name.isupper() and name.lower() in allowed:
            raise OODError(f"{file}: {name} is a field of the declaration; in its place write "
                           f"SPEC = {kind.__name__}({name.lower()}={_bare(node.value)}) and above "
                           f"from {__name__} import {kind.__name__}")
    if found is None:
        raise OODError(f"{file}: it defines no SPEC; expected a line such as {form}, and above from {__name__} import "
                       f"{kind.__name__}")
    called = getattr(found.func, "id", getattr(found.func, "attr", "")) if isinstance(found, ast.Call) else ""
    if not isinstance(found, ast.Call) or called not in (kind.__name__, "Spec") or found.args:
        raise OODError(f"{file}: expected {form} with named fields, found SPEC = {ast.unparse(found)}")
    values = {}
    for keyword in found.keywords:
        if keyword.arg not in allowed:
            name = keyword.arg or "**"
            raise OODError(f"{file}: {kind.__name__} has no field '{name}'{nearest(name, allowed) or '.'} "
                           f"Fields: {', '.join(sorted(allowed))}.")
        try:
            values[keyword.arg] = ast.literal_eval(_bare(keyword.value))
        except (ValueError, SyntaxError):
            raise OODError(f"{file}: {kind.__name__}.{keyword.arg} must be written out as a literal, since it is read "
                           f"without importing the module; found {ast.unparse(keyword.value)}") from None
    lacking = _required(kind) - values.keys()
    if lacking:
        raise OODError(f"{file}: {kind.__name__} lacks the field {', '.join(sorted(lacking))}; expected e.g. {form}")
    try:
        return kind(**values)
    except OODError as error:
        raise OODError(f"{file}: {error}") from None


def _bare(node: ast.expr) -> str:
    """The text of a value; of ``frozenset({...})`` that of the set."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "frozenset" and node.args:
        node = node.args[0]
    return ast.unparse(node)


@functools.cache
def _types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _required(kind: type[Spec]) -> set[str]:
    """Fields without a default."""
    return {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}


def _checked(value: Any, kind: Any, where: str) -> Any:
    """``value`` as a ``kind``: str, bool, float, a Literal, or a tuple, frozenset or dict of such.

    Raises:
        OODError: it is none; the message begins with ``where``.
    """
    outer, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if outer is Literal:
        if value not in inner:
            raise unknown(where, value, inner)
        return value
    if outer is frozenset and isinstance(value, set | frozenset | tuple | list):
        return frozenset(_checked(part, inner[0], where) for part in value)
    if outer is dict and isinstance(value, dict):
        return {_checked(key, inner[0], where): _checked(part, inner[1], f"{where}[{key!r}]")
                for key, part in value.items()}
    if outer is tuple and isinstance(value, tuple | list):
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        if len(kinds) == len(value):
            return tuple(_checked(part, kind, where) for part, kind in zip(value, kinds, strict=True))
    if isinstance(kind, type) and isinstance(value, kind) and (kind in (bool, object) or not isinstance(value, bool)):
        return value
    raise OODError(f"{where}: expected {_words(kind)}, found {value!r}")


def _words(kind: Any) -> str:
    """A type in words."""
    outer, inner = typing.get_origin(kind), typing.get_args(kind)
    if outer is frozenset:
        return f"a set such as {{{', '.join(repr(name) for name in typing.get_args(inner[0])[:2])}}}"
    if outer is dict:
        return f"a dictionary of {_words(inner[0])} -> {_words(inner[1])}"
    if outer is tuple:
        each = [_words(part) for part in inner if part is not ...]
        return f"a tuple, each {each[0]}" if ... in inner else f"({', '.join(each)})"
    return {str: "a text", bool: "True or False", float: "a number with a point"}.get(kind, str(kind))
