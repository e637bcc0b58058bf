"""The notebook of docs/notebooks, run cell by cell where a reader would run it, on the default run."""

from __future__ import annotations

import json
from typing import Any

import matplotlib
import pytest

from tests.checkout import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "results.ipynb"


def cells() -> list[str]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in content["cells"]), "outputs are made by its readers"
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_it_goes_from_a_run_to_a_plot_and_from_arrays_to_latex(default_run, monkeypatch, capsys):
    monkeypatch.chdir(default_run / "docs" / "notebooks")
    matplotlib.use("Agg")
    scope: dict[str, Any] = {}
    for cell in cells():
        exec(cell, scope)
    lines = scope["axes"].get_lines()
    assert {"pretrain", "oe", "goe"} <= {line.get_label() for line in lines}
    assert all(len(line.get_xdata()) == 2 and 40 < min(line.get_xdata()) <= 100 for line in lines), "a point a seed"
    ours = scope["table"].set_index(["score", "dataset", "metric"])["value"]
    run = scope["numbers"]
    run = run[(run["paper"] == "posthoc") & (run["recipe"] == "pretrain") & (run["seed"] == 0)]
    theirs = run.set_index(["score", "set", "metric"])["value"]
    for name in ("msp", "energy", "knn"):
        assert ours[name, "faces", "auroc"] == theirs[name, "faces", "auroc"], "the same numbers as the run's"
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Cross-entropy &")]
    assert [row.split(" & ")[1] for row in rows] == ["MSP", "Energy", "KNN", "ViM"]
