"""Published numbers: read, matched to the run they may be held against, compared, printed; and the tables in LaTeX."""

from __future__ import annotations

import csv
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from tests import network_data
from tests.checkout import ROOT
from workflow_scripts.config import published_numbers as printed
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import intervals, printing, published, results
from workflow_scripts.reporting.published import against
from workflow_scripts.reporting.statistics import Seeds, metric
from workflow_scripts.stages import make_tables as tables
from workflow_scripts.stages.sections.make_tables import MakeTables
from workflow_scripts.wiring import reports
from workflow_scripts.work import published as matching
from workflow_scripts.work.expand import read_plan


def raw(**changes):
    """A configuration of full size in what counts: ID set, network, epochs, OOD sets."""
    return {
        "variant": "full", "seeds": 2,
        "networks": [{"name": "r18", "model": "resnet_cifar", "options": {"blocks": [2, 2, 2, 2], "width": 64}}],
        "recipes": [{"name": "ce", "label": "CE", "method": "cross_entropy",
                     "normalise": {"mean": [0.5] * 3, "std": [0.5] * 3},
                     "training": {"epochs": 100, "batch_size": 128, "lr": 0.1, "schedule": {"name": "cosine"}}}],
        "scores": [{"name": "msp"}, {"name": "knn50", "score": "knn", "options": {"K": 50}},
                   {"name": "knn9", "score": "knn", "options": {"K": 9}}],
        "papers": [{"name": "p", "title": "A_paper & more", "headline": "knn9"}],
        "experiments": [{"paper": "p", "id": "cifar10", "networks": ["r18"], "recipes": ["ce"],
                         "scores": ["msp", "knn50", "knn9"], "ood": {"far": ["svhn", "textures"]}}], **changes}


RECIPE = {"method": "cross_entropy", "normalise": {"mean": [0.5] * 3, "std": [0.5] * 3},
          "training": {"epochs": 100, "batch_size": 128, "lr": 0.1, "schedule": {"name": "cosine"}}}
REFERENCE = {
    "networks": {"ResNet-18": {"model": "resnet_cifar", "options": {"blocks": [2, 2, 2, 2], "width": 64}}},
    "trainings": [{"name": "CE", "recipe": RECIPE, "but_for": {"half the epochs": {"training": {"epochs": 50}}}},
                  {"name": "Other", "absent": "it has no recipe"}],
    "sets": [{"name": "SVHN", "of": ["svhn"]}, {"name": "DTD", "of": ["textures"], "inferred": "which part"},
             {"name": "both", "of": ["svhn", "textures"]}, {"name": "iSUN", "of": ["isun"]},
             {"name": "Secret", "absent": "its OOD sets are not stated"}],
    "tables": [{"source": "Table 1", "verified": True, "id": "cifar10", "network": "ResNet-18",
                "score": {"module": "msp", "label": "MSP"}, "metrics": ["accuracy", "auroc", "aupr"],
                "values": {"CE": {"SVHN": [95.0, 90.0, 80.0], "DTD": [95.0, 80.0, 80.0], "mean": [95.0, 85.0, 80.0]}}}]}


@pytest.fixture
def reference(tmp_path, monkeypatch):
    """A folder of reference files; the function returned writes one."""
    monkeypatch.setattr(printed, "FOLDER", tmp_path)
    monkeypatch.setattr(printed, "ROOT", tmp_path)

    def write(**changes):
        content = {**REFERENCE, **changes}
        content["tables"] = [{**content["tables"][0], **changes.get("table", {})}]
        content.pop("table", None)
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))

    write()
    return write


def section(config):
    """The section of paper p's tables."""
    return json.loads(reports.table_section(read_plan(config, ROOT, {}), type("W", (), {"paper": "p"})))


def compare(config, folder, auroc=(0.90, 0.91), seeds=(0, 1), counts=(10_000, None)):
    """The published numbers against metrics files made up for every run of ``config``."""
    values = section(config)
    for run in values["runs"]:
        path = folder / f"{run['seed']}.csv"
        value = auroc[seeds.index(run["seed"])]
        rows = [[score, s, "far", "auroc", v, counts[0], counts[1] or complete] for score in run["scores"]
                for s, v, complete in (("svhn", value, 26_032), ("textures", value - 0.1, 5_640))]
        rows += [["", run["id"], "id", "accuracy", 0.951, counts[0], 0]]
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([results.METRICS_HEADER, *rows])
        run["metrics"] = str(path)
    return values, numbers_of(values)


