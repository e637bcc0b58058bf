"""Train images that are decoded once and held on the device."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from tests import typed
from tests.data.test_loading import archive, decoded_set  # noqa: F401  (a fixture)
from tests.training.test_training import RECIPE, small
from workflow_scripts.config.recipes import Recipe
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives.lmdb_store import Archive
from workflow_scripts.data.images.augment import augment, normalise
from workflow_scripts.data.images.geometry import fit
from workflow_scripts.data.images.randomness import permutation
from workflow_scripts.data.images.rows import decoded
from workflow_scripts.data.images.store import Store
from workflow_scripts.methods import cross_entropy
from workflow_scripts.training import images
from workflow_scripts.training.loop import Training
from workflow_scripts.work import checks

CPU = torch.device("cpu")
FLIP = typed.steps([{"horizontal_flip": 0.5}, {"random_crop": 2}])
RESIZED = typed.steps([{"random_resized_crop": {"size": 16, "scale": [0.2, 1.0]}}, {"horizontal_flip": 0.5}])


def held_set(given: images.DecodedImages, geometry: str) -> images.Images:
    store = Store(given.pixels.rows, None, given.labels.numpy(), [], (), {})
    return images.images_of(store, CPU, geometry=geometry)


def passed(data: images.Images, steps: list) -> torch.Tensor:
    """Two epochs of batches, one after the other."""
    return torch.cat([pixels for epoch in (0, 1)
                      for _, pixels in data.batches(permutation(1, epoch, 30).split(8), steps, 1, epoch)])


def test_in_the_sets_own_geometry_the_batches_are_those_that_are_decoded_in_time(archive):  # noqa: F811
    ordinary = decoded_set(archive, 0)
    data = held_set(ordinary, "crop20")
    assert torch.equal(passed(data, FLIP), passed(ordinary, FLIP))
    index = torch.tensor([29, 3])
    assert torch.equal(data.pixels[index], ordinary.pixels[index]) and data.held.dtype == torch.uint8
    how = typed.normalise("per_image")
    assert torch.equal(data.inputs(data.pixels[index], how), normalise(ordinary.pixels[index], how))


def test_a_training_on_them_ends_with_the_same_bits(archive):  # noqa: F811
    ends = []
    for make in (lambda data: data, lambda data: held_set(data, "crop20")):
        data, network = make(decoded_set(archive, 0, np.arange(30) % 3)), small()
        recipe = RECIPE | {"augment": FLIP, "validation": {"count": 6}}
        Training(network, cross_entropy.build(cross_entropy.Options(), ()), data, typed.recipe(recipe), 0).run(
            report=lambda line: None)
        ends.append(network.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_crop_comes_out_of_the_long_image_that_is_held(archive):  # noqa: F811
    """As of that image alone; evaluated images are still those of the set's geometry."""
    ordinary = decoded_set(archive, 0)
    data = held_set(ordinary, "short24")
    index = torch.arange(30)
    found = next(data.batches([index], RESIZED, 5, 2))[1]
    shapes = set()
    for number, image in zip(index.tolist(), found, strict=True):
        whole = np.asarray(fit(decoded(Archive(archive), 29 - number), "short24"))
        shapes.add(whole.shape)
        expected = augment(torch.from_numpy(whole.copy())[None], RESIZED, 5, 2, torch.tensor([number]))[0]
        assert torch.equal(image, expected)
    assert len(shapes) > 2
    assert data.pixels.shape == (30, 20, 20, 3) and torch.equal(data.pixels[index], ordinary.pixels[index])


@pytest.mark.parametrize("geometry", ["short24", "crop20"])
def test_what_does_not_fit_is_refused_before_anything_is_decoded(archive, geometry, monkeypatch):  # noqa: F811
    given = decoded_set(archive, 0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    monkeypatch.setattr("workflow_scripts.training.resident._pixels", None)
    with pytest.raises(OODError, match=rf"^resident: the 30 train images in the geometry {geometry} take 0\.0\d GB, of "
                                       "which 0.00 GB are free in memory; take a smaller geometry, or leave resident"):
        held_set(given, geometry)


def test_stored_images_that_do_not_fit_are_refused_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000_000, 2_000_000))
    monkeypatch.setattr(torch, "from_numpy", lambda array: SimpleNamespace(to=lambda device: array))
    store = Store(np.zeros((500, 32, 32, 3), np.uint8), None, np.zeros(500, np.int64), [], (), {})
    with pytest.raises(OODError, match=r"^pixels: 500 stored images take 0\.00 GB, .* on the GPU; give their dataset"):
        images.images_of(store, torch.device("cuda"))


def test_the_key_names_a_geometry_and_an_archive():
    recipe = {"name": "x", "label": "X", "method": "cross_entropy", "normalise": "per_image",
              "training": {"epochs": 1, "batch_size": 8, "lr": 0.1, "schedule": {"name": "constant"}}}
    assert Recipe.model_validate(recipe).resident is None
    with pytest.raises(ValueError, match="resident"):
        Recipe.model_validate(recipe | {"resident": "native"})
    given = Recipe.model_validate(recipe | {"resident": "short256"})
    run = SimpleNamespace(recipe=given, id="digits")
    for pixels in ("decoded", "stored"):
        plan = SimpleNamespace(runs={0: run}, datasets={"digits": SimpleNamespace(pixels=pixels)})
        if pixels == "decoded":
            checks.resident(plan)
    with pytest.raises(OODError, match="^recipe 'x', key resident: the images of 'digits' are stored"):
        checks.resident(plan)


