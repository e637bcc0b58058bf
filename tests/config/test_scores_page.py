"""docs/scores.md lists every score as it is."""

from __future__ import annotations

import pytest

from workflow_scripts.config import scores_page as page
from workflow_scripts.core import plugins


def test_the_page_is_up_to_date():
    page.main(["--check"])


def test_every_score_is_in_the_table():
    text = page.text()
    assert all(f"\n| `{name}` | " in text for name in plugins.names("scores"))
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| ")}) == 1


@pytest.mark.parametrize(("name", "cost"), [
    ("energy", "cached features"), ("knn", "cached features; one pass over those of the train set"),
    ("odin", "runs the network on the test images"),
    ("gram", "runs the network on the test images, once on the train images")])
def test_cost(name, cost):
    assert page.cost(plugins.spec("scores", name)) == cost


def test_an_outdated_page_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "TARGET", tmp_path / "scores.md")
    with pytest.raises(SystemExit):
        page.main(["--check"])
    assert "scores.md is out of date; run: uv run python -m workflow_scripts.config.scores_page" in \
        capsys.readouterr().err
    page.main([])
    page.main(["--check"])
