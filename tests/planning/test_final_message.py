"""How a run ends: headline table, failed job with its log, page of what there is, Snakemake's own report."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from tests.checkout import copy, snakemake
from tests.reporting.test_report import Checker
from workflow_scripts.planning import final_message
from workflow_scripts.reporting import headline, overview, results


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkout with a run of two epochs of one paper, and what it said."""
    folder = copy(tmp_path_factory.mktemp("tiny"))
    raw = yaml.safe_load((folder / "config.yaml").read_text())
    recipe = raw["recipes"][0]
    recipe["training"]["epochs"] = 2
    experiment = {**raw["experiments"][0], "scores": ["msp", "energy"], "ood": {"far": ["faces", "gaussian"]}}
    raw.update(variant="tiny", seeds=[0], recipes=[recipe], papers=raw["papers"][:1], experiments=[experiment])
    (folder / "tiny.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    done = snakemake(folder, "--cores", "2", "--configfile", "tiny.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    return folder, done.stdout


@pytest.mark.slow
def test_the_run_ends_with_the_headline_table_and_the_page(tiny):
    folder, said = tiny
    assert len(said.splitlines()) < 60 and "Reason:" not in said, "what is said of each job is in the log"
    assert " jobs for 1 paper; to see each with its command: snakemake --printshellcmds\n" in said
    assert "\nposthoc: " in said
    assert "Reason:" in next((folder / ".snakemake" / "log").glob("*.snakemake.log")).read_text()
    end = said[said.index("Percent, mean"):].splitlines()
    assert end[1].split() == ["training", "score", "ID", "set,", "network", "AUROC", "FPR95", "(ID+)", "ACC"]
    assert end[2] == "Post-hoc scores on one network"
    assert re.fullmatch(r"  Cross-entropy  Energy  Digits 0-7, resnet-small +\d+\.\d +\d+\.\d +\d+\.\d", end[3]), end[3]
    assert end[5] == f"results page: {(folder / 'results/tiny/report.html').resolve().as_uri()}"
    again = snakemake(folder, "--cores", "1", "--configfile", "tiny.yaml").stdout
    assert "Nothing to be done" in again and "Percent, mean" not in again


@pytest.mark.slow
def test_snakemakes_own_report_has_captions_categories_and_labels(tiny):
    folder, _ = tiny
    done = snakemake(folder, "--configfile", "tiny.yaml", "--report", "own.html")
    assert done.returncode == 0, done.stdout[-2000:]
    text = (folder / "own.html").read_text()
    entries = re.findall(r'"(results/[^"]+)": \{"name": "[^"]+", "filename": "[^"]+", "labels": (\{.*?\}), '
                         r'"size": "[^"]*", "caption": "(.*?)", "mime_type"', text)
    found = {path: (json.loads(labels), caption) for path, labels, caption in entries}
    wanted = {f"results/tiny/{name}" for name in (
        "report.html", "cards.json", "overview.csv", "overview.md", "overview.tex", "tables/posthoc.csv",
        "tables/posthoc.md", "tables/posthoc.tex", "tables/posthoc.manifest.json", "published/posthoc.csv",
        "intervals/posthoc.csv",
        "figures/posthoc/roc.svg", "figures/posthoc/histograms.svg", "figures/posthoc/heatmap.svg")}
    assert found.keys() == wanted
    labels = [json.dumps(label) for label, _ in found.values()]
    assert len(set(labels)) == len(labels)  # no two look alike
    assert all(len(caption) > 20 and "Undefined" not in caption for _, caption in found.values())
    assert '"all papers"' in text and '"posthoc"' in text


@pytest.mark.slow
def test_a_failure_names_the_job_its_last_lines_and_its_log_and_leaves_a_page(tiny, tmp_path):
    folder, _ = tiny
    raw = yaml.safe_load((folder / "tiny.yaml").read_text())
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_text("no image")
    raw["datasets"] = {"broken": {
        "label": "Broken", "about": "A file that is no image.", "licence": "none", "reader": "images",
        "citation": "none", "url": "", "splits": {"test": {"files": ["images"]}}, "geometry": "squash32"}}
    raw["data_root"] = str(tmp_path)
    raw["papers"].append({"name": "other", "title": "Another paper"})
    raw["experiments"].append({**raw["experiments"][0], "paper": "other", "ood": {"far": ["broken"]}})
    (folder / "broken.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    done = snakemake(folder, "--cores", "2", "--configfile", "broken.yaml")
    assert done.returncode != 0 and "failed: " in done.stdout, done.stdout[-3000:]
    end = done.stdout[done.stdout.index("\nfailed: ") + 1:].splitlines()
    assert end[0] == "failed: prepare_dataset, which makes results/tiny/data/broken.test.h5"
    assert end[1].startswith("    error: ") and "a.png" in end[1]
    assert end[2] == "    log: results/tiny/logs/data/broken.test.log" and (folder / end[2].split(": ")[1]).is_file()
    assert "\nlog of the run: " in done.stdout
    address = re.search(r"page of what there is: file://(\S+)", done.stdout)[1]
    with open(address) as file:
        page = Checker(file.read())
    assert page.wrong == [] and "What is missing" in page.words
    assert "msp on broken: seed 0 is missing" in page.words
    assert any("missing" in cell for row in page.rows for cell in row if row[0] == "MSP")


LOG = """
Error in rule train_network:
    message: train
    jobid: 3
    output: results/x/seed0.pt, results/x/seed0.h5
    log: results/x.log (check log file(s) for error details)
    shell:
        python

Error in rule make_cards:
    jobid: 4
    output: results/cards.json

Error in rule train_network:
    message: train
    jobid: 3
    output: results/x/seed0.pt, results/x/seed0.h5
    log: results/x.log (check log file(s) for error details)

Complete log(s): x
"""


def test_failed_jobs_are_listed_once_with_the_end_of_their_logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert final_message.failures(LOG) == [
        final_message.Failure("train_network", "results/x/seed0.pt, results/x/seed0.h5", "results/x.log"),
        final_message.Failure("make_cards", "results/cards.json", "")]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.log").write_text("\n".join(f"line {i}" for i in range(50)) + "\n")
    (tmp_path / "own.log").write_text(LOG)
    lines = final_message.failure(["own.log"]).splitlines()
    assert lines[1:3] == ["failed: train_network, which makes results/x/seed0.pt and 1 more", "    line 42"]
    assert lines[8:] == ["    line 48", "    line 49", "    log: results/x.log", "failed: make_cards, which makes "
                         "results/cards.json", "    log: none", "log of the run: own.log"]
    assert final_message.failure(["not there"]).strip() == "log of the run: not there"


def test_a_job_that_ends_without_its_outputs_is_listed():
    text = ('MissingOutputException in rule draw_picture in file "rules/report.smk", line 83:\n'
            "Job 156  completed successfully, but some output files are missing. Missing files after 5 seconds.\n"
            "results/a.svg (missing locally, parent dir contents: )\nresults/a.png (missing locally, parent dir "
            "contents: )\nExecute 1 jobs...\n")
    assert final_message.failures(text) == [final_message.Failure("draw_picture", "results/a.svg, results/a.png", "")]


def test_the_headline_table_says_missing(tmp_path):
    overview.write(tmp_path / "o.csv", overview.rows(results.collect([])).assign(title=[]))
    header = (tmp_path / "o.csv").read_text().strip()
    (tmp_path / "o.csv").write_text(f"{header}\nP,i,n,CE,msp,all,yes,2,0.1,0.01,0.9,,,,,,,\n"
                                    "P,i,n,CE,msp,near,yes,2,0.1,0.01,0.9,,,,,,,\nP,i,n,CE,knn,all,no,2,,,,,,,,,,\n")
    table = headline.terminal(tmp_path / "o.csv", {"msp": "MSP"}).splitlines()
    assert table[1:] == ["P", "  CE        MSP    i, n              90.0   10.0 ± 1.0  missing"]