def numbers_of(values):
    section = MakeTables.of(**values)
    return published.numbers(results.collect(section.runs), section.published,
                             tables.incomplete(section.train_images))


def tex(values, paired=None):
    section = MakeTables.of(**values)
    found = results.collect(section.runs, section.metrics, section.id_metrics)
    numbers = published.numbers(found, section.published)
    return printing.latex_page(section.title, tables.lay_out(section, found, numbers, paired))


def test_a_run_like_the_papers_is_compared(reference, tmp_path):
    _, rows = compare(raw(), tmp_path)
    verdicts = {(r.sets, r.metric): (round(r.difference, 6), r.tolerance, r.verdict) for r in rows.itertuples()}
    spread = 2 * 100 * Seeds(((0, 0.90), (1, 0.91))).std
    assert verdicts["SVHN", "auroc"] == (0.5, pytest.approx(spread), "yes")
    assert verdicts["mean", "auroc"] == (0.5, pytest.approx(spread), "yes")  # per seed over the paper's sets
    assert verdicts["SVHN", "accuracy"] == (0.1, 0.5, "yes")
    assert verdicts["SVHN", "aupr"][2] == "not comparable: the source does not say which AUPR"


@pytest.mark.parametrize(("auroc", "verdict"), [
    ((0.90, 0.90), "yes"), ((0.905, 0.905), "yes"), ((0.906, 0.906), "no"), ((0.894, 0.894), "no"),
    ((0.90, 0.94), "yes"),  # 2 points off, but the seeds differ by more
    ((float("nan"), float("nan")), "ours is missing"),
])
def test_the_tolerance_is_two_deviations_and_at_least_half_a_point(reference, tmp_path, auroc, verdict):
    _, rows = compare(raw(), tmp_path, auroc)
    assert next(r for r in rows.itertuples() if (r.sets, r.metric) == ("SVHN", "auroc")).verdict == verdict


@pytest.mark.parametrize(("name", "of", "published", "allowed"), [
    ("auroc", (0.9, 0.9), 90.5, 0.5), ("fpr95@goe", (0.1, 0.1), 10.0, 0.5), ("accuracy", (0.95, 0.97), 95.0, 2.8284),
    # AURC x 1000: 0.5 is more than what lies between the rows of G-OE's table (CIFAR-10, ResNet-34: 4.41, 4.69, 5.87)
    ("aurc", (0.00469, 0.00469), 4.69, 0.0938), ("aurc", (0.06, 0.06), 63.82, 1.2764), ("eaurc", (0.001,), 1.0, 0.02)])
def test_each_metric_has_a_tolerance_of_its_own(name, of, published, allowed):
    seeds = Seeds(tuple(enumerate(of)))
    assert against(seeds, published, name, True, "")["tolerance"] == pytest.approx(allowed, abs=1e-4)


def test_no_aurc_of_a_table_is_within_the_tolerance_of_another_method():
    for table in printed.read("goe").tables:
        column = table.metrics.index("aurc")
        values = sorted(numbers[column] for rows in table.values.values() for numbers in rows.values())
        gaps = [b - a for a, b in itertools.pairwise(values) if b - a > 0.5]  # others differ by less than is printed
        assert metric("aurc").tolerance(values[0]) < min(gaps)


@pytest.mark.parametrize(("config", "change", "because"), [
    ({"small": True}, {}, "small run, not comparable"),
    ({"limit": {"steps": 3}}, {}, "not comparable: limit.steps is 3"),
    ({}, {"table": {"id": "cifar100"}}, "not comparable: no run with ID set cifar100"),
    ({"networks": [{"name": "r18", "model": "resnet_cifar", "options": {"blocks": [2, 2, 2, 2], "width": 32}}]}, {},
     "not comparable: network r18: options.width is 32, published with 64"),
    ({}, {"table": {"values": {"Other": {"SVHN": [1, 2, 3]}}}}, "not comparable: it has no recipe"),
    ({}, {"trainings": [{"name": "CE", "recipe": {**RECIPE, "method": "mixup"}}]},
     "not comparable: no training by method mixup"),
    ({}, {"trainings": [{"name": "CE", "recipe": {**RECIPE, "training": {**RECIPE["training"], "epochs": 200}}}]},
     "not comparable: training ce: training.epochs is 100, published with 200"),
    ({}, {"table": {"score": {"module": "energy", "label": "E"}}}, "not comparable: another score"),
    ({}, {"table": {"score": {"module": "knn", "label": "KNN", "options": {"K": 10}}}},
     "not comparable: score knn50: options.K is 50, published with 10"),
    ({}, {"table": {"verified": False}}, "not comparable: the source is not verified"),
])
def test_any_other_run_is_not_compared(reference, tmp_path, config, change, because):
    reference(**change)
    _, rows = compare(raw(**config), tmp_path)
    row = next(r for r in rows.itertuples() if (r.sets, r.metric) == ("SVHN", "auroc"))
    assert row.verdict == because and np.isnan(row.difference)
    [shown] = published.laid_out(rows[(rows["sets"] == "SVHN") & (rows["metric"] == "auroc")]).cells.itertuples(
        index=False, name=None)
    assert shown[published.HEADS.index("Difference")].text == "–"


