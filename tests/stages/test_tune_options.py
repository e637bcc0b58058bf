"""The pseudo-OOD sweep of HIMPLoS: its changed images, its grid, its choice, its stage."""

from __future__ import annotations

import csv
import json
import math

import h5py
import numpy as np
import pytest
import torch

from tests.network_data import CONFIG, images, network, write_all, write_store
from workflow_scripts.data.images import pseudo_ood
from workflow_scripts.data.images.jigsaw import jigsaw
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.scores import energy, himplos
from workflow_scripts.scores.base import Batch
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import precompute_statistics as precompute
from workflow_scripts.stages import tune_options as sweep
from workflow_scripts.stages.sections.tune_options import Sweep


def test_the_released_grid_is_the_default():
    """val_score.py of the same author: p in steps of 10, seven thresholds, noise of 0.3 for CIFAR."""
    options = Sweep()
    assert options.p == tuple(range(0, 100, 10)) and options.clip == (0.1, 0.5, 0.8, 1.0, 1.5, 2.25, 1e5)
    assert (options.pseudo_ood, options.std) == ("noise", 0.3)


def test_noise_is_normal_and_belongs_to_the_image():
    index = torch.arange(400)
    z = pseudo_ood.normals(1, index, 151)
    assert z.shape == (400, 151)
    values = np.sort(z.flatten().double().numpy())
    cdf = 0.5 * (1 + torch.erf(torch.from_numpy(values) / math.sqrt(2)).numpy())
    # Kolmogorov-Smirnov at 0.1 %: 1.95 / sqrt(n)
    assert np.abs(cdf - np.arange(1, values.size + 1) / values.size).max() < 1.95 / math.sqrt(values.size)
    assert np.abs(np.corrcoef(z.T.numpy())[np.triu_indices(151, 1)]).max() < 0.3  # six standard deviations
    torch.testing.assert_close(pseudo_ood.normals(1, index[[7, 300]], 151), z[[7, 300]], rtol=0, atol=0)
    assert not torch.equal(pseudo_ood.normals(2, index, 151), z)
    x = torch.rand(5, 3, 6, 6)
    noise = (pseudo_ood.add_noise(x, 0.5, 1, index[:5]) - x) / 0.5
    torch.testing.assert_close(noise.reshape(5, -1), pseudo_ood.normals(1, index[:5], 108), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [9, 11])
def test_jigsaw_moves_whole_cells(size):
    """A cell of one value stays one; all nine remain; left-over rows and columns do not move."""
    cell = torch.arange(9.0).reshape(3, 3).repeat_interleave(3, 0).repeat_interleave(3, 1)
    x = torch.full((500, 3, size, size), -1.0)
    x[:, :, :9, :9] = cell + 10 * torch.arange(3.0)[:, None, None]
    moved = jigsaw(x, 0, torch.arange(500))
    parts = moved[:, :, :9, :9].reshape(500, 3, 3, 3, 3, 3)
    assert (parts.amax(dim=(3, 5)) == parts.amin(dim=(3, 5))).all()
    order = parts[:, 0, :, 0, :, 0].reshape(500, 9)
    assert torch.equal(order.sort(dim=1).values, torch.arange(9.0).expand(500, 9))
    torch.testing.assert_close(parts[:, 2, :, 0, :, 0].reshape(500, 9), order + 20)
    assert (moved[:, :, 9:] == -1).all() and (moved[:, :, :, 9:] == -1).all()
    first = torch.bincount(order[:, 0].long(), minlength=9)
    assert (first - 500 / 9).abs().max() < 5 * (500 / 9) ** 0.5
    assert torch.equal(jigsaw(x[3:4], 0, torch.tensor([3])), moved[3:4])


ROWS = [{"p": p, "clip": clip, "auroc": a, "fpr95": f} for p, clip, a, f in
        [(0, 1.0, 0.8, 0.5), (10, 1.0, 0.9, 0.6), (10, 2.0, 0.9, 0.6), (20, 2.0, 0.9, 0.6), (30, 2.0, 0.7, 0.1)]]


@pytest.mark.parametrize(("criterion", "choice"), [("auroc", (10, 2.0)), ("fpr95", (30, 2.0))])
def test_the_choice_is_the_best_and_among_equals_the_least(criterion, choice):
    row = sweep.best(ROWS, criterion)
    assert (row["p"], row["clip"]) == choice


# -- the stage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    write_all(folder)
    features.main(["--config", json.dumps({**CONFIG, "sets": ["rows.train"]}), "--checkpoint", str(folder / "seed0.pt"),
                   "--stores", str(folder / "rows.train.h5"), "--out", str(folder / "features.h5"), "--device", "cpu",
                   "--threads", "1"])
    precompute.main(["--train", str(folder / "features.h5"), "--out", str(folder / "statistics.h5")])
    return folder


