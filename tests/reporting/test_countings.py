"""The papers' own rules of counting on the page, in Markdown and in LaTeX: their tables stand first."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest
import yaml

from tests import reporting_data
from tests.checkout import ROOT
from tests.reporting.test_published import structure
from workflow_scripts.core import plugins
from workflow_scripts.metrics import compat
from workflow_scripts.reporting import layout, results
from workflow_scripts.reporting.inputs import Counting
from workflow_scripts.stages import make_report as report
from workflow_scripts.stages import make_tables as tables
from workflow_scripts.stages.sections.make_report import MakeReport
from workflow_scripts.wiring import reports
from workflow_scripts.work.expand import read_plan

COUNTING = {"rule": "bg-resample", "metrics": ["fpr95_ood", "auroc"], "id_metrics": ["accuracy", "aurc@bg-resample"],
            "says": "OOD is positive, in brackets the draws."}
TITLE = "Digits 0-7, ResNet, width 16, counted as bg-resample"


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """Made-up runs; by the rule each metric is a point lower, drawn with a deviation of 0.3 points on 40 images."""
    folder = tmp_path_factory.mktemp("counted")
    config = {**reporting_data.write_paper(folder / "run"), "countings": [COUNTING]}
    for run in config["runs"]:
        with open(run["metrics"], newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        for score, dataset, group, metric, value, n_id, n_ood in rows[1:]:
            if metric in ("auroc", "fpr95_ood"):
                rows.append([score, dataset, group, f"{metric}@bg-resample", repr(float(value) - 0.01), n_id, "40"])
                rows.append([score, dataset, group, f"{metric}_std@bg-resample", "0.003", n_id, "40"])
            elif metric == "aurc":
                rows.append([score, dataset, group, "aurc@bg-resample", value, n_id, n_ood])
        with open(run["metrics"], "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    paths = {kind: folder / f"posthoc.{kind}" for kind in ("csv", "md", "tex")}
    tables.main(["--config", json.dumps(config), *(word for k, p in paths.items() for word in (f"--{k}", str(p)))])
    return config, paths, results.read(paths["csv"])


def test_the_papers_own_columns_and_conventions_come_first(paper):
    config, _, rows = paper
    own, strict = layout.tables(rows, names=config["names"], countings=[Counting.of(**COUNTING)])
    assert [own.title, strict.title] == [TITLE, "Digits 0-7, ResNet, width 16"]
    heads = [(c.group, c.title) for c in own.cells.columns]
    assert heads[2:4] == [("Digits 8-9", "FPR95 (OOD+) ↓"), ("Digits 8-9", "AUROC ↑")]
    assert heads[-2:] == [("ID task", "ACC ↑"), ("ID task", "AURC ×10³ ↓")]
    assert own.after[0] == COUNTING["says"] and "Faces (far) 40" in own.after[1]
    assert strict.after[0] == layout.STRICT and (
        "Faces (far) 200" in strict.after[1])
    assert "OOD is positive" in own.caption


def test_the_deviation_over_draws_stands_in_brackets_and_in_no_mean(paper):
    config, _, rows = paper
    own = layout.tables(rows, names=config["names"], countings=[Counting.of(**COUNTING)])[0]
    texts = {(c.group, c.title): cell.text for c, cell in own.cells.iloc[0].items()}
    value = next(r.seeds for r in rows.itertuples() if (r.recipe, r.score, r.dataset, r.metric) == (
        "pretrain", "energy", "faces", "auroc@bg-resample"))
    assert texts["Faces", "AUROC ↑"] == f"{100 * value.mean:.1f} ± {100 * value.std:.1f} [0.3]"
    assert "[" not in texts["mean of far", "AUROC ↑"] and "±" in texts["mean of far", "AUROC ↑"]
    spreads = rows[rows["metric"].str.contains("_std@")]
    assert len(spreads) and results.AVERAGE not in set(spreads["group"])  # the CSV keeps them, too


def test_page_markdown_and_latex_show_them(paper):
    config, paths, rows = paper
    cell = next(r.seeds for r in rows.itertuples() if (r.recipe, r.score, r.dataset, r.metric) == (
        "oe", "knn", "coffee", "fpr95_ood@bg-resample"))
    number = f"{100 * cell.mean:.1f}"
    text = paths["md"].read_text()
    assert text.index(f"### {TITLE}\n") < text.index("### Digits 0-7, ResNet, width 16\n")
    assert COUNTING["says"] in text and f"{number} ± {100 * cell.std:.1f} [0.3]" in text
    assert "- FPR95 (OOD+) @bg-resample: " in text and "Missing" not in text
    latex = paths["tex"].read_text()
    assert len(structure(latex)) == 2 and f"{number} $\\pm$ {100 * cell.std:.1f} [0.3]" in latex
    entry = {"name": "posthoc", "title": "Scores", "csv": str(paths["csv"]), "countings": [COUNTING]}
    page = report.render(MakeReport.of(variant="v", title="t", papers=[entry], names=config["names"]))
    assert page.index(f"<h3>{TITLE}</h3>") < page.index("<h3>Digits 0-7, ResNet, width 16</h3>")
    assert COUNTING["says"] in page and "[0.3]</span>" in page and "FPR95 (OOD+) @bg-resample" in page


def test_a_metric_that_only_some_scores_have_is_missing_of_none(paper, tmp_path):
    """F1 at a release's threshold exists for its own confidences alone."""
    config, _, _ = paper
    run = {**config["runs"][0], "metrics": str(tmp_path / "m.csv")}
    with open(config["runs"][0]["metrics"], newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    rows += [["msp", *row[1:3], "f1@goe", "0.5", *row[5:]] for row in rows if row[0] == "msp" and row[3] == "auroc"]
    with open(run["metrics"], "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    found = results.collect(tables.MakeTables.of(paper="p", title="t", runs=[run]).runs)
    assert set(found.loc[found["metric"] == "f1@goe", "score"]) == {"msp"} and not results.gaps(found)


# ---------------------------------------------------------------- which paper has which

FIRST = {"himplos": "himplos", "bgresample": "bg-resample", "goe": "goe", "npos": "npos", "dfb": "dfb"}


@pytest.mark.parametrize("file", ["config.yaml", *(f"config/{paper}.yaml" for paper in FIRST)])
def test_each_paper_shows_its_own_rule_first(file):
    plan = read_plan(yaml.safe_load((ROOT / file).read_text()), ROOT, {})
    page = {paper["name"]: paper for paper in json.loads(reports.report_section(plan))["papers"]}
    for paper in FIRST.keys() & set(plan.papers):
        section = json.loads(reports.table_section(plan, SimpleNamespace(paper=paper)))
        assert section["countings"] == page[paper]["countings"]
        first = section["countings"][0]
        assert first["rule"] == FIRST[paper] and first["says"]
        assert any(metric.startswith("aupr") for metric in first["metrics"])
    assert FIRST.keys() & set(plan.papers)


@pytest.mark.parametrize("rule", sorted(plugins.metric_rules()))
def test_a_rules_columns_are_metrics_that_it_computes(rule):
    spec = plugins.spec("metrics.rules", plugins.metric_rules()[rule])
    counted = compat.OOD_RULES[rule](list(range(100)), list(range(60)))
    assert spec.columns and set(spec.columns) <= counted.keys() and spec.says.endswith(".")
    computed = {f"{name}@{rule}" for name in compat.ID_RULES[rule]([2, 1, 0], [1, 0, 1])} if rule in compat.ID_RULES \
        else set()
    assert set(spec.id_columns) <= computed | {"accuracy"}
