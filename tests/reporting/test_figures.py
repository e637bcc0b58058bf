"""Figures and dataset cards: what they draw, and that the files are whole, themed and the same each time."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import xml.etree.ElementTree as ET

import h5py
import numpy as np
import pytest
from PIL import Image

from tests import reporting_data
from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics import ood as metrics
from workflow_scripts.reporting import curves, layout, palette, plots, results
from workflow_scripts.stages import draw_figures as figures
from workflow_scripts.stages import make_cards as cards
from workflow_scripts.stages.sections.draw_figures import DrawFigures
from workflow_scripts.stages.sections.make_cards import CardOf

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    config = reporting_data.write_paper(folder / "run")
    figures.main(["--config", json.dumps(config), "--out-dir", str(folder)])
    return folder, config


def texts(path):
    return [element.text for element in ET.parse(path).iter(f"{SVG}text")]


# ---------------------------------------------------------------- what is drawn

@pytest.mark.parametrize("n", [1, 7, 19, 20, 60, 100, 1234])
def test_threshold_is_the_highest_that_accepts_95_percent(n):
    scores = np.random.default_rng(n).normal(size=n).round(1)  # with ties
    curve = metrics.curve(scores, [0.0])
    at = curve.threshold[metrics.at95(curve)]
    higher = scores[scores > at]
    assert np.mean(scores >= at) >= 0.95
    assert not higher.size or np.mean(scores >= higher.min()) < 0.95


def test_roc_of_four_scores_by_hand():
    # ID 3, 2, 1 and OOD 2, 0: thresholds 3, 2 (a tie of one each), 1, 0
    fpr, tpr = metrics.roc(metrics.curve([1.0, 3.0, 2.0], [0.0, 2.0]))
    assert fpr.tolist() == pytest.approx([0, 0, 0.5, 0.5, 1])
    assert tpr.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_auroc_is_the_chance_of_the_right_order():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 300).round(1), rng.normal(0, 1, 200).round(1)
    pairs = (a[:, None] > b).mean() + (a[:, None] == b).mean() / 2  # Mann-Whitney
    assert metrics.auroc(metrics.curve(a, b)) == pytest.approx(pairs, abs=1e-12)


def test_a_thinned_curve_keeps_its_ends_and_shape():
    rng = np.random.default_rng(1)
    whole = metrics.roc(metrics.curve(rng.normal(1, 1, 5000), rng.normal(0, 1, 5000)))
    thin = curves.thin(*whole)
    assert thin[0].size <= 165 and (thin[0][0], thin[1][0], thin[0][-1], thin[1][-1]) == (0, 0, 1, 1)
    assert np.abs(np.interp(whole[0], *thin) - whole[1]).max() < 0.02
    assert curves.thin(*whole, points=10**6)[0] is whole[0]


def test_histograms_hold_every_image_on_one_axis():
    rng = np.random.default_rng(2)
    sets = {"near one": rng.normal(-1, 1, 150), "wild": rng.normal(-500, 50, 90), "extra": rng.normal(0, 1, 10)}
    panels = curves.histograms(rng.normal(0, 1, 200), sets, {"near": ["near one"], "far": ["wild", "absent"]})
    assert [(p.dataset, p.group) for p in panels] == [("near one", "near"), ("wild", "far")]
    for p in panels:
        assert p.id_density.sum() == pytest.approx(1) and p.ood_density.sum() == pytest.approx(1)
        assert np.array_equal(p.edges, panels[0].edges)
    assert panels[1].ood_density[0] == 1  # far beyond the axis: all in the outermost bin
    assert panels[0].edges[0] > -30  # one wild set does not squeeze the others


def test_histograms_of_constant_scores_are_drawn():
    [panel] = curves.histograms(np.ones(5), {"a": np.ones(4)}, {"far": ["a"]})
    assert panel.auroc == 0.5 and np.all(np.diff(panel.edges) > 0)


def test_roc_panels_agree_with_the_metrics(drawn):
    _, config = drawn
    run, files = figures.first_run(DrawFigures.of(**config).runs)
    panels = curves.rocs({s: curves.read_scores(p, "digits") for s, p in files.items()}, run.groups)
    stored = results.read_metrics(run.metrics).set_index(results.QUANTITY)["value"]
    assert [p.dataset for p in panels] == [s for g in reporting_data.GROUPS.values() for s in g]
    for p in panels:
        for score in files:
            assert p.auroc[score] == pytest.approx(stored[score, p.dataset, "auroc"])
            assert p.at95[score][0] == pytest.approx(stored[score, p.dataset, "fpr95"]) and p.at95[score][1] >= 0.95


@pytest.mark.parametrize(("write", "words"), [
    (lambda f: f.create_dataset("other.test", data=[1.0]), "expected the scores of 'digits.test', found ['other']"),
    (lambda f: f.create_dataset("digits.test", data=[1.0, np.nan]), "1 are not finite"),
    (lambda f: f.create_dataset("digits.test", data=np.empty(0)), "expected finite scores"),
])
def test_bad_score_files_are_named(tmp_path, write, words):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        write(file)
    with pytest.raises(OODError) as error:
        curves.read_scores(tmp_path / "s.h5", "digits")
    assert words in str(error.value) and "s.h5" in str(error.value)


def test_a_file_that_is_no_hdf5_is_named(tmp_path):
    (tmp_path / "s.h5").write_text("no")
    with pytest.raises(OODError, match=r"s\.h5: expected an HDF5 file"):
        curves.read_scores(tmp_path / "s.h5", "digits")


# ---------------------------------------------------------------- the files

def test_the_fixed_list_of_files(drawn):
    folder, _ = drawn
    assert {p.name for p in folder.iterdir() if p.is_file()} == {
        f"{name}.{kind}" for name in ("histograms", "roc", "heatmap") for kind in ("svg", "png")}
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.width == 1520  # 7.6 inches at 200 dots per inch
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 20  # not blank


def test_svg_is_themed_titled_and_asks_for_nothing(drawn):
    folder, _ = drawn
    for path in folder.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        root = ET.fromstring(text)
        assert root.find(f"{SVG}title").text and root.find(f"{SVG}desc").text
        assert "currentColor" in text and plots.INK not in text.replace("{color:#1b1f24;", "")
        assert "prefers-color-scheme:dark" in text and "<metadata" not in text and "DOCTYPE" not in text
        assert not re.search(r'(?:href|src)="(?!#)', text)
        ids = [e.get("id") for e in root.iter() if e.get("id")]
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
        assert len(ids) == len(set(ids)) and used == set(ids)
        assert all(i.startswith(f"posthoc-{path.stem}-") for i in ids)


def test_every_set_and_number_is_in_the_figures(drawn):
    folder, config = drawn
    names = config["names"]
    for name in ("histograms", "roc", "heatmap"):
        assert {names[s] for g in reporting_data.GROUPS.values() for s in g} <= set(texts(folder / f"{name}.svg"))
    [table] = layout.tables(results.collect(DrawFigures.of(**config).runs), ["auroc"], [])
    shown = texts(folder / "heatmap.svg")
    cells = [f"{100 * cell.value:.1f}" for cell in table.cells.iloc[:, 2:].to_numpy().ravel()]
    assert len(cells) == 6 * 8 and sorted(cells) == sorted(t for t in shown if re.fullmatch(r"\d+\.\d", t))


def test_same_input_same_bytes(drawn, tmp_path):
    folder, config = drawn
    figures.main(["--config", json.dumps(config), "--out-dir", str(tmp_path)])
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_a_run_without_scores_still_gives_every_file(tmp_path):
    config = reporting_data.write_paper(tmp_path / "run", seeds=(0,), recipes=("pretrain",))
    config["runs"][0].update(metrics=None, scores=dict.fromkeys(config["runs"][0]["scores"]))
    figures.main(["--config", json.dumps(config), "--out-dir", str(tmp_path)])
    assert "No scores yet: no run of this paper has finished." in texts(tmp_path / "histograms.svg")
    assert texts(tmp_path / "heatmap.svg").count("missing") == 3 * 8


@pytest.mark.parametrize(("headline", "title"), [("knn", "KNN"), ("absent", "Energy"), ("", "Energy")])
def test_headline_chooses_the_histograms_and_an_absent_one_falls_back(drawn, tmp_path, headline, title):
    _, config = drawn
    run, files = figures.first_run(DrawFigures.of(**config).runs)
    assert run.seed == 0 and run.recipe == "pretrain" and list(files) == ["energy", "msp", "knn"]
    figures.draw_run(run, files, headline, config["names"], tmp_path, "salt")
    assert ET.parse(tmp_path / "histograms.svg").find(f"{SVG}title").text == f"{title}: ID against each OOD set"


# ---------------------------------------------------------------- colours

def test_series_read_on_both_surfaces():
    for colour, surface in itertools.product(palette.SERIES, palette.SURFACES.values()):
        assert palette.contrast(colour, surface) >= 3, (colour, surface)  # WCAG 1.4.11
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)  # WCAG's own extreme


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "normal": np.eye(3),
}


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_the_first_five_series_stay_apart(kind):
    def lab(colour):  # CIE 1976 L*a*b*, D65
        rgb = np.clip(np.array(DEFICIENCIES[kind]) @ palette.linear(colour), 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
        f = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 0.008856))
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    for a, b in itertools.combinations(palette.SERIES[:5], 2):
        assert np.linalg.norm(lab(a) - lab(b)) > 25, (a, b)


def test_heat_text_reads_on_every_cell():
    for auroc in np.linspace(0, 1, 101):
        cell, ink = palette.heat(auroc)
        assert palette.contrast(cell, ink) >= 4.5, auroc  # WCAG AA
    assert palette.heat(0.5)[0] == palette.CHANCE


# ---------------------------------------------------------------- dataset cards

def test_cards(tmp_path):
    sets = [{"name": "digits", "path": reporting_data.write_store(tmp_path / "a.h5"), "role": "ID test"},
            {"name": "noise", "path": reporting_data.write_store(tmp_path / "b.h5", "inputs", 5), "role": "far-OOD",
             "licence": "none needed"}]
    cards.main(["--config", json.dumps({"sets": sets}), "--out", str(tmp_path / "cards.json")])
    first, second = json.loads((tmp_path / "cards.json").read_text())["cards"]
    assert (first["count"], first["classes"], first["per_class"]) == (
        40, ["zero", "one", "two", "three"], {"0": 10, "1": 10, "2": 10, "3": 10})
    assert first["sources"] == {"scikit-learn": "1.9.1"} and first["licence"] == ""
    assert (second["kind"], second["count"], second["per_class"], second["licence"]) == ("inputs", 5, {}, "none needed")
    with Image.open(io.BytesIO(base64.b64decode(first["png"]))) as image:
        assert image.size == (6 * 34 - 2, 2 * 34 - 2)  # twelve tiles of 32, gaps of 2


def test_sample_is_evenly_spaced_and_noise_is_mapped(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 2, 2, 3))
        assert cards.sample(file, 4)[:, 0, 0, 0].tolist() == [0, 33, 66, 99]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["inputs"] = np.array([-1.0, 0.0, 1.0, 7.0], dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 2, 2))
        pixels = cards.sample(file, 12)
        assert pixels.shape == (4, 2, 2, 3) and pixels[:, 0, 0, 0].tolist() == [0, 128, 255, 255]


@pytest.mark.parametrize("size", [(28, 28, 1), (224, 160, 3)])
def test_grid_takes_grey_and_large_images(size):
    png = cards.grid(np.full((3, *size), 9, dtype=np.uint8))
    with Image.open(io.BytesIO(png)) as image:
        height = min(size[0], cards.TILE)
        assert image.height == height and image.getpixel((0, 0)) == (9, 9, 9, 255)


@pytest.mark.parametrize(("fill", "words"), [
    (None, "expected the image store of 'x'"),
    (lambda f: f.create_dataset("pictures", data=[1]), "found ['pictures']"),
    (lambda f: f.create_dataset("images", shape=(0, 4, 4, 3), dtype="u1"), "at least one image"),
])
def test_bad_stores_are_named(tmp_path, fill, words):
    path = tmp_path / "x.h5"
    if fill:
        with h5py.File(path, "w") as file:
            fill(file)
    with pytest.raises(OODError) as error:
        cards.card(CardOf.of(name="x", path=str(path), role="ID test"))
    assert words in str(error.value) and str(path) in str(error.value)
