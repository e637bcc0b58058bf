"""Why something would run again: the reasons of a dry run boiled down."""

from __future__ import annotations

import json

from workflow_scripts.why import changes, explain, reasons, summary

RUN = """
Building DAG of jobs...
Job 3: train small on digits: pretrain, seed 0
Reason: Params have changed since last execution: Union of exclusive params before and now across all output: before: {0} now: {1}
[Fri Nov 20 19:21:19 2026]
Job 4: features of digits
Reason: Input files updated by another job: results/a.pt
Job 5: page
Reason: Missing output files: results/report.html
"""  # noqa: E501 (a line of Snakemake's output)


def test_a_changed_file_is_named():
    before = repr({"numpy": "2.4.6", "workflow_scripts/a.py": "1", "workflow_scripts/b.py": "2"})
    now = repr({"numpy": "2.5.0", "workflow_scripts/a.py": "1", "workflow_scripts/b.py": "3"})
    text = RUN.replace("{0}", before).replace("{1}", now)
    jobs = ["train small on digits: pretrain, seed 0", "features of digits", "page"]
    assert [job for job, _ in reasons(text)] == jobs
    assert summary(reasons(text)).splitlines() == [
        "numpy: 2.4.6 -> 2.5.0", "workflow_scripts/b.py changed", "    train small on digits: pretrain, seed 0",
        "never made (or deleted)", "    page", "and 1 jobs that follow from these"]


def test_a_changed_key_is_named_even_where_its_text_is_tricky():
    old = '{"recipe":{"lr":0.1,"note":"before: x now: y"}}'
    new = '{"recipe":{"lr":0.2,"note":"before: x now: y"}}'
    assert changes(f"{old!r} now: {new!r} ") == ["recipe.lr: 0.1 -> 0.2"]
    assert changes(f"{old!r} now: <nothing exclusive> ") == ["recipe.lr: 0.1 -> none",
                                                              "recipe.note: before: x now: y -> none"]


def test_a_job_that_follows_has_no_cause_of_its_own():
    assert explain("Input files updated by another job: x") is None


def test_nothing_to_do():
    said = reasons("Building DAG of jobs...\nNothing to be done.")
    assert summary(said) == "Nothing would run: all results are up to date."


def test_entries_of_lists_are_told_apart_by_their_names_and_long_values_are_cut():
    old = {"runs": [{"name": "a", "lr": 1}, {"name": "b", "lr": 2}], "text": "x" * 500}
    new = {"runs": [{"name": "a", "lr": 1}, {"name": "b", "lr": 3}], "text": "y" * 500}
    lines = changes(f"{json.dumps(old)!r} now: {json.dumps(new)!r} ")
    assert lines[0] == "runs[b].lr: 2 -> 3" and len(lines[1]) < 200


def test_only_the_first_of_many_keys_and_jobs_are_told():
    old, new = ({f"key{i}": value for i in range(20)} for value in (1, 2))
    lines = changes(f"{json.dumps(old)!r} now: {json.dumps(new)!r} ")
    assert len(lines) == 9 and lines[-1] == "and 12 more keys"
    text = "".join(f"Job {i}: job {i}\nReason: Missing output files: x\n" for i in range(6))
    shown = summary(reasons(text), most=2).splitlines()
    assert shown == ["never made (or deleted)", "    job 0", "    job 1", "    and 4 more"]


def test_of_raw_files_it_says_which_and_how_they_differ():
    old = {"raw": [["ood", "10 files", "1"], ["a.tar", 9000, "1"], ["x", "3 files", "1"], ["gone", 1, "1"]], "limit": 1}
    new = {"raw": [["ood", "10 files", "2"], ["a.tar", 8000, "2"], ["x", "3 files", "1"], ["new", 1, "1"]], "limit": 1}
    assert changes(f"{json.dumps(old)!r} now: {json.dumps(new)!r} ") == [
        "raw files: a.tar: 9,000 bytes -> 8,000 bytes", "raw files: gone is gone", "raw files: new is new",
        "raw files: ood: other content, 10 files as before"]
    assert changes(f"{json.dumps({**old, 'raw': None})!r} now: {json.dumps(old)!r} ")[0] == "raw files: a.tar is new"
