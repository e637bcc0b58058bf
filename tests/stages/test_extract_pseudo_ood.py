"""Pseudo-OOD copies of ID train images: which images, and that their features are those of the changed inputs."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from tests.network_data import CONFIG, images, network, write_all, write_store
from workflow_scripts.data.images import pseudo_ood
from workflow_scripts.data.images.jigsaw import jigsaw
from workflow_scripts.stages import extract_pseudo_ood as stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pseudo")
    write_all(folder)
    return folder


def run(folder, store="rows.train.h5", **options):
    stage.main(["--config", json.dumps({**CONFIG, "options": options}), "--checkpoint", str(folder / "seed0.pt"),
                "--store", str(folder / store), "--out", str(folder / "pseudo.h5"), "--device", "cpu",
                "--threads", "1"])
    with h5py.File(folder / "pseudo.h5") as file:
        return {key: file[key][:] for key in file}


@pytest.mark.parametrize("kind", ["noise", "jigsaw"])
def test_features_and_logits_are_those_of_the_changed_inputs(folder, kind):
    found = run(folder, pseudo_ood=kind, std=0.5, images=100)
    assert len(set(found["index"])) == 100 and set(found["labels"]) == {-1}
    x = torch.from_numpy(images(300, 1)[0][found["index"]]).permute(0, 3, 1, 2) / 63.75 - 2
    index = torch.from_numpy(found["index"])
    changed = pseudo_ood.add_noise(x, 0.5, 0, index) if kind == "noise" else jigsaw(x, 0, index)
    net = network()
    with torch.inference_mode():
        h = net.features(changed)
        np.testing.assert_allclose(found["features"], h.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["logits"], net.head(h).numpy(), rtol=1e-4, atol=1e-5)


def test_half_of_the_images_are_left_for_the_bank(folder):
    index = run(folder, images=100_000)["index"]
    assert len(index) == 150 and (np.diff(index) > 0).all()
    assert {0, 1} == set(index % 2)  # labels may follow one another in a cycle


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(folder):
    first, again, other = (run(folder, images=50, seed=seed)["features"] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_too_few_images(folder, capsys):
    write_store(folder / "two.train.h5", np.array([0, 1]), images=images(2, 1)[0])
    with pytest.raises(SystemExit):
        run(folder, "two.train.h5")
    assert "two.train.h5: choosing options needs at least two images, found 1" in capsys.readouterr().err
