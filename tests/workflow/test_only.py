"""A part of the work: the same files as the whole, nothing trained again, wrong names told in one line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.checkout import ROOT, pretend_finished, would_run
from tests.everyday_data import TINY, write
from workflow_scripts.core.errors import OODError
from workflow_scripts.wiring import evaluation, pictures, reports, targets, training
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Plan

NETWORKS = {"train_network", "extract_features", "score_sets", "compute_metrics", "prepare_dataset"}


def plan(**changes) -> Plan:
    return read_plan({**TINY, "seeds": [0, 1], **changes}, ROOT, {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder outside the repository in which the whole tiny configuration counts as finished, with two seeds."""
    folder = tmp_path_factory.mktemp("only")
    write(folder / "config.yaml", seeds=[0, 1])
    pretend_finished(folder, *words())
    assert jobs(folder) == {}
    return folder


def words(*config: str) -> tuple[str, ...]:
    given = ("--config", *config) if config else ()
    return (*given, "--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml")


def jobs(folder: Path, *config: str) -> dict[str, int]:
    return dict(would_run(folder, *words(*config)))


def test_one_paper_after_all_makes_its_page_anew_and_nothing_else(finished):
    assert jobs(finished, "only=first") == {"make_cards": 1, "make_report": 1}


def test_one_seed_after_all_runs_no_network(finished):
    found = jobs(finished, "only={seeds: [0]}")
    assert not NETWORKS & found.keys()
    assert found["make_tables"] == found["write_manifest"] == 2


def test_seeds_two_and_three_train_just_two_more_of_each_recipe(finished):
    whole, part = jobs(finished, "seeds=4"), jobs(finished, "seeds=4", "only={seeds: [2, 3]}")
    for found in (whole, part):
        assert found["train_network"] == 4 and found["extract_features"] == 4 and "prepare_dataset" not in found


def test_words_of_the_command_line_may_be_nested(finished):
    found = jobs(finished, "seeds=3", "only={papers: [first], recipes: ce, seeds: [2]}")
    assert found["train_network"] == 1 and found["make_tables"] == 1


@pytest.mark.parametrize("only", [{"papers": ["second"]}, {"seeds": [1]}, {"recipes": ["oe"]}, {"networks": ["net"]},
                                  {"ids": ["digits"]}, "first"])
def test_what_is_kept_has_the_parameters_of_the_whole(only):
    whole, part = plan(), plan(only=only)
    assert part.wanted
    for run in part.wanted.values():
        wc = SimpleNamespace(id=run.id, network="net", recipe=run.path_name, seed=run.seed, score="msp")
        for function in (training.train_section, evaluation.metrics_section, evaluation.score_section,
                         evaluation.metrics_inputs, evaluation.score_inputs):
            assert function(part, wc) == function(whole, wc)
    if not part.config.only.within_a_paper():
        for paper in part.papers:
            wc = SimpleNamespace(paper=paper)
            assert reports.manifest_section(part, wc) == reports.manifest_section(whole, wc)
            assert reports.table_section(part, wc) == reports.table_section(whole, wc)


def test_a_part_of_a_paper_says_so_in_its_manifest():
    assert '"only":{"seeds":[1]}' in reports.manifest_section(plan(only={"seeds": [1]}), SimpleNamespace(paper="first"))


def test_a_recipe_brings_what_it_starts_from_and_only_its_pictures():
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    part = read_plan({**default, "only": {"recipes": ["learned-10"], "seeds": [0]}}, ROOT, {})
    assert {run.path_name for run in part.wanted.values()} == {"pretrain", "weights", "learned-10"}
    assert part.papers == ["bgresample"]
    assert {picture.file: [run.path_name for run in pictures.shown(part, "bgresample", picture)]
            for picture in pictures.of_paper(part, "bgresample")} == {
                "background_extremes": ["weights"], "background_weights": ["weights"],
                "detection_by_ratio": ["learned-10"]}
    assert [dataset for dataset, split in part.used_datasets() if split == "train"] == ["digits", "pool"]


def test_a_set_that_only_left_out_papers_need_is_not_prepared():
    assert ("pool", "train") in plan().used_datasets()
    assert ("pool", "train") not in plan(only="first").used_datasets()


def test_targets_name_a_paper_its_table_and_each_figure(finished):
    named = targets.targets(plan())
    assert named["second_roc"] == ["results/tiny/figures/second/roc.svg"]
    assert {"first", "first_table", "first_figures", "first_heatmap"} <= named.keys()
    assert not any("second" in name for name in targets.targets(plan(only="first")))
    assert would_run(finished, "second_table", "--forcerun", "make_tables", *words()) == {
        "make_tables": 1, "second_table": 1}


@pytest.mark.parametrize(("only", "line"), [
    ("frist", "only.papers: 'frist' is not known; did you mean 'first'? Allowed: first, second."),
    ({"recipes": ["OE"]}, "only.recipes: 'OE' is not known"),
    ({"seeds": [7]}, "only.seeds: 7 is no seed of this configuration, whose seeds are 0, 1; set the key seeds"),
    ({"seed": [0]}, "only.seed: unknown key 'seed'; did you mean 'seeds'?"),
    ({"papers": ["first"], "recipes": ["oe"]}, "only: no experiment is in all of"),
    (3, "only: "),
])
def test_a_wrong_part_is_told_in_one_line(only, line):
    with pytest.raises(OODError) as error:
        plan(only=only)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
