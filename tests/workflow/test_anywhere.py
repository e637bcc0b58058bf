"""The workflow from other places than its own folder: -s, --directory, and as a module of another workflow."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
from PIL import Image

from tests.checkout import ROOT, copy, snakemake, would_run
from tests.everyday_data import TINY, write

STORE = "results/tiny/data/faces.test.h5"
SNAKEFILE = str(ROOT / "Snakefile")
MODULE = """
module ood:
    snakefile: {snakefile}
    config: {config}

use rule * from ood{names}

rule everything:
    default_target: True
    input: rules.{all}.input
"""


def images(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["labels"])


def test_from_another_folder_and_with_another_one(tmp_path):
    """Where no config.yaml is: the default run is that beside the Snakefile."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    from_here = would_run(here, "--snakefile", SNAKEFILE)
    assert from_here["train_network"] == 28 and from_here["extract_features"] == 24
    assert would_run(ROOT, "--directory", str(there)) == from_here


@pytest.mark.parametrize("words", [[], ["--directory", "there"]], ids=["snakefile", "directory"])
def test_a_store_is_made_in_another_folder(tmp_path, words):
    write(tmp_path / "tiny.yaml")
    done = snakemake(tmp_path, "--snakefile", SNAKEFILE, "--configfile", "tiny.yaml", "--cores", "1", STORE, *words)
    assert done.returncode == 0, done.stdout[-3000:]
    assert images(tmp_path.joinpath(*words[1:], STORE)) == 48


def test_files_of_two_folders_name_what_is_beside_each(tmp_path):
    """And a key that one of them gives twice is refused, though Snakemake has read it before us."""
    for folder, grey in (("one", 10), ("two", 200)):
        (tmp_path / folder / "photos").mkdir(parents=True)
        for name in ("1.png", "2.png"):
            Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / folder / "photos" / name)
    photos = {"reader": "images", "options": {"files": "./photos"}, "splits": {"test": {}}}
    ood = {"far": ["mine"]}
    write(tmp_path / "one" / "c.yaml", datasets={"mine": photos},
          experiments=[{**experiment, "ood": ood} for experiment in TINY["experiments"]])
    more = tmp_path / "two" / "more.yaml"
    more.write_text("limit: {images: 6}\n")
    store = "results/tiny/data/mine.test.h5"
    words = ["--snakefile", SNAKEFILE, "--cores", "1", "--configfile", "one/c.yaml", str(more)]
    done = snakemake(tmp_path, store, *words)
    assert done.returncode == 0, done.stdout[-3000:]
    with h5py.File(tmp_path / store) as file:
        assert file["images"][:].max() == 10 and json.loads(file.attrs["definition"])["limit"] == 6
    more.write_text("limit: {images: 6}\nseeds: 2\nlimit: {images: 9}\n")
    done = snakemake(tmp_path, store, *words)
    assert done.returncode == 1 and f"config: {more}: the key 'limit' is given twice in one mapping, in line 1 and " \
        "in line 3; keep one of the two\n" in done.stdout


@pytest.mark.parametrize(("names", "prefix"), [("", ""), (" as ood_*", "ood_")], ids=["as it is", "renamed"])
def test_as_a_module_of_another_workflow(tmp_path, names, prefix):
    (tmp_path / "Snakefile").write_text(MODULE.format(
        snakefile=json.dumps(SNAKEFILE), config=repr(TINY), names=names, all=f"{prefix}all"))
    found = would_run(tmp_path)
    assert found.pop("everything") == 1
    assert found == {prefix + rule: count for rule, count in {
        "prepare_dataset": 5, "compare_sets": 1, "train_network": 2, "extract_features": 2, "score_sets": 3,
        "compute_metrics": 2, "compare_scores": 2, "make_tables": 2, "draw_figures": 2, "write_manifest": 2,
        "make_cards": 1, "make_report": 1}.items()}
    done = snakemake(tmp_path, "--cores", "1", STORE)
    assert done.returncode == 0, done.stdout[-3000:]
    assert images(tmp_path / STORE) == 48


@pytest.mark.parametrize(("keys", "said"), [
    ("", "a module of this workflow needs a configuration, and `config:` of the module has none"),
    ("config: {}", "a module of this workflow needs a configuration, and `config:` of the module has none"),
    ("config: {'include': ['config.yaml']}\n    prefix: 'mine'", "prefix and replace_prefix of a module cannot move"),
], ids=["none", "empty", "prefix"])
def test_a_module_that_cannot_be(tmp_path, keys, said):
    text = MODULE.format(snakefile=json.dumps(SNAKEFILE), config="KEYS", names=" as ood_*", all="ood_all")
    (tmp_path / "Snakefile").write_text(text.replace("config: KEYS", keys))
    done = snakemake(tmp_path, "--dry-run", "--cores", "1")
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("config: ")][0].startswith(f"config: {said}")
    assert "Traceback" not in done.stdout


def test_rules_of_one_checkout_do_not_run_the_code_of_another(tmp_path):
    other = copy(tmp_path / "other")
    modules = "module {0}:\n    snakefile: {1!r}\n    config: {2!r}\nuse rule * from {0} as {0}_*\n"
    (tmp_path / "Snakefile").write_text("".join(modules.format(name, str(place / "Snakefile"), TINY)
                                                for name, place in (("one", ROOT), ("two", other))))
    done = snakemake(tmp_path, "--dry-run", "--cores", "1")
    assert done.returncode == 1
    assert f"config: the rules are those of {other}, but Python imported workflow_scripts from {ROOT};" in done.stdout
