"""First epochs that trainings share: what a change trains again, and what it leaves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from tests.checkout import copy as checkout
from tests.checkout import pretend_finished, snakemake, would_run
from tests.everyday_data import TINY
from tests.training.test_starts import RECIPES

NAMED = {recipe["name"]: recipe for recipe in RECIPES}


def configuration(*recipes: dict[str, Any]) -> str:
    config = copy.deepcopy(TINY)
    config["recipes"] = list(recipes)
    config["experiments"] = [{"paper": "first", "id": "digits", "networks": ["net"], "scores": ["msp"],
                              "recipes": [recipe["name"] for recipe in recipes], "ood": {"far": ["faces"]}}]
    return yaml.safe_dump(copy.deepcopy(config), sort_keys=False)


def changed(name: str, **options: Any) -> list[dict[str, Any]]:
    recipes = [copy.deepcopy(NAMED[one]) for one in ("npos", "npos1", "cider")]
    for recipe in recipes:
        if recipe["name"] == name:
            recipe["options"] |= options
    return recipes


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = checkout(tmp_path_factory.mktemp("starts"))
    (folder / "config.yaml").write_text(configuration(*changed("")))
    pretend_finished(folder)
    return folder


def trained(folder, recipes) -> tuple[int, int]:
    """How many starts and how many networks would be trained."""
    (folder / "config.yaml").write_text(configuration(*recipes))
    jobs = would_run(folder)
    return jobs["train_start"], jobs["train_network"]


@pytest.mark.parametrize(("recipes", "expected"), [
    (changed(""), (0, 0)),
    (changed("npos", sigma=0.3), (0, 1)),  # counts after the start: its training alone
    (changed("npos", momentum=0.5), (1, 1)),  # a start of its own
    (changed("cider", momentum=0.5), (0, 1)),  # no start suits it any more
    ([{**recipe, "training": {**recipe["training"], "lr": 0.04}} for recipe in changed("")], (1, 3)),
    ([*changed(""), NAMED["sigma"]], (0, 1)),  # finds the start that there is
    ([*changed(""), NAMED["vos"]], (1, 1)),
    (changed("")[1:], (0, 0)),  # one less: the start is not that of a recipe
], ids=["nothing", "a late option", "an early option", "of an open end", "all of them", "one more", "another method",
        "one less"])
def test_what_a_change_trains_again(finished, recipes, expected):
    assert trained(finished, recipes) == expected


def test_another_code_of_a_method_trains_its_start_again(finished):
    path = finished / "workflow_scripts" / "methods" / "npos.py"
    before = path.read_text()
    try:
        path.write_text(f"{before}\n\nNEW = 1\n")
        assert trained(finished, changed("")) == (1, 3)
    finally:
        path.write_text(before)


def test_a_run_trains_them_once(tmp_path):
    """All jobs for real: the log of a training begins where the start ends."""
    folder = checkout(tmp_path)
    (folder / "config.yaml").write_text(configuration(*changed("")[:2]))
    files = [f"results/tiny/models/digits/net/{name}/seed0.pt" for name in ("npos", "npos1+B1")]
    done = snakemake(folder, *files, "--cores", "2")
    assert done.returncode == 0, done.stdout[-3000:]
    logs = {path.relative_to(folder / "results/tiny/logs").parts[0]: path.read_text()
            for path in (folder / "results/tiny/logs").rglob("seed0.log")}
    assert "epoch 2/4" in logs["starts"] and "epoch 3/4" not in logs["starts"]
    assert "epoch 3/4" in logs["models"] and "epoch 2/4" not in logs["models"]
    assert would_run(folder, *files) == {}
