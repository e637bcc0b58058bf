"""Keys that have another name now: refused with it, wherever they stand."""

from __future__ import annotations

import pytest
import yaml

from tests.checkout import ROOT
from tests.config.test_config import small
from workflow_scripts.config import renamed
from workflow_scripts.core.errors import OODError
from workflow_scripts.work.expand import read_plan

TABLE = {"recipes[].trunk": "recipes[].frozen_blocks", "limit.images": "cut.images", "seed": "seeds",
         "datasets.*.keep": "datasets.*.list", "sources.*.for": ""}


@pytest.mark.parametrize(("raw", "lines"), [
    ({"seed": 3}, ["seed: 'seed' is now called 'seeds'; write that, it means the same"]),
    ({"recipes": [{"name": "a"}, {"name": "b", "trunk": False}]},
     ["recipes[1].trunk: 'trunk' is now called 'frozen_blocks'; write that, it means the same"]),
    ({"limit": {"images": 9}}, ["limit.images: 'images' is now cut.images; write that, it means the same"]),
    ({"datasets": {"x": {"keep": ""}, "y": {}}},
     ["datasets.x.keep: 'keep' is now called 'list'; write that, it means the same"]),
    ({"sources": {"x.tar": {"for": ["x"]}}},
     ["sources.x.tar.for: 'for' is no longer a key; remove it, nothing else changes"]),
    ({"recipes": {"trunk": 1}, "limit": 3, "datasets": None}, []),  # ill-formed, which the models say
    ({}, [])])
def test_each_place_is_named_with_the_new_name(raw, lines):
    assert renamed.renamed(raw, TABLE) == lines


def test_a_configuration_with_an_old_key_is_refused(monkeypatch):
    monkeypatch.setattr(renamed, "RENAMED", {"variants": "variant"})
    raw = small()
    raw["variants"] = raw.pop("variant")
    with pytest.raises(OODError, match="^variants: 'variants' is now called 'variant'; write that, it means the same$"):
        read_plan(raw, ROOT, {})


@pytest.mark.parametrize(("section", "entry", "line"), [
    ("recipes", {"choose": {"among": ["a", "b"]}}, "'choose' is now called 'select_best'"),
    ("recipes", {"trunk": True}, "'trunk' is now called 'frozen_blocks'"),
    ("scores", {"choose": {}}, "'choose' is now called 'tune'")])
def test_an_old_key_of_a_user_is_refused_with_its_new_name(section, entry, line):
    raw = small()
    raw[section].append({"name": "mine", "label": "Mine", **entry})
    place = rf"{section}\[{len(raw[section]) - 1}\]\.{next(iter(entry))}"
    with pytest.raises(OODError, match=f"^{place}: {line}; write that, it means the same$"):
        read_plan(raw, ROOT, {})


def test_no_new_name_is_an_old_one():
    """And the configurations that ship have none."""
    assert not renamed.RENAMED.keys() & set(renamed.RENAMED.values())
    for path in [ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml")]:
        assert not renamed.renamed(yaml.safe_load(path.read_text()))
