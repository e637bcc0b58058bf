"""`ood results`: a run's numbers as one long table."""

from __future__ import annotations

import csv
import math

import pandas as pd
import pytest

from workflow_scripts import results
from workflow_scripts.reporting.results import COLUMNS, write
from workflow_scripts.reporting.statistics import Seeds


def row(values, score="msp", dataset="svhn", group="far", metric="auroc", counts=(10, 20)):
    return "digits", "net", "ce", "CE", score, dataset, group, metric, Seeds(tuple(enumerate(values))), *counts


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tables").mkdir()
    for paper, rows in {"first": [row([0.9, 1 / 3]), row([0.8, 0.7], dataset="far", group="average"),
                                  row([0.99, None], score="", dataset="digits", group="id", metric="accuracy",
                                      counts=(10, 0))],
                        "second": [row([math.nan, 0.5], metric="fpr95", group="far+2g-1")]}.items():
        write(tmp_path / "tables" / f"{paper}.csv", pd.DataFrame(rows, columns=COLUMNS))
    return tmp_path


def test_a_row_for_each_value_of_each_seed(folder):
    found = results.load(folder)
    assert dict(found.dtypes.astype(str)) == results.DTYPES and list(found) == list(results.DTYPES)
    ours = ["digits", "net", "ce"]
    assert found.astype(object).where(found.notna(), None).to_numpy().tolist() == [
        ["first", *ours, "msp", "far", "svhn", "auroc", 0, 0.9, 10, 20],
        ["first", *ours, "msp", "far", "svhn", "auroc", 1, 1 / 3, 10, 20],
        ["first", *ours, "", "id", "digits", "accuracy", 0, 0.99, 10, 0],
        ["second", *ours, "msp", "far+2g-1", "svhn", "fpr95", 0, None, 10, 20],
        ["second", *ours, "msp", "far+2g-1", "svhn", "fpr95", 1, 0.5, 10, 20]]
    assert found.attrs["missing"] == 1, "what has not run has no row; what is not defined is NaN"


def test_the_file_gives_the_same_frame(folder, capsys):
    results.main([str(folder)])
    assert capsys.readouterr().out.endswith(f"{folder}/results.csv: 5 values of 2 papers, 1 more are missing\n")
    found = results.load(folder)
    again = pd.read_csv(folder / "results.csv", dtype=results.DTYPES, keep_default_na=False, na_values={"value": [""]})
    pd.testing.assert_frame_equal(again, found)
    results.main([str(folder), "--out", "-"])
    assert capsys.readouterr().out == (folder / "results.csv").read_text()


def test_a_folder_without_tables_is_told_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        results.main([str(tmp_path)])
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}: expected tables in ") and len(said.splitlines()) == 1


@pytest.mark.slow
def test_the_default_run_has_what_its_metrics_files_have(default_run):
    folder = default_run / "results" / "small"
    found = results.load(folder)
    assert found.attrs["missing"] == 0 and set(found["paper"]) == {path.stem for path in folder.glob("tables/*.csv")}
    keys = ["score", "set", "metric"]
    values = found[(found["recipe"] == "pretrain") & (found["seed"] == 0)].set_index(keys)
    with (folder / "metrics/digits/resnet-small/pretrain/seed0.csv").open() as file:
        rows = [one for one in csv.DictReader(file) if one["group"] in ("near", "far")]
    assert len(rows) > 1000
    shown = 0
    for one in rows:
        key = one["score"], one["dataset"], one["metric"]
        if key in values.index:
            shown += 1
            ours = values.loc[[key]]
            assert {float(one["value"])} == set(ours["value"]) and {int(one["n_ood"])} == set(ours["n_ood"])
    assert shown > 1000
