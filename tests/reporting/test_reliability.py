"""Reliability figures: what they draw against the metrics, the files, and which papers have them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.checkout import ROOT
from tests.config.test_config import small
from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.confidence import aurc, calibration, ece, errors_curve, risk
from workflow_scripts.reporting import confidences
from workflow_scripts.stages import draw_reliability as reliability
from workflow_scripts.stages.sections.draw_reliability import Confidences, DrawReliability
from workflow_scripts.wiring import reports
from workflow_scripts.wiring.targets import RELIABILITY, results_of
from workflow_scripts.work.expand import read_plan

SVG = "{http://www.w3.org/2000/svg}"
RNG = np.random.default_rng(0)


def made_up(n: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Confidences in 0..1 and whether the image is classified right, more often where the confidence is high."""
    confidence = RNG.random(n)
    return (confidence.round(1) if ties else confidence), RNG.random(n) < 0.3 + 0.7 * confidence


@pytest.mark.parametrize("ties", [False, True])
def test_risk_is_the_error_rate_of_the_most_confident(ties):
    confidence, correct = made_up(4000, ties)
    found = risk(errors_curve(confidence, correct), confidences.COVERAGE)
    assert found[-1] == pytest.approx(1 - correct.mean())
    for share in (0.25, 0.5):
        at = np.argmin(np.abs(confidences.COVERAGE - share))
        bar = np.sort(confidence)[::-1][int(confidences.COVERAGE[at] * 4000) - 1]
        above, level = confidence > bar, confidence == bar
        inside = (confidences.COVERAGE[at] * 4000 - above.sum()) / level.sum()  # share of the tie that is accepted
        expected = ((~correct[above]).sum() + inside * (~correct[level]).sum()) / (confidences.COVERAGE[at] * 4000)
        assert found[at] == pytest.approx(expected, abs=1e-9)
    assert found[2:].mean() == pytest.approx(aurc(errors_curve(confidence, correct)), abs=0.005)


def test_the_gap_of_the_bins_is_the_calibration_error():
    probability, correct = made_up(900)
    probability[:2] = 0.0, 1.0
    found = calibration(probability, correct)
    there = found.count > 0
    gap = (found.count * np.abs(found.accuracy - found.probability))[there].sum() / 900
    assert gap == pytest.approx(ece(probability, correct)) and found.count.sum() == 900
    one = calibration(np.array([0.5, 0.55]), np.array([True, False]))
    assert one.count.tolist() == [0] * 7 + [1, 1] + [0] * 6 and np.isnan(one.accuracy[0])  # (lo, hi]: 0.5 is in bin 7


def test_shares_hold_every_image():
    bins = np.linspace(0, 1, 5)
    assert confidences.shares(np.array([-9.0, 0.1, 0.6, 7.0]), bins).tolist() == [0.5, 0, 0.25, 0.25]
    assert confidences.shares(np.empty(0), bins).tolist() == [0, 0, 0, 0]  # a network without errors


