"""Two result folders compared: what changed, whether it is more than seed noise, the exit status."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from tests.reporting_data import MANIFEST
from workflow_scripts import compare
from workflow_scripts.reporting.results import COLUMNS, write
from workflow_scripts.reporting.statistics import Seeds


def result(*values, score="msp", metric="auroc", seeds=(0, 1)):
    pairs = tuple(zip(seeds, values, strict=False))
    return "digits", "net", "ce", "CE", score, "svhn", "far", metric, Seeds(pairs), 10, 10


def folder(path, *rows, paper="posthoc", **manifest):
    (path / "tables").mkdir(parents=True, exist_ok=True)
    write(path / "tables" / f"{paper}.csv", pd.DataFrame(rows, columns=COLUMNS))
    (path / "tables" / f"{paper}.manifest.json").write_text(json.dumps({**MANIFEST, **manifest}))
    return path


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        compare.main([str(word) for word in words])
    return left.value.code, capsys.readouterr()


@pytest.mark.parametrize(("before", "after", "kind", "status"), [
    (result(0.90, 0.91), result(0.90, 0.91), None, 0),
    (result(0.90, 0.91), result(0.905, 0.915), compare.WITHIN, 0),  # 0.5 points, seeds vary by 0.7
    (result(0.90, 0.91), result(0.93, 0.94), compare.MORE, 2),
    (result(0.90, 0.90), result(0.9009, 0.9009), compare.WITHIN, 0),  # less than 0.1 in print
    (result(0.90, 0.90), result(0.902, 0.902), compare.MORE, 2),
    (result(0.002, 0.002, metric="aurc"), result(0.00205, 0.00205, metric="aurc"), compare.WITHIN, 0),  # 2.0 -> 2.05
    (result(0.002, 0.002, metric="aurc"), result(0.0022, 0.0022, metric="aurc"), compare.MORE, 2),
    (result(0.90), result(0.91), compare.UNKNOWN, 2),
    (result(0.90, 0.91), result(math.nan, math.nan), compare.GONE, 2),
    (result(None, None), result(0.90, 0.91), compare.APPEARED, 2),
    (result(math.nan, math.nan), result(None, None), None, 0),  # no number before and after
])
def test_kinds_of_change(tmp_path, capsys, before, after, kind, status):
    code, said = run(capsys, folder(tmp_path / "a", before), folder(tmp_path / "b", after))
    assert code == status
    assert [k for k in compare.ORDER if f"1 {k}:" in said.out] == ([kind] if kind else [])
    assert ("1 numbers, 1 the same" in said.out) == (kind is None)


def test_exact_counts_what_is_within_noise(tmp_path, capsys):
    paths = folder(tmp_path / "a", result(0.90, 0.91)), folder(tmp_path / "b", result(0.901, 0.911))
    assert run(capsys, *paths)[0] == 0 and run(capsys, *paths, "--exact")[0] == 2
    assert run(capsys, paths[0], paths[0], "--exact")[0] == 0


def test_it_says_by_how_much_and_lists_the_largest_first(tmp_path, capsys):
    before = [result(0.5, 0.5, score=f"s{i}") for i in range(30)]
    after = [result(0.5 + i / 100, 0.5 + i / 100, score=f"s{i}") for i in range(30)]
    _, said = run(capsys, folder(tmp_path / "a", *before), folder(tmp_path / "b", *after))
    lines = said.out.splitlines()
    at = lines.index("  29 more than noise:")
    assert lines[at + 1] == "    digits / net / ce / s29 / svhn, AUROC: 50.0 ± 0.0 -> 79.0 ± 0.0 (+29.00)"
    assert lines[at + 21] == "    and 9 more (--top 0 shows all)"
    _, said = run(capsys, tmp_path / "a", tmp_path / "b", "--top", "0")
    assert "ce / s1 / svhn" in said.out and "more (--top" not in said.out


def test_a_paper_on_one_side_and_provenance(tmp_path, capsys):
    row = result(0.90, 0.91)
    a = folder(tmp_path / "a", row, packages={"numpy": "1", "torch": "2"},
               config={"recipes": [{"name": "ce", "lr": 0.1}]})
    b = folder(tmp_path / "b", row, packages={"numpy": "1", "torch": "3"},
               config={"recipes": [{"name": "ce", "lr": 0.2}]})
    folder(b, row, paper="other")
    code, said = run(capsys, a, b)
    assert code == 2 and "other\n  only in B" in said.out
    assert 'packages.torch: "2" -> "3"' in said.out and "config.recipes[ce].lr: 0.1 -> 0.2" in said.out
    assert "numpy" not in said.out


@pytest.mark.parametrize("wrong", ["nothing", "table", "manifest"])
def test_what_cannot_be_compared_is_an_error_of_one_line(tmp_path, capsys, wrong):
    a = folder(tmp_path / "a", result(0.9, 0.9))
    b = folder(tmp_path / "b", result(0.9, 0.9))
    if wrong == "nothing":
        b = tmp_path / "no"
    elif wrong == "table":
        (b / "tables" / "posthoc.csv").write_text("a,b\n")
    else:
        (b / "tables" / "posthoc.manifest.json").write_text("{")
    code, said = run(capsys, a, b)
    assert code == 1 and said.err.startswith("error: ") and str(b) in said.err and len(said.err.splitlines()) == 1
