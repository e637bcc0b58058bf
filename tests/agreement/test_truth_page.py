"""docs/truth.md: its check without a run, and numbers that are not computed."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.checkout import ROOT
from workflow_scripts import truth_page
from workflow_scripts.agreement import base
from workflow_scripts.config import published_checks
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import truth

WHOLE = published_checks.read(ROOT / "config" / "published_checks.yaml")


@pytest.fixture
def rows():
    """A run whose numbers are the printed ones."""
    found = []
    for check in WHOLE.checks:
        for quantity, printed in check.printed.items():
            allowed, reason = base.allowance(printed)
            found.append((check.name, quantity, printed, base.value(printed), allowed, reason, 0.0, True))
    return pd.DataFrame(found, columns=truth.COLUMNS)


def test_a_written_page_passes_its_check(rows):
    page = truth_page.text(rows)
    assert truth_page.stale(page) == []
    assert f"{len(rows)} of {len(rows)} numbers agree." in page
    for part in (*WHOLE.unchecked, *WHOLE.exactness):
        assert all(text.replace("|", r"\|") in page for text in part.model_dump().values())


@pytest.mark.parametrize(("old", "new"), [
    ("| 6.56 |", "| 6.57 |"), ("It leaves open: Icons-50", "It leaves open: Icons"),
    ("| HIMPLoS | ImageNet", "| HIMPLoS | Imagenet")])
def test_another_printed_number_or_text_is_told(rows, old, new):
    page = truth_page.text(rows)
    assert old in page and truth_page.stale(page.replace(old, new))


def test_numbers_that_were_not_computed_are_told_apart(rows):
    absent = rows["quantity"] == "mean features, correlation"
    rows.loc[absent, ["ours", "agrees", "difference"]] = [float("nan"), False, float("nan")]
    page = truth_page.text(rows)
    assert f"{len(rows) - 2} of {len(rows) - 2} numbers agree; 2 are not computed." in page
    assert "not computed" in page and truth_page.stale(page) == []


def test_the_table_of_another_run_is_refused(rows):
    with pytest.raises(OODError, match="odin_cifar10: the table of the run has other printed numbers"):
        truth_page.text(rows[rows["quantity"] != "test error"])
