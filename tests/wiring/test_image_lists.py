"""A list of images below the data root is read there, any other is fetched and checked."""

from __future__ import annotations

import json
from types import SimpleNamespace

from tests.checkout import ROOT
from tests.config.test_config import small
from workflow_scripts.config import image_lists
from workflow_scripts.wiring import data
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.missing import missing_data
from workflow_scripts.work.plan import Plan

PAIR = ("openood_cifar10_tin", "test")
WILDCARDS = SimpleNamespace(dataset=PAIR[0], split=PAIR[1])


def plan(root, **changes) -> Plan:
    raw = small() | changes
    raw["experiments"] = [{**raw["experiments"][0], "ood": {"near": [PAIR[0]]}}]
    return read_plan(raw, ROOT, {"OOD_DATA": str(root)})


def test_a_list_that_is_not_there_is_fetched(tmp_path):
    made = plan(tmp_path)
    [file] = data.fetched_list(made, WILDCARDS)
    assert file.endswith("archives/openood-cifar10-test_tin.txt")
    assert data.list_option(made, WILDCARDS) == f"--list {file}"
    known = image_lists.read().lists["cifar10/test_tin"]
    row = json.loads(data.source_row(made, SimpleNamespace(archive="openood-cifar10-test_tin.txt")))
    assert row["checksum"] == [f"lines:{known.lines}", f"paths:{known.paths}"] and len(row["urls"]) == 3


def test_a_list_below_the_data_root_is_not(tmp_path):
    (tmp_path / "benchmark_imglist" / "cifar10").mkdir(parents=True)
    there = tmp_path / "benchmark_imglist" / "cifar10" / "test_tin.txt"
    there.touch()
    made = plan(tmp_path)
    assert data.fetched_list(made, WILDCARDS) == [] and data.list_option(made, WILDCARDS) == f"--list {there}"


def test_what_a_store_is_made_of_says_which_list_and_not_where(tmp_path):
    elsewhere = json.loads(data.prepare_section(plan(tmp_path), WILDCARDS))
    (tmp_path / "benchmark_imglist" / "cifar10").mkdir(parents=True)
    (tmp_path / "benchmark_imglist" / "cifar10" / "test_tin.txt").touch()
    assert json.loads(data.prepare_section(plan(tmp_path), WILDCARDS)) == elsewhere
    assert elsewhere["listed"]["name"] == "cifar10/test_tin" and elsewhere["count"] == 7793


def test_offline_it_is_to_be_placed_by_hand(tmp_path):
    lines = missing_data(plan(tmp_path, offline=True), [PAIR], [])
    assert any("archives/openood-cifar10-test_tin.txt (lines:" in line for line in lines)


def test_a_set_without_a_list_has_no_option(tmp_path):
    made = plan(tmp_path)
    assert data.list_option(made, SimpleNamespace(dataset=made.experiments("posthoc")[0].id, split="test")) == ""