@pytest.mark.parametrize(("name", "because"), [
    ("Secret", "its OOD sets are not stated"), ("iSUN", "not scored here: isun")])
def test_sets_that_are_not_ours_compare_only_the_id_task(reference, tmp_path, name, because):
    reference(table={"values": {"CE": {"SVHN": [95.0, 90.0, 80.0], name: [95.0, 1.0, 1.0], "mean": [95.0, 1.0, 1.0]}}})
    _, rows = compare(raw(), tmp_path)
    verdicts = {(r.sets, r.metric): r.verdict for r in rows.itertuples()}
    assert verdicts[name, "auroc"] == verdicts["mean", "auroc"] == f"not comparable: {because}"
    assert verdicts[name, "accuracy"] == verdicts["SVHN", "auroc"] == "yes"


def test_a_column_may_be_the_mean_of_named_sets(reference, tmp_path):
    reference(table={"values": {"CE": {"both": [95.0, 85.5, 80.0]}}})
    _, rows = compare(raw(), tmp_path)
    row = next(r for r in rows.itertuples() if r.metric == "auroc")
    assert row.verdict == "yes" and (row.ours, row.difference) == pytest.approx((85.5, 0))  # (90.5 + 80.5) / 2


def test_a_declared_difference_and_an_inference_stand_beside_the_verdict(reference, tmp_path):
    config = raw()
    config["recipes"][0]["training"]["epochs"] = 50
    _, rows = compare(config, tmp_path)
    assert set(rows["but_for"]) == {"half the epochs"} and set(rows["run"]) == {"ce, msp"}
    said = {(r.sets, r.metric): r.inferred for r in rows.itertuples()}
    assert said["DTD", "auroc"] == said["mean", "auroc"] == "which part"
    assert said["SVHN", "auroc"] == said["DTD", "accuracy"] == ""  # the ID task has no OOD set
    table = published.laid_out(rows).cells
    remarks = [row[published.HEADS.index("Remarks")] for row in table.itertuples(index=False, name=None)]
    assert "comparable but for half the epochs; inferred: which part" in [cell.text for cell in remarks]
    assert "Remarks say in what a run still differs" in published.summary(rows)


def test_every_run_that_compares_has_a_row(reference, tmp_path):
    config = raw()
    one = config["recipes"][0]
    config["recipes"].append({**one, "name": "short", "training": {**one["training"], "epochs": 50}})
    config["experiments"][0]["recipes"] = ["ce", "short"]
    rows = section(config)["published"][0]["rows"]
    assert [(row["sets"], row["ours"]["recipe"], row["but_for"]) for row in rows[:2] + rows[3:4]] == [
        ("DTD", "ce", []), ("SVHN", "ce", []), ("DTD", "short", ["half the epochs"])]
    values = section(config)
    for run in values["runs"]:
        run["metrics"] = None
    assert published.summary(numbers_of(values)).startswith("9 published numbers; none is compared")


@pytest.mark.parametrize(("counts", "verdict"), [
    ((10_000, 26_032), "yes"), ((9_000, 26_032), "dataset cifar10 has 9,000 test images, complete 10,000"),
    ((10_000, 300), "dataset svhn has 300 test images, complete 26,032")])
def test_incomplete_sets_are_not_compared(reference, tmp_path, counts, verdict):
    values, _ = compare(raw(), tmp_path, counts=counts)
    row = next(r for r in numbers_of(values).itertuples() if (r.sets, r.metric) == ("SVHN", "auroc"))
    assert row.verdict in (verdict, f"not comparable: {verdict}")


