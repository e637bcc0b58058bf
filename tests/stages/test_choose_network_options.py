"""Options of scores that run the network, chosen on validation images and against pseudo-OOD copies."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from tests.network_data import CONFIG, images, network, write_all, write_store
from tests.scores.test_spaces import CLIP, WITH_NETWORK, clip
from workflow_scripts.core import plugins
from workflow_scripts.data.images.pseudo_ood import copies
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.scores import gram, odin
from workflow_scripts.scores.base import Known
from workflow_scripts.stages import choose_network_options as stage
from workflow_scripts.stages import score_network

SETS = ["noise.test", "rows.test"]
"""The ID set second: it is found by its name."""
COPIES = {"images": 40, "seed": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choose")
    write_all(folder)
    return folder


def configured(name, **config):
    return {**CONFIG, "score": name, **config}


def choose(files, config, *more):
    stores = ["--stores", *(str(files / f"{name}.h5") for name in config["sets"])] if config.get("sets") else []
    stage.main(["--config", json.dumps(config), "--checkpoint", str(files / "seed0.pt"), *stores, "--train-store",
                str(files / "rows.train.h5"), "--device", "cpu", "--threads", "1", "--csv", str(files / "points.csv"),
                "--json", str(files / "choice.json"), *more])
    return pd.read_csv(files / "points.csv"), json.loads((files / "choice.json").read_text())


def with_network(monkeypatch, name):
    """CLIP's scores run a small CLIP network with random words in place of the checkpoint."""
    if name in CLIP:
        net = clip()
        for module in (stage, score_network):
            monkeypatch.setattr(module, "trained", lambda *_: net)


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_a_choice_is_the_best_point_and_what_the_score_itself_gives(files, monkeypatch, name):
    with_network(monkeypatch, name)
    rows, choice = choose(files, configured(name, id="rows.test", sets=SETS))
    fitting = rows[rows["why"].isna()]
    assert len(fitting) > 1 and choice["points"] == len(rows) and choice["left_out"] == len(rows) - len(fitting)
    assert choice["auroc"] == fitting["auroc"].max()
    score_network.main(["--config", json.dumps(configured(name, sets=SETS)), "--checkpoint", str(files / "seed0.pt"),
                        "--stores", *(str(files / f"{one}.h5") for one in SETS), "--train-store",
                        str(files / "rows.train.h5"), "--choice", str(files / "choice.json"), "--device", "cpu",
                        "--threads", "1", "--out", str(files / "out.h5")])
    with h5py.File(files / "out.h5") as file:
        found = curve(file["rows.test"][:], file["noise.test"][:])
        used = json.loads(file.attrs["options"])
    assert used == choice["options"] | {option: choice[option] for option in plugins.spec("scores", name).space}
    assert (choice["auroc"], choice["fpr95"]) == pytest.approx((auroc(found), fpr95(found)), abs=1e-12)


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_a_choice_without_ood_images(files, monkeypatch, name):
    with_network(monkeypatch, name)
    rows, choice = choose(files, configured(name, copies=COPIES))
    assert choice["auroc"] == rows["auroc"].max() and choice["points"] == len(rows)
    again, _ = choose(files, configured(name, copies=COPIES))
    pd.testing.assert_frame_equal(rows, again)


def test_copies_are_of_the_images_that_stand_for_id(files):
    """By hand."""
    rows, _ = choose(files, configured("odin", copies=COPIES))
    index = np.sort(np.random.RandomState(3).permutation(300)[:40])
    pixels = torch.from_numpy(images(300, 1)[0][index]).permute(0, 3, 1, 2) / 63.75 - 2
    options = odin.Options(temperature=10.0, epsilon=0.0014)
    other = copies(pixels, torch.from_numpy(index), "noise", 0.3, 3)
    found = [odin.score(options, Known(), None, network(), x).numpy() for x in (pixels, other)]
    row = rows.set_index(["temperature", "epsilon"]).loc[(10.0, 0.0014)]
    assert row["auroc"] == pytest.approx(auroc(curve(*found)), abs=2e-3)


def test_images_that_copies_are_made_of_are_not_learned_from(files, monkeypatch):
    seen = []
    fit = gram.fit

    def watched(options, known, network, batches):
        kept = list(batches)
        seen.append((known.train_labels, torch.cat([labels for _, labels in kept]).numpy(),
                     torch.cat([x for x, _ in kept])))
        return fit(options, known, network, kept)

    monkeypatch.setattr(gram, "fit", watched)
    choose(files, configured("gram", copies=COPIES))
    rest = np.setdiff1d(np.arange(300), np.random.RandomState(3).permutation(300)[:40])
    ((known, labels, x),) = seen  # once for all points
    pixels, expected = images(300, 1)
    assert np.array_equal(known, expected[rest]) and np.array_equal(labels, expected[rest])
    torch.testing.assert_close(x, torch.from_numpy(pixels[rest]).permute(0, 3, 1, 2) / 63.75 - 2, rtol=0, atol=1e-5)


def test_a_point_that_the_network_cannot_be_scored_with_is_left_out(files, monkeypatch):
    """A CLIP network with 100 words, of which 5 % are no 10 groups."""
    net = clip()
    net.negatives = net.negatives[:100]
    monkeypatch.setattr(stage, "trained", lambda *_: net)
    rows, choice = choose(files, configured("neglabel", id="rows.test", sets=SETS))
    left_out = rows[rows["why"].notna()]
    assert choice["left_out"] == len(left_out) > 0 and left_out["why"].str.contains("groups, but of 100 words").all()
    assert choice["groups"] * 1 <= 100 * choice["share"]


@pytest.mark.parametrize(("config", "message"), [
    (configured("mahalanobis_ensemble", id="rows.test", sets=SETS), "declares no options to search among"),
    (configured("knn", id="rows.test", sets=SETS), "no point of its space can be computed; the first: score 'knn' does "
                                                   "not need the network"),
    (configured("odin", id="rosw.test", sets=SETS), "--stores: the configuration asks for rosw.test, the sets are "),
    (configured("odin", id="rows.test", sets=["rows.test"]), "--stores: no OOD set; expected at least one"),
    (configured("odin", id="rows.test", sets=SETS, copies=COPIES), "--train-store: copies are made of the ID train "
                                                                   "images; give their store, and no --stores")])
def test_what_cannot_be_chosen_is_said_in_one_line(files, capsys, config, message):
    with pytest.raises(SystemExit):
        choose(files, config)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_set_of_one_image_is_refused(files, capsys):
    pixels, labels = images(1)
    write_store(files / "one.test.h5", labels, images=pixels)
    with pytest.raises(SystemExit):
        choose(files, configured("odin", id="rows.test", sets=["rows.test", "one.test"]))
    assert "it holds a single image" in capsys.readouterr().err
