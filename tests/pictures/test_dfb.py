"""DFB's pictures from made-up maps and scores, and the stage that makes the maps."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.network_data import images, write_store
from workflow_scripts.core.errors import OODError
from workflow_scripts.models import resnet_gn
from workflow_scripts.networks import checkpoint
from workflow_scripts.pictures import foreground_background, score_scatter
from workflow_scripts.pictures.base import Run
from workflow_scripts.stages import make_panels as panels

SECTION = {"name": "small", "model": "resnet_gn", "options": {"blocks": (1, 1), "width": 8}}


def network(path: Path, outputs: int, **about) -> torch.nn.Module:
    torch.manual_seed(outputs)
    net = resnet_gn.build(resnet_gn.Options(blocks=(1, 1), width=8), outputs).eval()
    torch.nn.init.normal_(net.fc.weight)
    checkpoint.save(path, net, {"network": "small", "classes": ["a", "b", "c"], "seed": 0, "history": [], **about})
    return net


def run_panels(folder: Path, second: str) -> None:
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"network": SECTION, "classifier_normalise": half, "normalise": half, "options": {"sigma": 1}, "images": 4}
    panels.main(["--config", json.dumps(config), "--classifier", str(folder / "a.pt"), "--checkpoint",
                 str(folder / second), "--stores", *(str(folder / f"{n}.test.h5") for n in ("rows", "other", "noise")),
                 "--device", "cpu", "--out", str(folder / "panels.h5")])


@pytest.fixture
def folder(tmp_path):
    network(tmp_path / "a.pt", 3)
    for name in ("rows", "other"):
        pixels, labels = images(12)
        write_store(tmp_path / f"{name}.test.h5", labels, 3, images=pixels)
    write_store(tmp_path / "noise.test.h5", np.full(4, -1), 0, inputs=np.zeros((4, 3, 16, 16), np.float32))
    return tmp_path


def test_maps_of_a_few_images(folder, capsys):
    net = network(folder / "b.pt", 4, background=True)
    run_panels(folder, "b.pt")
    with h5py.File(folder / "panels.h5") as file:
        assert list(file) == ["other.test", "rows.test"]  # noise has no pixels
        found = {key: file[f"rows.test/{key}"][:] for key in file["rows.test"]}
    assert {a.shape[:3] for a in found.values()} == {(4, 16, 16)}
    x = torch.from_numpy(found["images"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    dense = torch.nn.functional.interpolate(net.dense(x), (16, 16), mode="bilinear", align_corners=True)
    np.testing.assert_allclose(found["background"], dense.softmax(1)[:, 0].detach(), atol=1e-4)
    assert (found["dense"] == dense.argmax(1).numpy()).mean() > 0.99
    assert found["cam"].max() <= 1 and set(np.unique(found["mask"])) <= {0, 1, 2, 3}
    network(folder / "c.pt", 3)
    with pytest.raises(SystemExit):
        run_panels(folder, "c.pt")
    assert "this network has no background output" in capsys.readouterr().err


def a_run(**files) -> Run:
    return Run("rows", "small", "dense", "DFB", 0, {}, files)


def test_the_picture_of_maps_shows_every_set(folder):
    network(folder / "b.pt", 4, background=True)
    run_panels(folder, "b.pt")
    drawing = foreground_background.draw(foreground_background.Options(columns=2, rows=2), [a_run(
        panels=str(folder / "panels.h5"))], {"rows": "Rows"})
    assert [axis.get_title("left") for axis in drawing.figure.axes] == ["Rows (ID)", "other"]
    assert drawing.facts["mean_background"].keys() == {"rows.test", "other.test"} and "Rows 0." in drawing.caption
    sheet = drawing.figure.axes[0].images[0].get_array()
    assert sheet.shape[0] == 2 * (16 + 1) and sheet.shape[1] == 2 * (5 * 17 + 1)


def test_the_scatter_has_a_panel_for_each_ood_set(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for name in ("energy", "background"):
        files.append(str(tmp_path / f"{name}.h5"))
        with h5py.File(files[-1], "w") as file:
            for key in ("rows.test", "a.test", "b.test", "rows.train"):
                file[key] = rng.normal(size=30)
    drawing = score_scatter.draw(score_scatter.Options(), [a_run(scores=files)], {"a": "A"})
    assert [axis.get_title("left") for axis in drawing.figure.axes] == ["A", "b"]
    assert drawing.facts.keys() == {"a", "b", "rows"} and abs(drawing.facts["a"]["correlation"]) < 1
    assert all(len(axis.lines) == 2 for axis in drawing.figure.axes)
    with pytest.raises(OODError, match="options.foreground: 'enrgy' is not known; did you mean 'energy'"):
        score_scatter.draw(score_scatter.Options(foreground="enrgy"), [a_run(scores=files)], {})