def test_a_network_trained_on_a_part_is_not_compared(reference, tmp_path):
    values, _ = compare(raw(), tmp_path)
    assert values["train_images"] == {"cifar10": {"store": "results/full/data/cifar10.train.h5", "count": 50_000}}
    pixels, labels = network_data.images(20)
    store = network_data.write_store(tmp_path / "cifar10.train.h5", labels, images=pixels)
    values["train_images"]["cifar10"] = {"store": str(store), "count": 50_000}
    assert set(numbers_of(values)["because"]) == {"dataset cifar10 has 20 train images, complete 50,000"}
    assert section(raw(small=True))["train_images"] == {}


def test_a_metric_by_a_papers_rule_must_be_computed(reference, tmp_path):
    reference(table={"metrics": ["accuracy", "auroc@goe", "aupr"]})
    _, rows = compare(raw(), tmp_path)
    assert next(r.verdict for r in rows.itertuples() if r.metric == "auroc@goe") == (
        "not comparable: auroc@goe is not computed here; it is with compat: [goe]")


def test_the_job_reruns_when_a_published_number_changes(reference):
    before = section(raw())
    reference(table={"values": {"CE": {"SVHN": [95.0, 90.1, 80.0]}}})
    assert section(raw()) != before


@pytest.mark.parametrize(("change", "words"), [
    ({"table": {"network": "VGG"}}, ["p.yaml", "network", "VGG", "ResNet-18"]),
    ({"table": {"values": {"XX": {"SVHN": [1, 2, 3]}}}}, ["p.yaml", "XX", "CE"]),
    ({"table": {"values": {"CE": {"SVNH": [1, 2, 3]}}}}, ["p.yaml", "SVNH", "SVHN"]),
    ({"trainings": [{"name": "CE", "recipe": RECIPE, "where": {"id": ["cifar100"]}}]}, ["p.yaml", "CE", "0 entries"]),
    ({"trainings": [{"name": "CE", "recipe": {**RECIPE, "epochs": 3}}]}, ["p.yaml", "epochs"]),
    ({"trainings": [{"name": "CE"}]}, ["p.yaml", "CE", "recipe or absent"]),
    ({"trainings": [{"name": "CE", "recipe": {**RECIPE, "parent": "Start"}}]}, ["p.yaml", "Start"]),
    ({"trainings": [{"name": "CE", "recipe": RECIPE, "but_for": {"a rate": {"training": {"l_r": 1}}}}]},
     ["p.yaml", "a rate", "l_r"]),
    ({"trainings": [{"name": "CE", "recipe": RECIPE, "but_for": {"smooth": {"options": {"smooth": 1}}}}]},
     ["p.yaml", "smooth", "label_smoothing"]),
    ({"sets": [{"name": "SVHN"}, {"name": "DTD", "of": ["textures"]}]}, ["p.yaml", "SVHN", "of or absent"]),
    ({"table": {"score": {"module": "knn", "label": "KNN", "options": {"k": 3}}}}, ["p.yaml", "k", "K"]),
    ({"table": {"values": {"CE": {"SVHN": [1, 2]}}}}, ["p.yaml", "3 numbers expected", "found 2"]),
    ({"tabels": []}, ["p.yaml", "tabels"]),
])
def test_a_wrong_reference_file_is_named(reference, change, words):
    reference(**change)
    with pytest.raises(OODError) as error:
        printed.read("p")
    assert all(word in str(error.value) for word in words), error.value


def test_the_repositorys_numbers_are_whole():
    counts = {path.stem: sum(len(numbers) for table in printed.read(path.stem).tables for rows in table.values.values()
                             for numbers in rows.values()) for path in printed.FOLDER.glob("*.yaml")}
    assert counts == {"goe": 150, "npos": 32, "npos_clip": 20, "dfb": 2, "himplos": 14, "outlier_exposure": 9,
                      "openood": 658, "pytorch_ood": 40}
    assert all(t.source and (t.verified or paper in ("dfb", "pytorch_ood"))
               for paper in counts for t in printed.read(paper).tables)
    means = [(rows["mean"], [rows[s] for s in rows if s != "mean"]) for paper in ("npos", "npos_clip", "himplos")
             for t in printed.read(paper).tables for rows in t.values.values() if "mean" in rows]
    assert len(means) == 5
    for mean, sets in means:  # what the sources call the mean is that of the sets beside it
        assert mean == pytest.approx([sum(column) / len(sets) for column in zip(*sets, strict=True)], abs=0.02)


