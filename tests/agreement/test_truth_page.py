"""docs/truth.md: made of a record and the configured checks, numbers that are not computed, other records."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.checkout import ROOT
from workflow_scripts import truth_page
from workflow_scripts.agreement import base
from workflow_scripts.config import published_checks
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import published, truth
from workflow_scripts.reporting.statistics import Seeds

WHOLE = published_checks.read(ROOT / "config" / "published_checks.yaml")


@pytest.fixture
def record():
    """A run whose numbers are the printed ones."""
    found = [(check.name, quantity, printed, base.value(printed))
             for check in WHOLE.checks for quantity, printed in check.printed.items()]
    return pd.DataFrame(found, columns=truth_page.RECORDED)


def test_the_page_says_every_number_and_every_word(record):
    page = truth_page.text(record, WHOLE)
    assert f"{len(record)} of {len(record)} numbers agree." in page
    for part in (*WHOLE.unchecked, *WHOLE.exactness):
        assert all(text.replace("|", r"\|") in page for text in part.model_dump().values())


def test_verdicts_are_worked_out_from_the_record(record):
    record.loc[record["quantity"] == "baseline: test error", "ours"] = 0.95
    assert f"{len(record) - 1} of {len(record)} numbers agree." in truth_page.text(record, WHOLE)
    assert "| baseline: test error | 0.94 | 0.950 | +0.01 | no |" in truth_page.text(record, WHOLE)


def test_numbers_that_were_not_computed_are_told_apart(record):
    absent = (record["check"] == "himplos_cifar100") & record["quantity"].str.startswith("mean features")
    record.loc[absent, "ours"] = float("nan")
    page = truth_page.text(record, WHOLE)
    assert f"{len(record) - 2} of {len(record) - 2} numbers agree; 2 are not computed." in page
    assert page.count("not computed: none of cifar100/train.bin") == 2


def test_the_record_of_other_checks_is_refused(record):
    with pytest.raises(OODError, match="odin_cifar10: the recorded run has other printed numbers"):
        truth_page.text(record[record["quantity"] != "test error"], WHOLE)


def test_a_file_that_is_no_record_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OODError, match="x.csv: columns a, b, expected check, quantity, printed, ours"):
        truth.read(tmp_path / "x.csv", truth_page.RECORDED)


def test_networks_trained_here_have_a_table(record):
    ours = published.framed([{
        "id": "mnist", "network": "ConvNet", "training": "baseline", "score": "MSP", "sets": "CIFAR-10", "source": "s",
        "metric": "auroc", **published.against(Seeds(((0, 0.9985), (1, 0.9987))), 99.87, "auroc", True, "")}])
    page = truth_page.text(record, WHOLE, ours)
    assert "### Trained here: Outlier Exposure on MNIST" in page
    assert "| 99.87 | 99.86 ± 0.01 |" in page and "Trained here" not in truth_page.text(record, WHOLE)


def test_the_command_keeps_a_run_and_tells_a_page_that_was_edited(record, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(truth_page, "RECORD", tmp_path / "truth.csv")
    monkeypatch.setattr(truth_page, "PAGE", tmp_path / "truth.md")
    monkeypatch.setattr(truth_page, "TRAINED", tmp_path / "truth_trained.csv")
    truth_page.rows(record, WHOLE).to_csv(tmp_path / "run.csv", index=False)
    truth_page.main(["--table", str(tmp_path / "run.csv")])
    truth_page.main(["--check"])
    page = (tmp_path / "truth.md").read_text()
    for old, new in (("| 0.940 |", "| 0.941 |"), ("numbers agree", "numbers almost agree"), ("### Images", "Images")):
        assert old in page
        (tmp_path / "truth.md").write_text(page.replace(old, new, 1))
        with pytest.raises(SystemExit):
            truth_page.main(["--check"])
        assert "truth.md is out of date" in capsys.readouterr().err
