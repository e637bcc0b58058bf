"""The plan is data: complete when it is there, and not to be changed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
import yaml

from tests.checkout import ROOT
from tests.config.test_config import small
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Key, Plan

PLAN = read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT, {})


@pytest.mark.parametrize("name", [field.name for field in fields(Plan)])
def test_nothing_in_a_plan_is_replaced(name):
    with pytest.raises(FrozenInstanceError):
        setattr(PLAN, name, None)


def test_nothing_is_added_to_what_a_plan_holds():
    run = next(iter(PLAN.runs.values()))
    for table in (PLAN.datasets, PLAN.sources, PLAN.runs, PLAN.ood, next(iter(PLAN.ood.values())), PLAN.parts,
                  PLAN.otherwise, next(iter(PLAN.otherwise.values())), PLAN.imported, run.scores):
        with pytest.raises(TypeError):
            table["new"] = None
    with pytest.raises(FrozenInstanceError):
        run.seed = 9


def test_a_network_is_found_by_the_key_it_has():
    for key, run in PLAN.runs.items():
        assert run.key == key == Key(run.id, run.network.name, run.path_name, run.seed)
        assert [PLAN.sibling(run, name).seed for name in run.starts] == [run.seed] * len(run.starts)


def test_a_network_of_two_experiments_has_the_scores_of_both():
    raw = small()
    first = raw["experiments"][0]
    name = first["scores"][0]
    raw["experiments"] = [{**first, "scores": [name]}, {**first, "paper": "himplos", "scores": first["scores"][::-1]}]
    plan = read_plan(raw, ROOT, {})
    for run in plan.runs.values():
        assert list(run.scores) == list(dict.fromkeys([name, *first["scores"][::-1]]))
    assert plan.reported(first["paper"]) == plan.reported("himplos") == list(plan.runs.values())


def test_downloads_of_weights_are_raw_files_of_the_plan():
    plan = read_plan(yaml.safe_load((ROOT / "config" / "dfb.yaml").read_text()), ROOT, {})
    named = {plan.checkpoint_archive(run.recipe) for run in plan.runs.values()} - {None}
    assert named and all(plan.sources[name].urls for name in named)