def write(folder, label: str, seed: int, n: int = 300) -> dict:
    """Score and features files of one network."""
    rng = np.random.default_rng([seed, len(label)])
    logits = rng.normal(0, 2, (n, 4)).astype(np.float32)
    labels = np.where(rng.random(n) < 0.8, logits.argmax(1), rng.integers(0, 4, n))
    probability = np.exp(logits - logits.max(1, keepdims=True)).sum(1) ** -1.0
    base = folder / label / str(seed)
    base.mkdir(parents=True)
    with h5py.File(base / "msp.h5", "w") as file:
        file["digits.test"] = np.log(probability.astype(np.float64))
        for name in ("faces", "noise", "unseen"):
            file[f"{name}.test"] = np.log(rng.uniform(0.25, 0.7, 50))
    with h5py.File(base / "features.h5", "w") as file:
        file["logits"], file["labels"] = logits, labels
    return {"id": "digits", "network": "small", "label": label, "seed": seed, "sets": ["faces", "noise"],
            "scores": str(base / "msp.h5"), "features": str(base / "features.h5")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reliability")
    config = {"paper": "goe", "score": "msp", "probability": True, "names": {"digits": "Digits", "msp": "MSP"},
              "runs": [write(folder / "run", label, seed) for label in ("OE", "G-OE") for seed in (0, 1)]}
    reliability.main(["--config", json.dumps(config), "--out-dir", str(folder)])
    return folder, config


def texts(path) -> list[str]:
    return [element.text for element in ET.parse(path).iter(f"{SVG}text")]


def test_files_and_the_numbers_in_them(drawn):
    folder, config = drawn
    assert {p.name for p in folder.iterdir() if p.is_file()} == {
        f"{name}.{kind}" for name in RELIABILITY for kind in ("svg", "png")}
    for name in RELIABILITY:
        text = (folder / f"{name}.svg").read_text()
        root = ET.fromstring(text)
        assert root.find(f"{SVG}title").text and "Seeds 0, 1." in root.find(f"{SVG}desc").text
        assert "currentColor" in text and not re.search(r'(?:href|src)="(?!#)', text)
        with Image.open(folder / f"{name}.png") as image:
            assert image.width == 1520 and len(set(image.convert("L").resize((64, 64)).tobytes())) > 20
    for label in ("OE", "G-OE"):
        seen = [reliability.seen(Confidences.of(**run), True) for run in config["runs"] if run["label"] == label]
        values = [100 * ece(s.probability, s.correct) for s in seen]
        assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in texts(folder / "reliability.svg")
        values = [1000 * aurc(errors_curve(s.confidence, s.correct)) for s in seen]
        assert f"{label}  {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in texts(folder / "risk_coverage.svg")
        for s in seen:
            assert s.confidence == pytest.approx(s.probability, abs=1e-6) and s.ood.size == 100  # `unseen` is not asked
    assert "Digits, small" in texts(folder / "risk_coverage.svg")


def test_same_input_same_bytes(drawn, tmp_path):
    folder, config = drawn
    reliability.main(["--config", json.dumps(config), "--out-dir", str(tmp_path)])
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_a_score_that_is_no_probability_and_a_network_without_errors(drawn, tmp_path):
    _, config = drawn
    run = write(tmp_path / "run", "sure", 0)
    with h5py.File(run["features"], "a") as file:
        file["labels"][:] = file["logits"][:].argmax(1)
    reliability.draw(DrawReliability.of(**{**config, "probability": False, "runs": [run]}), tmp_path)
    assert "MSP (higher = more ID)" in texts(tmp_path / "confidences.svg")


def test_what_has_not_run_is_left_out_and_nothing_says_so(drawn, tmp_path):
    _, config = drawn
    missing = [{**run, "scores": str(tmp_path / "none.h5")} for run in config["runs"]]
    reliability.draw(DrawReliability.of(**{**config, "runs": [config["runs"][0], *missing[1:]]}), tmp_path)
    assert "Seeds 0." in ET.parse(tmp_path / "reliability.svg").find(f"{SVG}desc").text
    reliability.draw(DrawReliability.of(**{**config, "runs": missing}), tmp_path)
    assert "No scores yet: no run of this paper has finished." in texts(tmp_path / "reliability.svg")


def test_files_of_different_runs_are_named(drawn):
    run = drawn[1]["runs"][0]
    with pytest.raises(OODError, match=r"msp\.h5: expected the scores of absent .*none of \['absent'\]"):
        reliability.seen(Confidences.of(**{**run, "sets": ["absent"]}), True)


# ---------------------------------------------------------------- which papers

def test_papers_that_ask_for_them_have_them():
    plan = read_plan(small(), ROOT, {})
    pages = {p["name"]: p["figures"] for p in json.loads(reports.report_section(plan))["papers"]}
    wanted = {f"results/small/figures/goe/{name}.svg" for name in RELIABILITY}
    shown = {p["name"]: p.get("id_metrics") for p in json.loads(reports.report_section(plan))["papers"]}
    assert shown == {"posthoc": ["accuracy"], "himplos": ["accuracy"], "goe": ["accuracy", "aurc", "augrc", "ece"]}
    assert wanted < set(pages["goe"]) and len(pages["posthoc"]) == len(pages["goe"]) - 3
    assert wanted < set(results_of(plan, "goe"))
    section = json.loads(reports.reliability_section(plan, SimpleNamespace(paper="goe")))
    assert section["score"] == "msp" and section["probability"] is True
    assert {(r["label"], r["seed"]) for r in section["runs"]} == {
        (label, seed) for label in ("Cross-entropy", "OE", "E-OE", "G-OE") for seed in (0, 1)}
    assert len(reports.reliability_inputs(plan, SimpleNamespace(paper="goe"))) == 16
    posthoc = json.loads(reports.reliability_section(plan, SimpleNamespace(paper="posthoc")))
    assert posthoc["score"] == "energy" and posthoc["probability"] is False


def test_a_headline_that_is_not_scored_is_refused():
    raw = small()
    next(p for p in raw["papers"] if p["name"] == "goe")["headline"] = "enrgy"
    with pytest.raises(OODError, match=r"paper 'goe', key headline: 'enrgy' is not known; did you mean 'energy'"):
        read_plan(raw, ROOT, {})