def test_the_default_run_compares_nothing():
    plan = read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT, {})
    rows = [row for paper in plan.papers for table in matching.published(plan, paper).get("published", [])
            for row in table["rows"]]
    assert rows and {row["because"] for row in rows} == {"small run"} and not any("ours" in row for row in rows)


def test_the_stage_writes_them_everywhere(reference, tmp_path):
    values, rows = compare(raw(), tmp_path)
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("csv", "md", "tex", "published")}
    tables.main(["--config", json.dumps(values), *(w for k, p in paths.items() for w in (f"--{k}", str(p)))])
    pd.testing.assert_frame_equal(published.read(paths["published"]), rows)
    text = paths["md"].read_text()
    assert ("| cifar10 | ResNet-18 | CE | MSP | SVHN | AUROC | 90.00 | 90.50 ± 0.71 | +0.50 | yes | ce, msp |  |"
            " Table 1 |") in text
    assert "9 published numbers, 6 of them compared, 6 within the tolerance" in text
    assert r"& 90.00 & 90.50 $\pm$ 0.71 & +0.50 & yes & ce, msp &  & Table 1 \\" in paths["tex"].read_text()
    values, rows = compare(raw(small=True), tmp_path)
    assert published.summary(rows) == "9 published numbers; none is compared (small run, not comparable)."


# ---------------------------------------------------------------- LaTeX

def structure(text):
    """Checks that braces and environments nest and that each row has the columns it declares; returns the tables."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    stripped = re.sub(r"\\[{}]", "", "\n".join(lines))
    depth = 0
    for character in stripped:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    open_ = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name
    assert not open_
    found = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    for columns, body in found:
        assert [body.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
        for row in (line for line in body.splitlines() if line.endswith(r"\\")):
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + spans == len(columns), row
        assert not re.search(r"(?<!\\)[%#_]", re.sub(r"\\cmidrule\S*", "", body))
    return found


@pytest.mark.parametrize(("text", "expected"), [
    ("a_b & 50 %", r"a\_b \& 50 \%"), ("\\x{y}", r"\textbackslash{}x\{y\}"), ("1.0 ± 0.2", r"1.0 $\pm$ 0.2"),
    ("#1 ~ ^ $", r"\#1 \textasciitilde{} \textasciicircum{} \$"), ("−0.1 ×10³", r"$-$0.1 $\times$10$^3$")])
def test_latex_escapes(text, expected):
    assert printing.escape(text) == expected


def test_latex_of_all_kinds_of_tables_is_well_formed(reference, tmp_path):
    values, _ = compare(raw(), tmp_path)
    values["names"] = {"svhn": "SVHN_100% {x}", "msp": "MSP & co"}
    values["compare"] = {"trainings": [{"id": "cifar10", "network": "r18", "corrected": "ce", "released": "ce",
                                      "defects": ["npos.B_1"]}], "rules": {}, "sets": {}}
    text = tex(values)
    found = structure(text)
    assert len(found) == 3 and r"SVHN\_100\% \{x\}" in text and r"MSP \& co" in text and r"npos.B\_1" in text
    assert text.startswith("% A_paper & more\n% \\usepackage{booktabs,graphicx}\n")


def test_latex_has_long_sentences_as_notes(reference, tmp_path):
    reference(table={"values": {"CE": {"iSUN": [95.0, 1.0, 1.0], "SVHN": [95.0, 90.0, 80.0]}}})
    text = tex(compare(raw(), tmp_path)[0])
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption{Published"))
    assert caption.endswith(
        "(1) not comparable: the source does not say which AUPR. (2) not comparable: not scored here: isun.}")
    assert (text.count("& (1) &"), text.count("& (2) &"), text.count("& yes &")) == (2, 1, 3) and structure(text)


def test_latex_says_missing_and_marks_the_best(tmp_path):
    from tests import reporting_data
    values = reporting_data.write_paper(tmp_path)
    text = tex(values, intervals.compared(MakeTables.of(**values).runs, 200))
    assert len(structure(text)) == 1 and r"\textbf{" in text and r"\resizebox{\textwidth}" in text
    values["runs"][0]["metrics"] = values["runs"][1]["metrics"] = None
    text = tex(values)
    assert "missing" in text and structure(text)
    assert "No run is listed" in tex({"paper": "t", "title": "t", "runs": []})
