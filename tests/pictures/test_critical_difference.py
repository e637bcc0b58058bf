"""The critical-difference picture from made-up metrics files."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from workflow_scripts.core.errors import OODError
from workflow_scripts.pictures import critical_difference as picture
from workflow_scripts.pictures.base import Run
from workflow_scripts.reporting import plots
from workflow_scripts.reporting.results import METRICS_HEADER

SETS = ["a", "b", "c", "d", "e", "f"]
SCORES = ["one", "two", "three", "four"]


def runs(folder, seeds=(0, 1), lacking=(), scores=SCORES):
    """Runs whose first score is best on every set; ``lacking`` are pairs of score and set."""
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        rows = [[score, name, "far", metric, sign * (0.9 - 0.1 * k) + 0.01 * rng.random(), 9, 9]
                for k, score in enumerate(scores) for name in SETS if (score, name) not in lacking
                for metric, sign in (("auroc", 1), ("fpr95", -1))]
        rows += [[score, "digits", "id", "accuracy", 0.9, 9, 0] for score in scores]
        with open(folder / f"{seed}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([METRICS_HEADER, *rows])
        found.append(Run("digits", "net", "ce", "CE", seed, {}, {"metrics": str(folder / f"{seed}.csv")}))
    return found


@pytest.mark.parametrize("metric", ["auroc", "fpr95"])
def test_scores_stand_by_their_mean_rank(tmp_path, metric):
    drawing = picture.draw(picture.Options(metric=metric), runs(tmp_path), {"one": "The first"})
    assert drawing.facts["mean_rank"] == {"one": 1, "two": 2, "three": 3, "four": 4}
    assert drawing.facts["p"] < 0.001 and len(drawing.facts["sets"]) == 6
    assert drawing.facts["alike"] == [["one", "two"], ["two", "three"], ["three", "four"]]
    texts = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert {"The first (1.0)", "four (4.0)", "critical difference"} <= set(texts)
    assert "over 6 OOD sets (digits)" in drawing.caption and "Left out" not in drawing.caption


def test_a_score_that_lacks_a_set_is_left_out_and_named(tmp_path):
    drawing = picture.draw(picture.Options(), runs(tmp_path, lacking={("two", "c")}), {"two": "Second"})
    assert list(drawing.facts["mean_rank"]) == ["one", "three", "four"]
    assert drawing.caption.endswith("Left out, since a set is missing: Second.")


def test_scores_that_do_not_differ_share_one_bar(tmp_path):
    made = runs(tmp_path, seeds=(0,))
    text = (tmp_path / "0.csv").read_text().splitlines()
    same = [",".join([*line.split(",")[:4], "0.5", "9", "9"]) if ",far," in line else line for line in text]
    (tmp_path / "0.csv").write_text("\n".join(same) + "\n")
    drawing = picture.draw(picture.Options(), made, {})
    assert drawing.facts["alike"] == [SCORES] and "one bar joins all" in drawing.caption


def test_fifty_scores_have_a_line_each(tmp_path):
    names = [f"score_{k}" for k in range(50)]
    drawing = picture.draw(picture.Options(), runs(tmp_path, seeds=(0,), scores=names), {})
    plots.save(drawing.figure, tmp_path, "cd", drawing.title, drawing.caption, "x")
    texts = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert sum(text.startswith("score_") for text in texts) == 50
    assert "<title>Scores by mean rank over OOD sets</title>" in (tmp_path / "cd.svg").read_text()


def test_long_names_are_not_cut_off(tmp_path):
    drawing = picture.draw(picture.Options(), runs(tmp_path), {name: f"A rather long name, {name} of them" for name in
                                                               ("one", "four")})
    renderer = FigureCanvasAgg(drawing.figure).get_renderer()
    inside = drawing.figure.bbox
    for text in drawing.figure.axes[0].texts:
        extent = text.get_window_extent(renderer)
        assert inside.x0 <= extent.x0 and extent.x1 <= inside.x1, text.get_text()


@pytest.mark.parametrize(("options", "message"), [
    ({"metric": "aurok"}, "options.metric.*'aurok'.*auroc"),
    ({"metric": "aupr_in"}, "no metrics file has aupr_in of an OOD set"),
    ({"scores": ("one", "twoo", "three")}, "options.scores.*'twoo'.*two"),
    ({"scores": ("one", "two")}, "three scores that all of them have, found 6 and 2"),
])
def test_what_cannot_be_drawn_is_one_line(tmp_path, options, message):
    with pytest.raises(OODError, match=message) as error:
        picture.draw(picture.Options(**options), runs(tmp_path), {})
    assert "\n" not in str(error.value)
