"""The table of options chosen three ways, and that all other tables are without them."""

from __future__ import annotations

import pandas as pd
import pytest

from workflow_scripts.reporting import tuned
from workflow_scripts.reporting.inputs import TunedScore
from workflow_scripts.reporting.printing import latex, markdown
from workflow_scripts.reporting.results import AVERAGE, COLUMNS
from workflow_scripts.reporting.statistics import Seeds

TUNED = [TunedScore(name=f"knn_{way}", base="knn", way=way) for way in ("validation", "id_only")]


def row(score, metric, *values):
    return ["digits", "net", "plain", "Plain", score, "all", AVERAGE, metric,
            Seeds(tuple(enumerate(values))), None, None]


@pytest.fixture
def results():
    return pd.DataFrame([
        row("msp", "auroc", 0.7, 0.7), row("knn", "auroc", 0.8, 0.9), row("knn_id_only", "auroc", 0.85, 0.85),
        row("knn_validation", "auroc", 0.9, None), row("knn", "fpr95", 0.4, 0.4),
        row("knn_id_only", "fpr95", 0.3, 0.3), row("knn_validation", "fpr95", 0.2, 0.2)], columns=COLUMNS)


def test_each_way_and_what_it_changes_seed_by_seed(results):
    (table,) = tuned.laid_out(results, TUNED, {"knn": "KNN", "net": "ResNet"})
    assert table.title == "Options chosen: digits, ResNet"
    (cells,) = table.cells.itertuples(index=False, name=None)
    assert [cell.text for cell in cells[:2]] == ["Plain", "KNN"]
    heads = [column.title for column in table.cells]
    assert heads == ["Training", "Score", *2 * ("as configured", "without OOD images", "change", "on validation images",
                                                "change")]
    auroc = [cell.text for cell in cells[7:]]
    assert auroc[0].startswith("85.0") and auroc[1].startswith("85.0")
    assert auroc[2] == "+0.0 ± 7.1"  # seeds: +5 and -5
    assert auroc[4] == "+10.0"  # of the one seed that both have
    assert "KNN" in markdown(table) and "on validation images" in latex(table)


def test_one_way_has_no_columns_of_the_other(results):
    (table,) = tuned.laid_out(results, TUNED[1:], {})
    assert "on validation images" not in [column.title for column in table.cells]


def test_other_tables_are_without_them(results):
    assert set(tuned.main(results, TUNED)["score"]) == {"msp", "knn"}
    assert tuned.laid_out(results, [], {}) == []
    assert tuned.laid_out(tuned.main(results, TUNED)[lambda rows: rows["score"] == "msp"], TUNED, {}) == []
