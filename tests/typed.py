"""Parts of sections as the wiring builds them, from plain values as tests write them."""

from __future__ import annotations

from typing import Any

from workflow_scripts.core.changes import Normalise, ResizedWindow, Step
from workflow_scripts.core.optimisation import Schedule
from workflow_scripts.methods.recipe import MethodRecipe, OutlierBatches, Recipe, Validation
from workflow_scripts.networks.architecture import Network
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset

_TRAINING = {"epochs": 1, "batch_size": 1, "lr": 1.0, "schedule": {"name": "constant"}}


def recipe(values: dict[str, Any]) -> Recipe:
    """A recipe, with its method where the values name one; an optimisation that does nothing where they have none."""
    kind = MethodRecipe if "method" in values else Recipe
    return kind.of(**{"training": _TRAINING, **values})


def steps(values: list[dict[str, Any]]) -> list[Step]:
    """Random changes to images."""
    return recipe({"normalise": "per_image", "augment": values}).augment


def normalise(value: str | dict[str, Any]) -> Normalise:
    """How pixel values become network inputs."""
    return recipe({"normalise": value}).normalise


def network(values: dict[str, Any]) -> Network:
    """An architecture."""
    return Network.of(**values)


def schedule(values: dict[str, Any]) -> Schedule:
    """A learning rate."""
    return Schedule.model_validate(values)


def validation(values: dict[str, Any] | None) -> Validation | None:
    """Held-out images."""
    return values and Validation.of(**values)


def outliers(values: dict[str, Any]) -> OutlierBatches:
    """Batches of outliers."""
    return OutlierBatches.of(**values)


def window(values: dict[str, Any]) -> ResizedWindow:
    """A random resized crop."""
    return ResizedWindow.model_validate(values)


def dataset(values: dict[str, Any]) -> PrepareDataset:
    """A split of a dataset."""
    return PrepareDataset.of(**values)
