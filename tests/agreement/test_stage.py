"""The stage: a file that need not be there leaves its numbers out of the table, any other is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import truth
from workflow_scripts.stages import check_published
from workflow_scripts.stages.sections.check_published import CheckPublished

PRINTED = {"a": "1.0", "b": "2.0", "c": "3.0"}


def section(left_out):
    return CheckPublished.of(check="odin_cifar10", files={"x": ["x.txt"], "y": ["y.txt", "z.txt"]}, left_out=left_out,
                             printed=PRINTED)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the stage on a folder with x.txt, and gives its table."""
    (tmp_path / "x.txt").touch()

    def compute(given):
        return {"a": 1.04, "c": 4.0} | ({"b": 2.0} if "y" in given.files else {})

    monkeypatch.setattr(plugins, "load", lambda package, name: SimpleNamespace(compute=compute))

    def go(left_out):
        check_published.main(["--config", section(left_out).dump(), "--data-root", str(tmp_path), "--out",
                              str(tmp_path / "out.csv")])
        return truth.read(tmp_path / "out.csv")

    return go


def test_numbers_of_a_file_that_is_not_there_are_left_out(run, capsys):
    rows = run({"y": ["b"]})
    assert rows["quantity"].tolist() == ["a", "b", "c"] and rows["agrees"].tolist() == [True, False, False]
    assert rows["ours"].isna().tolist() == [False, True, False]
    assert rows["reason"][1] == "not computed: none of y.txt, z.txt is there"
    assert "1 of 2 numbers agree; 1 are not computed" in capsys.readouterr().out
    assert truth.counted(rows) == "1 of 2 numbers agree; 1 are not computed."


def test_they_are_computed_where_it_is(run, tmp_path):
    (tmp_path / "z.txt").touch()
    assert run({"y": ["b"]})["agrees"].tolist() == [True, True, False]


def test_any_other_file_is_asked_for(tmp_path):
    (tmp_path / "x.txt").touch()
    with pytest.raises(OODError, match="check 'odin_cifar10', file 'y': none of y.txt, z.txt is there, below the"):
        check_published.located(section({}), tmp_path, {})
