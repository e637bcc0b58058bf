"""Tables: means over seeds, what is bold, what is missing, the tidy CSV and the Markdown."""

from __future__ import annotations

import csv
import json
import math
import statistics
import subprocess
import sys

import pytest

from tests import reporting_data
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import intervals, layout, published, results
from workflow_scripts.reporting.inputs import Run
from workflow_scripts.reporting.statistics import METRICS, Metric, Seeds, average, best, noise, show
from workflow_scripts.stages import make_tables as tables
from workflow_scripts.stages.sections.make_tables import MakeTables

NAN = math.nan


def seeds(*values):
    return Seeds(tuple(enumerate(values)))


def write_metrics(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([results.METRICS_HEADER, *rows])
    return str(path)


def run(path, seed=0, recipe="pretrain", scores=("energy",), groups=None):
    return {"id": "digits", "network": "net", "recipe": recipe, "label": recipe.upper(), "seed": seed,
            "scores": list(scores), "groups": groups or {"near": ["a"], "far": ["b", "c"]}, "metrics": path}


def collect(*runs, **metrics):
    return results.collect([Run.of(**values) for values in runs], **metrics)


def markdown(config):
    section = MakeTables.of(**config)
    found = results.collect(section.runs)
    return tables.markdown(section, found, published.numbers(found, section.published))


def metrics_rows(a, b, c, accuracy=0.9):
    sets = (("a", "near", a), ("b", "far", b), ("c", "far", c))
    return [*(["energy", s, g, "auroc", v, 10, 20] for s, g, v in sets),
            ["energy", "digits", "id", "accuracy", accuracy, 10, 0]]


# ---------------------------------------------------------------- over seeds

@pytest.mark.parametrize("values", [(0.5, 0.7), (0.91, 0.93, 0.98), (0.1, 0.1, 0.1, 0.4)])
def test_mean_and_std_are_the_sample_ones(values):
    assert seeds(*values).mean == pytest.approx(statistics.mean(values))
    assert seeds(*values).std == pytest.approx(statistics.stdev(values))  # ddof = 1


@pytest.mark.parametrize(("values", "mean", "std", "n", "gaps"), [
    ((0.5,), 0.5, None, 1, []),
    ((0.5, NAN), 0.5, None, 1, ["seed 1 is NaN"]),
    ((None, 0.25, 0.75), 0.5, math.sqrt(0.125), 2, ["seed 0 is missing"]),
    ((NAN, None), None, None, 0, ["seed 0 is NaN", "seed 1 is missing"]),
    ((math.inf,), None, None, 0, ["seed 0 is infinite"]),
    ((), None, None, 0, []),
])
def test_seeds_without_a_number_are_left_out_and_named(values, mean, std, n, gaps):
    s = seeds(*values)
    assert (s.mean, s.n, s.gaps) == (mean, n, gaps)
    assert s.std == (None if std is None else pytest.approx(std))


def test_seeds_survive_their_text():
    s = Seeds(((0, 0.1 + 0.2), (7, None), (8, NAN)))
    again = Seeds.parse(s.text())
    assert s.text() == "0=0.30000000000000004;7=missing;8=nan"
    assert again.values[:2] == s.values[:2] and math.isnan(again.values[2][1])
    assert Seeds.parse("") == Seeds(())


def test_an_average_is_per_seed_and_only_over_complete_sets():
    whole = average([seeds(0.2, 0.4), seeds(0.6, 1.0)])
    assert [v for _, v in whole.values] == pytest.approx([0.4, 0.7])
    assert average([seeds(0.2, None), seeds(0.6, 1.0)]).gaps == ["seed 1 is missing"]
    assert average([seeds(0.2, NAN), seeds(0.6, 1.0)]).gaps == ["seed 1 is NaN"]


# ---------------------------------------------------------------- what is bold

@pytest.mark.parametrize(("column", "higher", "expected"), [
    ([seeds(0.90, 0.91, 0.90), seeds(0.95, 0.961, 0.952)], True, {1}),  # 5.1 points apart with a deviation of 0.1
    ([seeds(0.90, 0.91, 0.90), seeds(0.95, 0.961, 0.952)], False, {0}),
    ([seeds(0.80, 0.90, 0.85), seeds(0.81, 0.911, 0.861)], True, {1}),  # seeds differ more than the two, but alike
    ([seeds(0.90, 0.91), seeds(0.94, 0.96)], True, set()),  # two seeds tell little: p = 0.07
    ([seeds(0.90, 0.91, 0.92), seeds(0.91, 0.90, 0.93)], True, set()),  # the order changes
    ([seeds(0.90, 0.90), seeds(0.9005, 0.9005)], True, set()),  # twice the same difference: no spread to judge it by
    ([seeds(0.90, 0.91, 0.90), seeds(0.95, 0.961, 0.952), seeds(0.951, 0.960, 0.9525)], True, set()),  # close second
    ([seeds(0.90), seeds(0.95)], True, {1}),  # one seed: the caption says so
    ([seeds(0.95), seeds(0.9504), seeds(0.90)], True, {0, 1}),  # one seed, a tie in print
    ([seeds(0.95), seeds(0.95)], True, set()),  # all tie
    ([seeds(0.95), None], True, set()),  # nothing to compete with
    ([seeds(NAN), seeds(0.2), seeds(0.1)], True, {1}),  # NaN never wins
    ([seeds(0.90, 0.91), seeds(0.95, 0.96)], None, set()),  # a metric without direction
])
def test_best(column, higher, expected):
    assert best(column, Metric("M", higher, 100, "")) == expected


def test_a_tie_is_measured_in_print():
    column = [seeds(0.0020), seeds(0.0016)]  # AURC x 1000: 2.0 and 1.6
    assert best(column, METRICS["aurc"]) == {1} and best(column, METRICS["ece"]) == set()


def test_noise_is_twice_the_larger_deviation_and_unknown_for_one_seed():
    assert noise(seeds(0.1, 0.2), seeds(0.1, 0.4), 0.001) == pytest.approx(2 * math.sqrt(0.045))
    assert noise(seeds(0.1), seeds(0.1, 0.4), 0.001) is None


@pytest.mark.parametrize(("values", "metric", "text"), [
    (seeds(0.971, 0.973), "auroc", "97.2 ± 0.1"),
    (seeds(0.971), "auroc", "97.1"),  # one seed: no spread
    (seeds(0.971, NAN), "auroc", "97.1 (1 of 2 seeds)"),
    (seeds(NAN, None), "auroc", "NaN"),
    (seeds(None), "auroc", "missing"),
    (None, "auroc", "missing"),
    (seeds(0.0), "auroc", "0.0"),  # a real nought stays one
    (seeds(0.0021), "aurc", "2.1"),  # printed times 1000
    (seeds(0.5), "a_new_metric", "50.0"),
    (seeds(0.0021), "aurc@goe", "2.1"),
])
def test_show(values, metric, text):
    assert show(values, metric) == text


# ---------------------------------------------------------------- from metrics files to the tidy table

def test_collect_averages_and_counts(tmp_path):
    files = [write_metrics(tmp_path / f"{i}.csv", metrics_rows(0.5 + i / 10, 0.6, 0.9)) for i in range(2)]
    rows = collect(*(run(f, i) for i, f in enumerate(files)))
    found = {(r.dataset, r.group, r.metric): r for r in rows.itertuples()}
    assert found["far", "average", "auroc"].seeds.mean == pytest.approx(0.75)
    assert found["all", "average", "auroc"].seeds.mean == pytest.approx((0.55 + 0.6 + 0.9) / 3)
    assert found["near", "average", "auroc"].seeds.std == pytest.approx(0.1 / math.sqrt(2))
    assert (found["a", "near", "auroc"].n_id, found["a", "near", "auroc"].n_ood) == (10, 20)
    assert found["digits", "id", "accuracy"].seeds.n == 2
    # FPR95 was asked for and is in no file: it is there, as missing
    assert found["a", "near", "fpr95"].seeds.gaps == ["seed 0 is missing", "seed 1 is missing"]


def test_tidy_csv_round_trip_and_empty_cells(tmp_path):
    files = [write_metrics(tmp_path / "0.csv", metrics_rows(0.5, "nan", 0.9)), str(tmp_path / "not there.csv")]
    rows = collect(*(run(f, i) for i, f in enumerate(files)), metrics=["auroc"])
    results.write(tmp_path / "t.csv", rows)
    with open(tmp_path / "t.csv", encoding="utf-8") as file:
        lines = {line["dataset"]: line for line in csv.DictReader(file) if line["metric"] == "auroc"}
    shown = {name: [lines[name][key] for key in ("mean", "std", "n", "values")] for name in "ab"}
    assert shown == {"a": ["0.5", "", "1", "0=0.5;1=missing"], "b": ["", "", "0", "0=nan;1=missing"]}
    assert lines["all"]["mean"] == ""  # an average over fewer sets would be another quantity
    again = results.read(tmp_path / "t.csv")
    assert [repr(r) for r in again.itertuples()] == [repr(r) for r in rows.itertuples()]


def test_gaps_name_what_is_missing(tmp_path):
    file = write_metrics(tmp_path / "0.csv", metrics_rows(0.5, "nan", 0.9))
    gaps = results.gaps(collect(run(file), run(None, 1), metrics=["auroc"]))
    assert "digits / net / PRETRAIN, energy on b: seed 0 is NaN (auroc)" in gaps
    assert "digits / net / PRETRAIN: nothing for seed 1" in gaps and len(gaps) == 2
    half = write_metrics(tmp_path / "1.csv", [r for r in metrics_rows(0.5, 0.6, 0.9) if r[1] != "b"])
    more = results.gaps(collect(run(file), run(half, 1), metrics=["fpr95"]))
    assert more == ["digits / net / PRETRAIN, energy on a, b, c: seed 0 is missing (fpr95)",  # sets that lack the same
                    "digits / net / PRETRAIN, energy on a, c: seed 1 is missing (fpr95)",
                    "digits / net / PRETRAIN, energy on b: seed 1 is missing (fpr95, auroc)",
                    "digits / net / PRETRAIN, energy on b: seed 0 is NaN (auroc)"]


@pytest.mark.parametrize(("accuracy", "count"), [(1.0, 0), (0.9, 1)])
def test_metrics_of_errors_are_no_gap_where_there_is_no_error(tmp_path, accuracy, count):
    rows = [*metrics_rows(0.5, 0.6, 0.9, accuracy), ["energy", "digits", "id", "aupr_error", "nan", 10, 0]]
    file = write_metrics(tmp_path / "0.csv", rows)
    assert len(results.gaps(collect(run(file), metrics=["auroc"]))) == count


@pytest.mark.parametrize(("break_it", "words"), [
    (lambda rows: [["x"], *rows[1:]], ["expected the columns", "found ['x']"]),
    (lambda rows: [*rows[:1], ["energy", "a", "near", "auroc", "high", 1, 1]], ["line 2", "'high'"]),
])
def test_a_broken_metrics_file_is_named(tmp_path, break_it, words):
    path = tmp_path / "metrics.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(break_it([results.METRICS_HEADER, *metrics_rows(0.1, 0.2, 0.3)]))
    with pytest.raises(OODError) as error:
        collect(run(str(path)))
    assert all(word in str(error.value) for word in [str(path), *words])


def test_seeds_on_other_test_images_and_a_seed_twice_are_refused(tmp_path):
    first = write_metrics(tmp_path / "0.csv", metrics_rows(0.1, 0.2, 0.3))
    other = write_metrics(tmp_path / "1.csv", [[*row[:5], 99, row[6]] for row in metrics_rows(0.1, 0.2, 0.3)])
    with pytest.raises(OODError, match="same test images for every seed"):
        collect(run(first), run(other, 1))
    with pytest.raises(OODError, match="each seed once, found seed 0"):
        collect(run(first), run(first))


@pytest.mark.parametrize(("config", "words"), [
    ({"paper": "p", "title": "t"}, r"make_tables.runs: required but missing; expected paper, .*, found paper, title"),
    ({"paper": "p", "title": "t", "runs": [{k: v for k, v in run(None).items() if k != "seed"}]},
     r"make_tables.runs\[0\].seed: required but missing"),
    ({"paper": "p", "title": "t", "runs": [{**run(None), "seed": "x"}]}, r"make_tables.runs\[0\].seed: .*found 'x'"),
    ({"paper": "p", "titel": "t", "runs": []}, "make_tables.titel: unknown key 'titel'; did you mean 'title'?"),
])
def test_config_errors_name_the_key(config, words):
    with pytest.raises(OODError, match=f"section {words}"):
        MakeTables.of(**config)


# ---------------------------------------------------------------- layout and Markdown

def test_layout_orders_columns_and_leaves_out_averages_over_one_set(tmp_path):
    file = write_metrics(tmp_path / "0.csv", metrics_rows(0.5, 0.6, 0.9))
    [table] = layout.tables(collect(run(file)))
    assert list(dict.fromkeys((c.group, c.tag) for c in table.cells.columns[2:])) == [
        ("a", "near"), ("b", "far"), ("c", "far"), ("mean of far", ""), ("mean of all", ""), ("ID task", "")]
    assert "Seeds (1): 0." in table.after[0] and "One seed" in table.after[1]


def test_a_set_that_lacks_images_of_its_list_says_so(tmp_path):
    [table] = layout.tables(collect(run(write_metrics(tmp_path / "0.csv", metrics_rows(0.5, 0.6, 0.9)))),
                            listed={"a": 23, "b": 20, "digits": 10})
    assert "digits (ID) 10; a (near) 20 of the 23 of its list, b (far) 20, c (far) 20." in table.after[0]


def test_accuracy_competes_between_recipes_not_scores(tmp_path):
    files = {}
    for recipe, accuracy in (("pretrain", 0.9), ("oe", 0.8)):
        rows = metrics_rows(0.5, 0.6, 0.9, accuracy)
        rows += [["msp", *row[1:]] for row in rows]
        files[recipe] = write_metrics(tmp_path / f"{recipe}.csv", rows)
    config = {"runs": [run(f, recipe=recipe, scores=("energy", "msp")) for recipe, f in files.items()]}
    [table] = layout.tables(collect(*config["runs"]))
    assert [cell.best for cell in table.cells.iloc[:, -1]] == [True, True, False, False]


def test_accuracy_under_an_empty_score_serves_all_scores(tmp_path):
    rows = [["" if row[2] == "id" else row[0], *row[1:]] for row in metrics_rows(0.5, 0.6, 0.9)]
    [table] = layout.tables(collect(run(write_metrics(tmp_path / "0.csv", rows))))
    assert table.cells.iloc[0, -1].text == "90.0"


def test_stage_writes_csv_and_markdown(tmp_path):
    config = reporting_data.write_paper(tmp_path)
    intervals.compared(MakeTables.of(**config).runs, 200).to_csv(tmp_path / "i.csv", index=False)
    tables.main(["--config", json.dumps(config), "--csv", str(tmp_path / "t.csv"), "--md", str(tmp_path / "t.md"),
                 "--intervals", str(tmp_path / "i.csv")])
    rows = results.read(tmp_path / "t.csv")
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    cell = next(r for r in rows.itertuples()
                if (r.recipe, r.score, r.dataset, r.metric) == ("pretrain", "energy", "brick", "auroc"))
    assert cell.seeds.mean < 0.5 and f"{100 * cell.seeds.mean:.1f} ± {100 * cell.seeds.std:.1f}" in text
    assert "### Digits 0-7, ResNet, width 16" in text and "Digits 8-9<br>FPR95 (ID+) ↓ / AUROC ↑" in text
    assert "Seeds (2): 0, 1." in text and "Faces (far) 200" in text and "ID is positive" in text
    assert "### Missing" not in text and "### Digits 0-7, ResNet, width 16: how far the best leads" in text
    bold = [line for line in text.splitlines() if "**" in line]
    assert bold and all("Outlier exposure" in line for line in bold)


def test_markdown_of_one_seed_and_of_nothing(tmp_path):
    config = reporting_data.write_paper(tmp_path, seeds=(0,), recipes=("pretrain",))
    text = markdown(config)
    assert "One seed" in text and "±" not in text.split("###")[1]
    assert "nothing to show" in markdown({"paper": "e", "title": "Empty", "runs": []})


def test_a_run_that_is_missing_is_said_and_never_nought(tmp_path):
    config = reporting_data.write_paper(tmp_path)
    config["runs"][1]["metrics"] = None
    config["runs"][2]["metrics"] = config["runs"][3]["metrics"] = str(tmp_path / "not made")
    text = markdown(config)
    exposed = [line for line in text.splitlines() if line.startswith("| Outlier exposure")]
    assert len(exposed) == 3 and all(set(line.split("|")[3].split()) == {"missing", "/"} for line in exposed)
    assert "(1 of 2 seeds)" in text and text.split("### Missing")[1].split("\n- ")[1:] == [
        "digits / resnet_small / Cross-entropy: nothing for seed 1",
        "digits / resnet_small / Outlier exposure: nothing for seeds 0, 1\n"]


@pytest.mark.parametrize(("modules", "heavy"), [
    ("stages.make_tables, workflow_scripts.stages.make_report", {"torch", "matplotlib", "sklearn", "scipy"}),
    ("wiring.targets, workflow_scripts.wiring.training, workflow_scripts.wiring.evaluation, "
     "workflow_scripts.wiring.reports, workflow_scripts.planning.final_message",  # the Snakefile
     {"torch", "matplotlib", "sklearn", "scipy", "pandas"}),
])
def test_nothing_heavy_is_imported(modules, heavy):
    code = f"import sys, workflow_scripts.{modules}; print(*{heavy!r} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
