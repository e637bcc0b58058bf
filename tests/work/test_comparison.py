"""Corrected against as released: which pairs a configuration gives, and the table of them."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest
import yaml

from tests import reporting_data
from tests.checkout import ROOT
from tests.config.test_config import changed, small
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import comparison, layout, results
from workflow_scripts.reporting.inputs import Compare
from workflow_scripts.reporting.statistics import Seeds
from workflow_scripts.stages import make_report as report
from workflow_scripts.stages import make_tables as tables
from workflow_scripts.stages.sections.make_report import MakeReport
from workflow_scripts.stages.sections.make_tables import MakeTables
from workflow_scripts.wiring import evaluation, reports
from workflow_scripts.work import released
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Plan

FULL = yaml.safe_load((ROOT / "config" / "goe.yaml").read_text())
NATURAL = ("texture", "svhn", "tin", "lsun", "places365")


def full(*bugs: str) -> Plan:
    return read_plan({**FULL, "fidelity": {"released": list(bugs)}}, ROOT, {})


def wildcards(**names: str) -> SimpleNamespace:
    return SimpleNamespace(**{"id": "cifar10", "network": "wrn40-2", "recipe": "goe", "seed": "0", "paper": "goe",
                              **names})


# ---------------------------------------------------------------- goe.2g-1: the lists

def test_the_lists_of_cifar100_stand_beside_those_of_cifar10():
    plan = full("goe.2g-1")
    ood = plan.ood
    assert [name for name, group in ood["cifar10"].items() if group == "far+2g-1"] == [
        f"scood_cifar100_{name}" for name in NATURAL]
    assert list(ood["cifar100"]) == list(full().ood["cifar100"])  # its own lists are those
    metrics = json.loads(evaluation.metrics_section(plan, wildcards()))["groups"]
    assert metrics["far+2g-1"] == [f"scood_cifar100_{name}.test" for name in NATURAL]
    table = json.loads(reports.table_section(plan, wildcards()))
    run = next(r for r in table["runs"] if r["id"] == "cifar10")
    assert run["groups"]["far+2g-1"] == [*(f"scood_cifar100_{name}" for name in NATURAL), "blobs_10k", "gaussian_10k"]
    assert "near+2g-1" not in run["groups"] and table["compare"]["sets"] == {"+2g-1": "goe.2g-1"}
    assert not any("+" in group for r in table["runs"] if r["id"] == "cifar100" for group in r["groups"])
    figures = json.loads(reports.figures_section(plan, wildcards()))
    assert not any("+" in group for r in figures["runs"] for group in r["groups"])
    assert all("+" not in key[2] for key in plan.runs)  # nothing is trained anew


def test_squashed_images_stand_beside_cut_ones_and_together_with_the_lists():
    """goe.2c: the published table is of the code of 2022, which cuts; its rows of E-OE are of 2024, which squashes."""
    plan = full("goe.2c", "goe.2g-1")
    groups = plan.groups_otherwise("cifar10", {"near": ["cifar100"], "far": list(plan.ood["cifar10"])[1:8]})
    noise = ["blobs_10k", "gaussian_10k"]
    assert groups == {"far+2c": [*(f"scood_cifar10_{name}_squash" for name in NATURAL), *noise],
                      "far+2g-1": [*(f"scood_cifar100_{name}" for name in NATURAL), *noise],
                      "far+2c+2g-1": [*(f"scood_cifar100_{name}_squash" for name in NATURAL), *noise]}
    assert set(plan.otherwise["cifar100"]) == {("goe.2c",)}  # its lists are those of the release
    for id in ("cifar10", "cifar100"):
        for name, group in plan.ood[id].items():
            row = plan.datasets[name]
            if row.reader == "scood":
                assert row.geometry == ("squash32" if "+2c" in group else "crop32"), name
        for name, (ood, like) in plan.parts[id].items():  # the protocol's parts are of the same geometry and lists
            rows = [plan.datasets[part] for part in (ood, like)]
            assert rows[0].geometry == rows[1].geometry
            assert rows[0].options_of("test")["benchmark"] == rows[1].options_of("test")["benchmark"], name
    table = json.loads(reports.table_section(plan, wildcards()))
    assert table["compare"]["sets"] == {"+2c": "goe.2c", "+2g-1": "goe.2g-1", "+2c+2g-1": "goe.2c, goe.2g-1"}


def test_a_set_of_the_lists_name_is_not_divided_by_it():
    """LSUN's own 10,000 images are not those of SC-OOD's list; the official CIFAR test sets are."""
    datasets = full().datasets
    assert set(released.parts(datasets, "cifar10", ["lsun", "svhn", "cifar100", "scood_cifar10_lsun"])) == {
        "cifar100", "scood_cifar10_lsun"}


def test_corrected_lists_are_those_of_the_id_set():
    plan = full()
    for id in ("cifar10", "cifar100"):
        for name in plan.ood[id]:
            row = plan.datasets[name]
            assert row.reader != "scood" or row.options_of("test")["benchmark"] == id
    assert json.loads(reports.table_section(full(), wildcards()))["compare"] is None


@pytest.mark.parametrize(("bugs", "raw", "message"), [
    (["goe.2g-1"], small(), r"fidelity\.released: no ID set .* 'goe\.2g-1'"),
    (["goe.2c"], small(), r"fidelity\.released: no ID set .* 'goe\.2c'"),
    (["himplos.1h-3"], small(), r"fidelity\.released: no ID set .* 'himplos\.1h-3' changes \(all of SVHN"),
    (["goe.2g-8"], {**small(), "experiments": small()["experiments"][:1]}, r"fidelity\.released: .*compat: \[goe\]"),
    (["goe.2g-2"], small(), r"fidelity\.released: no recipe of this configuration has a switch for 'goe\.2g-2'"),
])
def test_a_switch_that_concerns_nothing_is_refused(bugs, raw, message):
    used = {name for e in raw["experiments"] for name in e["recipes"]}
    raw["recipes"] = [r for r in raw["recipes"] if r["name"] in used and (bugs != ["goe.2g-2"]
                                                                       or r["method"] != "cross_entropy")]
    for e in raw["experiments"]:
        e["recipes"] = [name for name in e["recipes"] if any(r["name"] == name for r in raw["recipes"])]
    raw["experiments"] = [e for e in raw["experiments"] if e["recipes"]]
    with pytest.raises(OODError, match=message):
        read_plan({**raw, "fidelity": {"released": bugs}}, ROOT, {})


def test_a_switch_of_the_evaluation_is_no_recipes_own():
    raw = small()
    raw["recipes"][-1]["released"] = ["goe.2g-8"]
    with pytest.raises(OODError, match=r"recipe 'goe'\.released: 'goe\.2g-8' concerns the evaluation.*fidelity"):
        read_plan(raw, ROOT, {})


def test_the_reference_protocol_gets_the_images_like_id():
    plan = full()
    section = json.loads(evaluation.metrics_section(plan, wildcards()))
    like = {f"scood_cifar10_{name}.test": f"scood_cifar10_{name}_id.test" for name in ("tin", "lsun", "places365")}
    like = {"cifar100.test": "scood_cifar10_cifar100_id.test", **like}  # whole in the release, divided in the protocol
    assert section["id_like"] == like and section["listed"] == {"cifar100.test": "scood_cifar10_cifar100.test"}
    assert json.loads(evaluation.metrics_section(plan, wildcards(id="cifar100")))["listed"] == {
        "cifar10.test": "scood_cifar100_cifar10.test"}
    sets = [f"{name}.{split}" for name, split in plan.sets("cifar10")]
    assert {*like.values(), *section["listed"].values()} <= set(sets)
    assert not set(like.values()) & set(sum(section["groups"].values(), []))
    other = evaluation.metrics_section(read_plan(small(), ROOT, {}), wildcards(id="digits", network="resnet-small"))
    assert json.loads(other)["id_like"] == {}


# ---------------------------------------------------------------- pairs of trainings

def test_trainings_pair_up_when_only_defects_differ():
    raw = small()
    goe = next(r for r in raw["recipes"] if r["name"] == "goe")
    raw["recipes"] += [{**goe, "name": "goe-released", "released": ["goe.2g-5"]},
                       {**goe, "name": "goe-k3", "options": {"k": 3}, "released": ["goe.2g-5"]}]
    raw["experiments"][-1]["recipes"] += ["goe-released", "goe-k3"]
    pairs = released.pairs(read_plan(raw, ROOT, {}).reported("goe"))
    assert [(a.path_name, b.path_name) for a, b in pairs] == [("goe", "goe-released+2g-5")]
    compare = json.loads(reports.report_section(read_plan(raw, ROOT, {})))["papers"][-1]["compare"]
    assert compare["trainings"] == [{"id": "digits", "network": "resnet-small", "corrected": "goe",
                                     "released": "goe-released+2g-5", "defects": ["goe.2g-5"]}]


def test_only_papers_that_count_by_the_rule_show_it():
    plan = read_plan(changed(fidelity={"released": ["goe.2g-8"]}), ROOT, {})
    papers = {p["name"]: p.get("compare") for p in json.loads(reports.report_section(plan))["papers"]}
    assert papers == {"posthoc": None, "himplos": None,
                      "goe": {"trainings": [], "rules": {"goe": "goe.2g-8"}, "sets": {}}}


# ---------------------------------------------------------------- the table

GROUPS = {**reporting_data.GROUPS, "far+2g-1": ["faces", "brick", "gaussian"]}
COMPARE = {"trainings": [{"id": "digits", "network": "resnet_small", "corrected": "pretrain", "released": "oe",
                          "defects": ["goe.2g-2", "goe.2g-4"]}],
           "rules": {"goe": "goe.2g-8"}, "sets": {"+2g-1": "goe.2g-1"}}


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """Made-up runs; each has `auroc@goe`, a point below `auroc`."""
    folder = tmp_path_factory.mktemp("compared")
    config = {**reporting_data.write_paper(folder / "run"), "compare": COMPARE}
    for run in config["runs"]:
        run["groups"] = GROUPS
        with open(run["metrics"], newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        rows += [[*row[:3], "auroc@goe", repr(float(row[4]) - 0.01), *row[5:]] for row in rows if row[3] == "auroc"]
        with open(run["metrics"], "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    tables.main(["--config", json.dumps(config), "--csv", str(folder / "t.csv"), "--md", str(folder / "t.md")])
    return folder, config, results.read(folder / "t.csv")


def average(rows, recipe, score, sets, name="auroc"):
    return next(r.seeds for r in rows.itertuples() if (r.recipe, r.score, r.dataset, r.group, r.metric) == (
        recipe, score, sets, results.AVERAGE, name))


def test_each_pair_holds_both_numbers_and_their_difference(paper):
    _, _, rows = paper
    found = comparison.compared(rows, Compare.of(**COMPARE))
    assert [r.defects for r in found] == ["goe.2g-2, goe.2g-4"] * 3 + ["goe.2g-8"] * 6 + ["goe.2g-1"] * 12
    trained = next(r for r in found if r.score == "knn")
    assert (trained.label, trained.sets) == ("Cross-entropy", "all")
    pair = {p.metric: p for p in trained.pairs}
    assert pair["auroc"].corrected == average(rows, "pretrain", "knn", "all")
    assert pair["auroc"].released == average(rows, "oe", "knn", "all")
    assert pair["auroc"].difference.values == tuple((s, b - a) for (s, a), (_, b) in zip(
        pair["auroc"].corrected.values, pair["auroc"].released.values, strict=True))
    assert pair["accuracy"].text == "+0.0 ± 0.0" and pair["aurc"].released.n == 2
    counted = [r for r in found if r.defects == "goe.2g-8"]
    assert all({p.metric: p.text for p in r.pairs}["auroc"] == "−1.0 ± 0.0" for r in counted)
    assert all(p.released is None for r in counted for p in r.pairs if p.metric != "auroc")
    listed, whole = found[-12:-10]  # far, all
    pair = {p.metric: p for p in whole.pairs}
    assert pair["auroc"].released == average(rows, "pretrain", "energy", "all+2g-1") and whole.sets == "all"
    sets = ["digits89", "faces", "brick", "gaussian"]  # near as it is, far as released
    assert pair["auroc"].released.mean == pytest.approx(sum(
        r.seeds.mean for r in rows.itertuples() if (r.recipe, r.score, r.metric) == ("pretrain", "energy", "auroc")
        and (r.dataset, r.group) in {(name, "near" if name == "digits89" else "far+2g-1") for name in sets}) / 4)
    pair = {p.metric: p for p in listed.pairs}
    assert pair["auroc"].released == average(rows, "pretrain", "energy", "far+2g-1")
    assert pair["auroc"].corrected == average(rows, "pretrain", "energy", "far") and listed.sets == "far"
    assert pair["accuracy"].released is None  # other test sets change nothing there


def test_other_test_sets_stand_in_that_table_alone(paper):
    _, config, rows = paper
    plain = {**config, "runs": [{**r, "groups": reporting_data.GROUPS} for r in config["runs"]]}
    for name in ("all", "far"):
        without = results.collect(MakeTables.of(**plain).runs)
        assert average(rows, "oe", "msp", name).mean == pytest.approx(average(without, "oe", "msp", name).mean)
    [table], [other] = layout.tables(rows), layout.tables(results.collect(MakeTables.of(**plain).runs))
    assert list(table.cells.columns) == list(other.cells.columns)


def test_tables_and_page_show_it(paper):
    folder, config, rows = paper
    text = (folder / "t.md").read_text()
    assert "### Corrected and as released" in text
    line = next(r for r in text.splitlines() if r.startswith("| goe.2g-8 |") and "| KNN |" in r)
    a, b = (average(rows, "pretrain", "knn", "all", name) for name in ("auroc", "auroc@goe"))
    assert f"{100 * a.mean:.1f} ± {100 * a.std:.1f} → {100 * b.mean:.1f} ± {100 * b.std:.1f} (−1.0 ± 0.0)" in line
    entry = {"name": "goe", "title": "G-OE", "csv": str(folder / "t.csv"), "compare": COMPARE}
    page = report.render(MakeReport.of(variant="v", title="t", papers=[entry], names=config["names"]))
    assert "Corrected and as released" in page and page.count("−1.0 ± 0.0") == 6 and "far+2g-1" not in page
    del entry["compare"]
    assert "Corrected and as released" not in report.render(MakeReport.of(variant="v", title="t", papers=[entry]))


def test_seeds_that_one_side_lacks_are_in_no_difference():
    pair = comparison.Pair("auroc", Seeds(((0, 0.9), (1, None), (2, 0.8))), Seeds(((0, 0.85), (1, 0.7), (3, 0.1))))
    assert pair.difference.values == ((0, pytest.approx(-0.05)),) and pair.text == "−5.0"
    assert comparison.Pair("auroc", None, Seeds(((0, 0.5),))).text == ""
