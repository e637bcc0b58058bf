"""The default run, as a newcomer meets it: a fresh checkout, one command, a page."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT, snakemake, would_run
from workflow_scripts.core import plugins
from workflow_scripts.networks import checkpoint
from workflow_scripts.work.expand import read_plan

PLAN = read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT, {})


@pytest.fixture(scope="session")
def table(default_run) -> dict[tuple[str, str, str, str], dict[str, float]]:
    """(recipe, score, dataset, metric) -> value per seed, over all tables."""
    values: dict = defaultdict(dict)
    for path in (default_run / "results" / "small" / "tables").glob("*.csv"):
        for row in csv.DictReader(path.open()):
            for pair in row["values"].split(";"):
                seed, value = pair.split("=")
                values[row["recipe"], row["score"], row["dataset"], row["metric"]][seed] = float(value)
    return values


def test_it_ends_with_tables_figures_and_a_page_whose_path_it_prints(default_run):
    results = default_run / "results" / "small"
    for paper in PLAN.papers:
        for kind in ("csv", "md", "tex", "manifest.json"):
            assert (results / "tables" / f"{paper}.{kind}").stat().st_size > 100
        assert len(list((results / "figures" / paper).glob("*.svg"))) == len(
            list((results / "figures" / paper).glob("*.png"))) > 0
    page, said = results / "report.html", (default_run / "terminal.txt").read_text()
    assert all((results / f"overview.{kind}").stat().st_size > 1000 for kind in ("csv", "md", "tex"))
    headlines = said[said.index("Percent, mean ± standard deviation over seeds"):].splitlines()
    assert {paper.title for paper in PLAN.config.papers} <= set(headlines) and "missing" not in "".join(headlines)
    assert page.resolve().as_uri() in said
    assert (default_run / "results" / "report.html").read_bytes() == page.read_bytes()


def test_its_terminal_output_is_short(default_run):
    assert len((default_run / "terminal.txt").read_text().splitlines()) < 80


def test_no_number_is_held_against_a_papers(default_run):
    results = default_run / "results" / "small"
    verdicts = Counter(row["verdict"] for paper in PLAN.papers
                       for row in csv.DictReader((results / "published" / f"{paper}.csv").open()))
    assert verdicts.keys() == {"small run, not comparable"} and verdicts.total() > 150
    assert "small run, not comparable" in (results / "tables" / "goe.md").read_text()


def test_snakemakes_own_report_holds_every_result(default_run):
    done = snakemake(default_run, "--report", "own.zip")
    assert done.returncode == 0, done.stdout[-2000:]
    named = {Path(name).name for name in zipfile.ZipFile(default_run / "own.zip").namelist()}
    assert {"report.html", "overview.csv", *(f"{paper}.csv" for paper in PLAN.papers)} <= named


def test_a_second_run_says_nothing_to_be_done(default_run):
    assert "Nothing to be done" in snakemake(default_run, "--cores", "all").stdout


def test_everything_lies_below_its_variant(default_run):
    assert {p.name for p in (default_run / "results").iterdir()} == {"small", "report.html", ".gitkeep"}


def test_learned_weights_follow_the_pretrained_network_after_the_first_epoch(default_run):
    folder = default_run / "results" / "small" / "figures" / "bgresample"
    facts = json.loads((folder / "background_weights.json").read_text())
    assert facts["rank_correlation"]["1"] > 0.3


def test_networks_are_accurate_and_have_learned(default_run, table):
    for run in PLAN.runs.values():
        history = checkpoint.read(default_run / "results" / "small" / "models" / run.id / run.network.name
                                  / run.path_name / f"seed{run.seed}.pt")["about"]["history"]
        assert len(history) >= 3
        if plugins.spec("methods", run.recipe.method).outliers != "always":
            assert history[-1]["loss"] < history[0]["loss"] / 2
        else:  # a loss against outliers has a floor: the entropy of what it asks for
            assert history[-1]["loss"] < history[0]["loss"] and history[-1]["accuracy"] > 0.85
    for (_, _, dataset, metric), seeds in table.items():
        if metric == "accuracy" and dataset == "digits":
            assert min(seeds.values()) >= 0.9


def test_the_page_teaches(default_run, table):
    """Energy is neither chance nor perfect on at least half the sets with both seeds; near-OOD is there."""
    sets = PLAN.ood["digits"]
    telling = [s for s in sets if all(0.55 < v < 0.99 for v in table["pretrain", "energy", s, "auroc"].values())]
    assert len(telling) >= len(sets) / 2
    assert "near" in sets.values() and ("pretrain", "energy", "digits89", "auroc") in table
    assert all(len(seeds) == 2 for seeds in table.values())


def test_every_set_below_chance_is_explained_on_the_page(default_run, table):
    page = (default_run / "results" / "small" / "report.html").read_text()
    listed = " ".join(re.findall(r'<ul class="chance">.*?</ul>', page, re.DOTALL))
    below = {(dataset, score) for (_, score, dataset, metric), seeds in table.items()
             if metric == "auroc" and sum(seeds.values()) / len(seeds) < 0.5 and dataset in PLAN.ood["digits"]}
    assert bool(listed) == bool(below)
    for dataset, score in below:
        # a set may be below chance on each ID set, by other scores
        entries = re.findall(rf"<li><b>{re.escape(PLAN.names[dataset])}</b>.*?</li>", listed, re.DOTALL)
        assert any(PLAN.names[score] in entry for entry in entries)


def test_few_processes_import_torch(tmp_path):
    """All jobs that run a network, over the whole default run: at most 70 once all five papers live there."""
    jobs = would_run(ROOT, "--forceall")
    running = ("train", "import", "features", "score_network", "tune", "select_best")
    torch_jobs = sum(n for rule, n in jobs.items() if rule.startswith(running))
    assert 0 < torch_jobs <= 70


def test_the_manifest_tells_where_the_numbers_come_from(default_run):
    for paper in PLAN.papers:
        manifest = json.loads((default_run / "results" / "small" / "tables" / f"{paper}.manifest.json").read_text())
        assert manifest["seeds"] == [0, 1] and manifest["config"]["variant"] == "small"
        assert {"torch", "numpy", "snakemake", "python"} <= manifest["packages"].keys()
        model = PLAN.reported(paper)[0].network.model
        assert any(f"models/{model}.py" in key for key in manifest["code"][f"models.{model}"])
        assert all(entry["sha256"] for entry in manifest["inputs"])
        assert sum(entry["path"].endswith(".pt") for entry in manifest["inputs"]) >= 2
        trained = [s for s in manifest["stages"] if s["job"].startswith("models/")]
        assert trained and all(s["seconds"] > 0 for s in trained)
        assert manifest["hardware"]["cores"] >= 1


def test_one_job_alone_can_be_asked_for(default_run):
    assert would_run(default_run, "results/small/scores/digits/resnet-small/pretrain/seed0/energy.h5", "--force") == {
        "score_sets": 1}


def test_a_mistyped_key_is_named_in_one_line(default_run):
    done = snakemake(default_run, "--cores", "1", "-n", "--config", "sedes=3")
    named = [line for line in done.stdout.splitlines() if "sedes" in line and not line.startswith(" ")]
    assert done.returncode != 0
    assert named[-1].startswith("config: sedes: unknown key 'sedes'; did you mean 'seeds'?")
    assert "Traceback" not in done.stdout
