"""Features, logits, labels and head of any tool, as arrays by name, checked before a score reads them.

An array is called ``{set}_{kind}``: the sets are ``train`` (ID train images), ``id`` (ID test images) and any other
name, which is an OOD set; the kinds are ``features`` (N, D), ``logits`` (N, K) and ``labels`` (N,). ``head_weight``
(K, D) and ``head_bias`` (K,) are the last linear layer. Logits that are not given are computed from features and head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.scores.arrays import affine
from workflow_scripts.scores.base import Head
from workflow_scripts.scores.cached import ROWS

TRAIN, ID = "train", "id"
KINDS = {"features": 2, "logits": 2, "labels": 1}
"""Kind of array of a set -> its dimensions."""
HEAD = {"weight": 2, "bias": 1}
"""Part of the head -> its dimensions."""
OFF = 0.02  # of the largest logit, that logits may differ from the head's: they may be in half precision
FORM = ("names are {set}_features, {set}_logits and {set}_labels with the sets train, id and your OOD sets, "
        "head_weight and head_bias")


@dataclass(frozen=True)
class Set:
    """One set; it offers what scores are given of a features file (:class:`workflow_scripts.scores.cached.Features`).

    Args:
        name: of the set.
        file: its arrays by kind: ``features`` (N, D), ``logits`` (N, K), ``labels`` (N,) int64; at least one of the
            first two.
    """

    name: str
    file: Mapping[str, np.ndarray]

    @property
    def path(self) -> str:
        """What errors call it."""
        return f"set {self.name}"

    @property
    def size(self) -> int:
        """Number of images."""
        return len(next(iter(self.file.values())))

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        return self.file["labels"]

    def chunks(self) -> Iterator[slice]:
        """Blocks of rows."""
        return (slice(start, min(start + ROWS, self.size)) for start in range(0, self.size, ROWS))

    def read(self, key: str, rows: slice) -> np.ndarray:
        """Rows of ``features`` or ``logits``. -> (n, D or K)."""
        return self.file[key][rows]


@dataclass(frozen=True)
class Given:
    """All arrays: the ID test set, the OOD sets by name, and what is known before a test image is seen."""

    id: Set
    ood: Mapping[str, Set]
    train: Set | None
    head: Head | None

    @property
    def tests(self) -> list[Set]:
        """The sets to score, ID first."""
        return [self.id, *self.ood.values()]

    @property
    def needs(self) -> frozenset[str]:
        """What scores may need (:data:`workflow_scripts.core.specs.ScoreInput`) and these arrays give."""
        found = {kind for kind in ("features", "logits") if all(kind in one.file for one in self.tests)}
        if self.train is not None:
            found |= {f"train_{kind}" for kind in self.train.file}
            found |= {"statistics"} if {"features", "labels"} <= self.train.file.keys() else set()
        return frozenset(found | ({"head"} if self.head is not None else set()))


def read(arrays: Mapping[str, Any]) -> Given:
    """The arrays by what they are.

    Args:
        arrays: by name, see above; features and logits of any float type, labels whole numbers.

    Raises:
        OODError: a name that is none of these, another shape or type, a number that is not finite, sizes that do not go
            together, a set that lacks what another one has, a head that does not give the logits; one line.
    """
    sets: dict[str, dict[str, np.ndarray]] = {}
    for key in arrays:
        name, _, kind = key.rpartition("_")
        if not name or kind not in (HEAD if name == "head" else KINDS):
            raise OODError(f"'{key}' is no array that a score reads{_nearest(key)}; {FORM}")
        sets.setdefault(name, {})[kind] = _array(key, arrays[key], (HEAD if name == "head" else KINDS)[kind])
    head = _head(sets.pop("head", None))
    for name, content in sets.items():
        _check_lengths(name, content)
    if ID not in sets or not sets.keys() - {ID, TRAIN}:
        raise OODError(f"expected arrays of the ID test set (id_...) and of an OOD set, found those of "
                       f"{', '.join(sets) or 'nothing'}; {FORM}")
    for kind, layer in (("features", 1), ("logits", 0)):
        _check_columns(kind, sets, None if head is None else head.weight.shape[layer])
    if head is not None:
        _logits(sets, head)
    for name, content in sets.items():
        lacking = sorted((sets[ID].keys() - {"labels"}) - content.keys())
        if lacking and name != TRAIN:
            raise OODError(f"set {name} lacks {name}_{lacking[0]}, which the ID test set has; give it, or leave "
                           f"id_{lacking[0]} out")
        if "labels" in content and name in (ID, TRAIN):
            _check_labels(name, content["labels"], sets[ID].get("logits"))
    made = {name: Set(name, content) for name, content in sets.items()}
    return Given(made.pop(ID), {name: one for name, one in made.items() if name != TRAIN}, made.get(TRAIN), head)


def _nearest(key: str) -> str:
    """The nearest name that is one, of the same set where it names one."""
    name = key.rpartition("_")[0] or key
    return nearest(key, [f"{name}_{kind}" for kind in KINDS] + [f"head_{part}" for part in HEAD])


def _array(key: str, value: Any, dimensions: int) -> np.ndarray:
    """A checked array; labels as int64, half precision as float32, whole numbers as float64."""
    try:
        array = np.asarray(value)
    except (TypeError, RuntimeError, ValueError) as error:  # a tensor with a gradient, or on a GPU
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OODError(f"{key}: expected an array, found {type(value).__name__} ({reason}); of a tensor give "
                       ".detach().cpu()") from None
    labels = key.endswith("_labels")
    if array.ndim != dimensions:
        expected = {1: "(N,)" if labels else "(K,)", 2: "(K, D)" if key == "head_weight" else "(N, D or K)"}[dimensions]
        raise OODError(f"{key}: expected shape {expected}, found {array.shape}")
    if array.dtype.kind not in ("iub" if labels else "fiu"):
        raise OODError(f"{key}: expected {'whole' if labels else 'real'} numbers, found {array.dtype}")
    if labels:
        return array.astype(np.int64)
    if not np.isfinite(array).all():
        row = np.argwhere(~np.isfinite(array))[0]
        raise OODError(f"{key}: NaN or infinite in row {row[0]} ({int((~np.isfinite(array)).sum())} of {array.size} "
                       "numbers); correct what computed them, do not drop the images")
    if array.dtype.kind != "f":
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def _check_lengths(name: str, content: Mapping[str, np.ndarray]) -> None:
    sizes = {f"{name}_{kind}": len(array) for kind, array in content.items()}
    if len(set(sizes.values())) > 1:
        raise OODError(f"set {name}: expected a row for each image in every array, found "
                       f"{', '.join(f'{key} {size}' for key, size in sizes.items())}")
    if min(sizes.values()) < 2:
        raise OODError(f"set {name}: expected at least two images, found {min(sizes.values())}")
    if content.keys() <= {"labels"}:
        raise OODError(f"set {name}: expected {name}_features or {name}_logits, found labels alone")


def _check_columns(kind: str, sets: Mapping[str, Mapping[str, np.ndarray]], expected: int | None) -> None:
    """Refuse features or logits whose sizes differ among sets, or from the head's."""
    found = {f"{name}_{kind}": content[kind].shape[1] for name, content in sets.items() if kind in content}
    if expected is not None:
        found = {f"head_{'weight' if kind == 'features' else 'bias'}": expected, **found}
    if len(set(found.values())) > 1:
        sizes = ", ".join(f"{key} {size}" for key, size in found.items())
        raise OODError(f"{kind}: expected the same number of columns everywhere, found {sizes}; they belong to "
                       "different networks")


