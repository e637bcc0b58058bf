"""Options chosen three ways, from raw images to the table."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
import yaml

from tests import checkout
from tests.tuning_data import write

TABLES = "results/tuned/tables/tuned.csv"
WAYS = ("id_only", "validation")
TUNED = ("energy", "knn", "ash", "odin", "gram")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout in which a configuration with `tuning` has run, and the configuration."""
    repository = checkout.copy(tmp_path_factory.mktemp("repository"))
    path = write(tmp_path_factory.mktemp("user"), ["msp", *TUNED], pseudo_ood={"pseudo_ood": "jigsaw"})
    done = checkout.snakemake(repository, "--cores", "1", TABLES, "--configfile", str(path))
    assert done.returncode == 0, done.stdout[-4000:]
    return repository, path


def test_the_table_has_each_score_three_ways(finished):
    repository, _ = finished
    rows = pd.read_csv(repository / TABLES)
    scores = {name for base in TUNED for name in (base, *(f"{base}_{way}" for way in WAYS))}
    assert set(rows.loc[rows["metric"] == "auroc", "score"]) == {"msp"} | scores
    page = (repository / TABLES).with_suffix(".md").read_text()
    main, chosen = page.split("### Options chosen: Five digits, tiny\n")
    assert all(name in main for name in ("msp", *TUNED)) and "id_only" not in main
    for base in TUNED:
        (line,) = re.findall(rf"^\| Plain \| {base} \| .*", chosen, re.MULTILINE)
        assert "missing" not in line and "nan" not in line.lower()


def test_test_scores_are_of_the_chosen_options(finished):
    import h5py

    repository, _ = finished
    for score, option in (("ash", "p"), ("odin", "temperature"), ("gram", "by_confidence")):
        for way in WAYS:
            place = "five/tiny/plain/seed0"
            choice = json.loads((repository / f"results/tuned/sweep/{place}/{score}_{way}.json").read_text())
            with h5py.File(repository / f"results/tuned/scores/{place}/{score}_{way}.h5") as file:
                assert json.loads(file.attrs["options"])[option] == choice[option]
                assert set(file) == {"five.test", "ood_test.test"}


def test_a_second_run_does_nothing_and_another_choice_trains_nothing(finished):
    repository, path = finished
    assert not checkout.would_run(repository, TABLES, "--configfile", str(path))
    config = yaml.safe_load(path.read_text())
    config["experiments"][0]["tuning"]["criterion"] = "fpr95"
    changed = path.with_name("fpr95.yaml")
    changed.write_text(yaml.safe_dump(config))
    jobs = checkout.would_run(repository, TABLES, "--configfile", str(changed))
    assert (jobs["choose_options"], jobs["choose_network_options"]) == (6, 4)
    assert not jobs.keys() & {"train_network", "extract_features", "extract_pseudo_ood", "extract_validation_features",
                              "extract_all_features"}