def run(files, store="rows.train.h5", statistics="statistics.h5", **config):
    for name in ("sweep.csv", "choice.json"):
        (files / name).unlink(missing_ok=True)
    sweep.main(["--config", json.dumps({**CONFIG, **config}), "--checkpoint", str(files / "seed0.pt"), "--store",
                str(files / store), "--statistics", str(files / statistics), "--csv", str(files / "sweep.csv"),
                "--json", str(files / "choice.json"), "--device", "cpu", "--threads", "1"])
    with open(files / "sweep.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file)), json.loads((files / "choice.json").read_text())


def scored(h, known, module, options):
    batch = Batch(features=h, logits=h @ known.head.weight.T + known.head.bias)
    return module.score(options, known, module.fit(options, known) if hasattr(module, "fit") else None, batch).numpy()


@pytest.mark.parametrize("pseudo", ["noise", "jigsaw"])
def test_stage_equals_the_score_on_the_changed_images(files, monkeypatch, pseudo):
    """Each point is HIMPLoS itself, in blocks as at once; nothing masked or clipped and no cosine is the energy."""
    monkeypatch.setattr(sweep, "ROWS", 64)
    options = {"p": [0, 60], "clip": [0.5, 1e5], "pseudo_ood": pseudo, "std": 0.5, "images": 200}
    rows, choice = run(files, options=options)
    assert [(float(r["p"]), float(r["clip"])) for r in rows] == [(0, 0.5), (0, 1e5), (60, 0.5), (60, 1e5)]
    assert {(r["n_id"], r["n_pseudo"]) for r in rows} == {("150", "150")}  # 300 images: every second one

    net, pixels = network(), images(300, 1)[0][::2]
    known = sweep.evidence(net, files / "statistics.h5", torch.device("cpu"))
    x, index = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 63.75 - 2, torch.arange(150)
    changed = pseudo_ood.add_noise(x, 0.5, 0, index) if pseudo == "noise" else jigsaw(x, 0, index)
    for row in rows:
        point = himplos.Options(p=float(row["p"]), clip=float(row["clip"]))
        joined = curve(*(scored(net.features(part), known, himplos, point) for part in (x, changed)))
        assert float(row["auroc"]) == pytest.approx(auroc(joined), abs=1e-3)  # one pair in 22,500 may swap
        assert float(row["fpr95"]) == pytest.approx(fpr95(joined), abs=0.02)
    nothing = himplos.Options(p=0, clip=1e5, cosine=False)
    np.testing.assert_allclose(scored(net.features(x), known, himplos, nothing),
                               scored(net.features(x), known, energy, energy.Options()), rtol=1e-5)

    best = max(rows, key=lambda row: (float(row["auroc"]), -float(row["fpr95"])))
    assert (choice["auroc"], choice["fpr95"]) == (float(best["auroc"]), float(best["fpr95"]))
    assert choice["options"]["pseudo_ood"] == pseudo and choice["options"]["clip"] == [0.5, 1e5]


def test_k_of_knn_is_chosen_without_an_image_finding_itself(files):
    def chosen(**options):
        sweep.main(["--config", json.dumps({**CONFIG, "score": "knn", "options": {"images": 150, **options}}),
                    "--checkpoint", str(files / "seed0.pt"), "--store", str(files / "rows.train.h5"), "--train",
                    str(files / "features.h5"), "--csv", str(files / "k.csv"), "--json", str(files / "k.json"),
                    "--device", "cpu", "--threads", "1"])
        with open(files / "k.csv", encoding="utf-8") as file:
            return list(csv.DictReader(file)), json.loads((files / "k.json").read_text())

    rows, choice = chosen(K=[1, 5, 299, 300], std=0.5)
    assert [row["K"] for row in rows] == ["1", "5", "299"]  # 300 images, one of them the image itself
    assert choice["K"] == int(max(rows, key=lambda row: float(row["auroc"]))["K"]) and "p" not in choice
    net, pixels = network(), torch.from_numpy(images(300, 1)[0])
    unit = torch.nn.functional.normalize(net.features(pixels.permute(0, 3, 1, 2) / 63.75 - 2), dim=1).double()
    x = (pixels.permute(0, 3, 1, 2) / 63.75 - 2)[::2]
    noisy = net.features(pseudo_ood.add_noise(x, 0.5, 0, torch.arange(150)))
    changed = torch.nn.functional.normalize(noisy, dim=1).double()
    found = [torch.cdist(part, unit).sort(1).values[:, k] for part, k in ((unit[::2], 5), (changed, 4))]
    assert float(rows[1]["auroc"]) == pytest.approx(auroc(curve(*(-d.numpy() for d in found))), abs=1e-3)
    with pytest.raises(SystemExit):
        chosen(K=[300])
    with pytest.raises(SystemExit):
        run(files, score="msp")


def test_the_same_run_gives_the_same_bytes(files):
    options = {"p": [30], "clip": [1.0]}
    run(files, options=options)
    first = (files / "sweep.csv").read_bytes(), (files / "choice.json").read_bytes()
    run(files, options=options)
    assert first == ((files / "sweep.csv").read_bytes(), (files / "choice.json").read_bytes())


def test_what_the_stage_refuses(files, capsys):
    pixels, labels = images(3)
    write_store(files / "one.train.h5", labels[:1], 0, images=pixels[:1])
    with h5py.File(files / "statistics.h5") as source, h5py.File(files / "other.h5", "w") as other:
        for key in ("class_means", "counts", "mean"):
            other[key] = source[key][..., :2]
    for given, message in [
        ({"options": {"p": [101]}}, "--config.options.p[0]"),
        ({"options": {"cliip": [1]}}, "unknown key 'cliip'; did you mean"),
        ({"options": {"clip": [0]}}, "--config.options.clip[0]"), ({"sets": []}, "--config.sets: unknown key 'sets'"),
        ({"store": "one.train.h5"}, "choosing options needs at least two images, found 1"),
        ({"statistics": "other.h5"}, "the two belong to different networks"),
        ({"statistics": "none.h5"}, "none.h5: no such file"),
    ]:
        with pytest.raises(SystemExit):
            run(files, **given)
        assert message in capsys.readouterr().err and not (files / "choice.json").exists()