def _head(parts: Mapping[str, np.ndarray] | None) -> Head | None:
    if parts is None:
        return None
    lacking = sorted(HEAD.keys() - parts.keys())
    if lacking:
        raise OODError(f"head_{lacking[0]} is missing; the head is head_weight (K, D) and head_bias (K,), zeros where "
                       "it has no bias")
    if len(parts["weight"]) != len(parts["bias"]):
        raise OODError(f"head: expected head_weight (K, D) and head_bias (K,), found {parts['weight'].shape} and "
                       f"{parts['bias'].shape}")
    return Head(parts["weight"], parts["bias"])


def _logits(sets: Mapping[str, dict[str, np.ndarray]], head: Head) -> None:
    """Compute the logits that are missing, and refuse those that are not the head's."""
    for name, content in sets.items():
        if "features" not in content:
            continue
        computed = affine(content["features"], head)
        given = content.setdefault("logits", computed)
        apart = float(np.abs(given - computed).max())
        if apart > OFF * max(float(np.abs(computed).max()), 1.0):
            raise OODError(f"{name}_logits differ from head_weight @ {name}_features + head_bias by up to {apart:.3g}; "
                           "give the features that enter the last linear layer, or leave the head out")


def _check_labels(name: str, labels: np.ndarray, logits: np.ndarray | None) -> None:
    classes = int(labels.max()) + 1 if logits is None else logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise OODError(f"{name}_labels: expected classes 0 to {classes - 1}, found {labels.min()} to {labels.max()}")
