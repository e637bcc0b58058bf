"""What `limit.images` makes of recipes and scores: batches, held-out images, banks that fit into small sets.

A configuration that is cut short to try it must not end in the middle for want of images. What counts images is cut;
what cannot be cut is refused before the first job, with a number of images that is enough.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.config.models import Config, Recipe, Score
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.stages.sections.tune_options import Sweep

KEPT = 16  # outliers that a selection keeps at least, on average
MOST = 2**24  # images at which the search for enough of them gives up


def recipe(given: Recipe, id: str, datasets: Mapping[str, Dataset], config: Config) -> Recipe:
    """A recipe whose batches, held-out images and banks of features fit into sets of `limit.images`.

    Raises:
        OODError: they cannot: the method needs more images.
    """
    images = config.limit.images
    if images is None or given.training is None:
        return given
    _enough(images, f"recipe '{given.name}'", lambda n: _unfit(_cut(given, id, datasets, n), config))
    return _cut(given, id, datasets, images)


def score(given: Score, id: str, datasets: Mapping[str, Dataset], config: Config) -> Score:
    """A score whose neighbours are ID train images of `limit.images`.

    Raises:
        OODError: it cannot be fitted to so few.
    """
    images = config.limit.images
    if images is None or id not in datasets:
        return given
    spec = plugins.spec("scores", given.module)
    _enough(images, f"score '{given.name}'", lambda n: (
        f"it is fitted to at least {spec.least} ID train images, not {kept_images(datasets[id], n)}"
        if kept_images(datasets[id], n) < spec.least else None))
    if not spec.bank:
        return given
    count = kept_images(datasets[id], images)
    options = plugins.parse_options("scores", given.module, given.options, f"score '{given.name}'")
    changed: dict = {"options": {**given.options, spec.bank: min(getattr(options, spec.bank), count)}}
    if given.tune is not None and spec.bank in spec.tune:
        sweep = Sweep.load(json.dumps(given.tune.sweep), f"score '{given.name}', key tune.sweep")
        tried = dict.fromkeys(min(value, count - 1) for value in getattr(sweep, spec.bank))
        changed["tune"] = given.tune.model_copy(update={"sweep": {**given.tune.sweep, spec.bank: list(tried)}})
    return given.model_copy(update=changed)


def rules(id: str, compat: Iterable[str], ood: Iterable[str], datasets: Mapping[str, Dataset], config: Config) -> None:
    """Refuse OOD sets of `limit.images` of which a paper's metric rule draws more images than they have.

    Args:
        id: the ID set.
        compat: rules that count on it.
        ood: its OOD sets.

    Raises:
        OODError: naming the first such rule and set.
    """
    images = config.limit.images
    if images is None:
        return
    for rule in compat:
        draws = plugins.spec("metrics.rules", plugins.metric_rules()[rule]).draws
        for name in ood:
            def problem(count: int, name: str = name, draws: float = draws) -> str | None:
                wanted = int(draws * kept_images(datasets[id], count, "test"))
                left = kept_images(datasets[name], count, "test")
                return f"it draws {wanted} images of '{name}', which then has {left}" if wanted > left else None

            _enough(images, f"compat '{rule}' on '{id}'", problem)


def kept_images(row: Dataset, images: int, split: Literal["train", "test"] = "train") -> int:
    """Images of a set that `limit.images` cuts: as many of each class, at least two (stage prepare_dataset)."""
    classes = _classes(row)
    count = max(2, images // classes) * classes if classes else images
    return min(count, row.counts.get(split, count))


def _classes(row: Dataset) -> int:
    """Classes of a labelled set, else 0."""
    return row.classes if isinstance(row.classes, int) else len(row.classes)


def _cut(given: Recipe, id: str, datasets: Mapping[str, Dataset], images: int) -> Recipe:
    """The recipe for sets of so many images."""
    assert given.training is not None
    changed: dict = {}
    count = kept_images(datasets[given.images or id], images)
    if given.validation:
        held = min(given.validation.count, -(-images // 10))
        changed["validation"] = given.validation.model_copy(update={"count": held, "list": None})
        count -= held
    classes, bank = _classes(datasets[given.images or id]), plugins.spec("methods", given.method).bank
    if bank and given.training.epochs:
        options = plugins.parse_options("methods", given.method, given.options, f"recipe '{given.name}', key options")
        left = max(2, count // classes * given.views * (given.training.epochs - 1))
        cut = {name: left for name in bank if getattr(options, name) > left}
        changed["options"] = {**given.options, **cut}
    changed["training"] = given.training.model_copy(update={"batch_size": min(given.training.batch_size, count)})
    if given.outliers and given.outliers.dataset in datasets:
        left, select = kept_images(datasets[given.outliers.dataset], images), given.outliers.select
        if select:
            select = select.model_copy(update={"ratio": max(select.ratio, min(1.0, KEPT / left))})
            left = max(1, int(left * select.ratio / 2))
        changed["outliers"] = given.outliers.model_copy(update={
            "batch_size": min(given.outliers.batch_size, left), "select": select})
    return given.model_copy(update=changed)


def _unfit(cut: Recipe, config: Config) -> str | None:
    """Why a recipe that is cut does not train, where it would in full."""
    assert cut.training is not None
    spec, gpus = plugins.spec("methods", cut.method), config.gpus_of(cut)
    if cut.training.batch_size < gpus:
        return f"batches of {cut.training.batch_size} cannot be shared by {gpus} GPUs"
    if cut.outliers:
        options = plugins.parse_options("methods", cut.method, cut.options, f"recipe '{cut.name}', key options")
        try:
            plugins.within(spec.at_most, options, cut.model_dump(), "")
        except OODError as error:
            return str(error).partition(";")[0]
    return None


def _enough(images: int, what: str, problem: Callable[[int], str | None]) -> None:
    """Raises OODError where so many images are too few, and says how many are enough."""
    said = problem(images)
    if not said:
        return
    too_few, enough = images, images
    while problem(enough):
        too_few, enough = enough, 2 * enough
        if enough > MOST:  # not for want of images
            return
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (middle, enough) if problem(middle) else (too_few, middle)
    raise OODError(f"limit.images: {images} are too few for {what}: {said}; {enough} are enough")
