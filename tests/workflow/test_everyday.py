"""doctor, space and reproduce as a user runs them, on a finished run of seconds outside the repository."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from tests.everyday_data import run, write
from workflow_scripts import doctor, reproduce, space
from workflow_scripts.planning import health
from workflow_scripts.reporting import results
from workflow_scripts.reporting.statistics import Seeds


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("everyday")
    write(folder / "config.yaml")
    run(folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the finished run, from which the test is run."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.delenv("OOD_DATA", raising=False)
    return tmp_path / "copy"


def ended(main, *words: object) -> int:
    try:
        main([str(word) for word in words])
    except SystemExit as left:
        return left.code or 0
    return 0


# --- space ------------------------------------------------------------------------------------------------------------


def test_nothing_goes_without_yes(folder, capsys):
    before = sorted(folder.rglob("*"))
    assert ended(space.main, "prune", "--configfile", "config.yaml") == 0
    assert "Nothing was deleted; --yes does it." in capsys.readouterr().out
    assert sorted(folder.rglob("*")) == before


def test_what_is_cheap_goes_and_the_page_is_still_up_to_date(folder, capsys):
    kept = [*folder.glob("results/tiny/models/**/*.pt"), *folder.glob("results/tiny/data/*"),
            *folder.glob("results/tiny/tables/*")]
    assert ended(space.main, "prune", "--yes", "--configfile", "config.yaml") == 0
    assert "features" in capsys.readouterr().out
    assert not (folder / "results/tiny/features").is_dir() or not [
        p for p in folder.glob("results/tiny/features/**/*") if p.is_file()]
    assert kept and all(path.is_file() for path in kept)
    assert "Nothing to be done" in run(folder, dry=True)
    # what needs them again makes them again, and trains nothing
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("- msp\n", "- msp\n  - max_logit\n", 1).replace(
        "scores:\n- name: msp\n", "scores:\n- name: max_logit\n- name: msp\n"))
    planned = run(folder, dry=True)
    assert "extract_features" in planned and "train_network" not in planned and "prepare_dataset" not in planned


def test_what_is_dear_unknown_or_not_yet_read_stays(folder, capsys):
    benchmarks = folder / "results/tiny/benchmarks"
    features = benchmarks / "features/digits/net"
    (features / "ce/seed0/all.tsv").unlink()  # nobody knows what it costs
    (features / "oe/seed0/all.tsv").write_text("s\th:m:s\n9000.0\t2:30:00\n")  # dear
    (folder / "results/tiny/figures/second/roc.svg").unlink()  # still to be drawn, from the scores
    assert ended(space.main, "prune", "--yes", "--configfile", "config.yaml") == 0
    for recipe in ("ce", "oe"):
        assert (folder / f"results/tiny/features/digits/net/{recipe}/seed0/digits.train.h5").is_file()
        assert (folder / f"results/tiny/scores/digits/net/{recipe}/seed0/msp.h5").is_file()


def test_du_counts_every_file_once(folder, capsys):
    (folder / "results/tiny/old.bin").write_bytes(b"x" * 1000)
    assert ended(space.main, "du", "--configfile", "config.yaml") == 0
    said = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in said.splitlines()}
    assert "1.0 kB" in lines["not of this configuration"]
    total = sum(p.stat().st_size for p in (folder / "results/tiny").rglob("*") if p.is_file())
    assert f"{total / 1e6:.1f} MB" in lines["together"]
    assert lines["train_network"].endswith("no") and lines["extract_features"].endswith("yes")


# --- reproduce --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_manifest_gives_its_numbers_again(folder, capsys, monkeypatch):
    published = folder / "published"
    published.mkdir()
    for name in ("first.csv", "first.manifest.json"):
        shutil.copy(folder / "results/tiny/tables" / name, published / name)
    monkeypatch.chdir(published)
    assert ended(reproduce.main, "first.manifest.json", "--exact", "--cores", "2") == 0
    said = capsys.readouterr().out
    assert "48 numbers, 48 the same" in said and "Nothing differs." in said
    assert "1 of 1 networks are the same, bit by bit." in said and "not as it was" not in said.lower()
    assert not (published / "results").exists()  # in a folder of its own
    table = published / "first.csv"  # and a number that was not so is found
    rows = results.read(table)
    results.write(table, rows.assign(seeds=[Seeds(((0, 0.123),)), *rows["seeds"][1:]]))
    assert ended(reproduce.main, "first.manifest.json", "--exact", "--cores", "2") == 2


def test_what_is_not_as_it_was_is_said(folder, capsys):
    path = folder / "results/tiny/tables/first.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["packages"]["numpy"] = "1.0"
    manifest["git"] = {"revision": "abc", "modified": False}
    for files in manifest["code"].values():
        if "workflow_scripts/training/loop.py" in files:
            files["workflow_scripts/training/loop.py"] = "0"
    manifest["inputs"].append({"path": "cifar10/data.bin", "sha256": "0" * 64})
    path.write_text(json.dumps(manifest))
    assert ended(reproduce.main, path, "--check") == 2
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  package numpy: 1.0 -> ") for line in lines)
    assert "  code: workflow_scripts/training/loop.py, used by stages.train_network" in lines
    assert "  raw file cifar10/data.bin: not here" in lines
    assert any(line.startswith("  git: abc -> ") for line in lines)


@pytest.mark.parametrize(("content", "line"), [
    (None, "there is no manifest"),
    ("{", "not JSON"),
    ("[]", "no manifest, or one of another version of this project: it has no config, code"),
    ('{"config": {}}', "no manifest, or one of another version of this project: it has no code"),
])
def test_what_is_no_manifest_is_told_in_one_line(tmp_path, capsys, content, line):
    path = tmp_path / "x.manifest.json"
    if content is not None:
        path.write_text(content)
    assert ended(reproduce.main, path) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and line in said and len(said.splitlines()) == 1


def test_a_manifest_of_another_version_names_the_revision(folder, capsys):
    path = folder / "results/tiny/tables/first.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["colour"] = "blue"
    manifest["git"]["revision"] = "abc123"
    path.write_text(json.dumps(manifest))
    assert ended(reproduce.main, path) == 1
    said = capsys.readouterr().err
    assert "another version of this project (revision abc123): colour: unknown key" in said
    assert len(said.splitlines()) == 1


# --- doctor -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Without asking torch, which the first test does."""
    monkeypatch.setattr(health, "software", lambda device: iter([health.Finding("asked elsewhere")]))


def test_a_machine_in_order(folder, capsys):
    assert ended(doctor.main, "--configfile", "config.yaml") == 0
    said = capsys.readouterr().out
    assert "torch 2." in said and "files are replaced at once" in said and "no lock, no half-written file" in said
    assert said.endswith("All is in order.\n") and not list(folder.glob(".doctor*"))


def test_what_a_killed_run_left(folder, capsys, quick):
    (folder / ".snakemake/locks").mkdir(exist_ok=True)
    (folder / ".snakemake/locks/0.output.lock").write_text("x")
    half = "results/tiny/models/digits/net/ce/seed0.pt"
    marker = base64.urlsafe_b64encode(half.encode()).decode()
    (folder / ".snakemake/incomplete").mkdir(exist_ok=True)
    (folder / ".snakemake/incomplete" / marker).write_text("")
    (folder / "results/tiny/data/.x.h5.123.partial").write_bytes(b"x" * 2000)
    (folder / f"{half}.resume").write_text("")
    assert ended(doctor.main, "--configfile", "config.yaml") == 1
    said = capsys.readouterr().out
    assert "-> if none runs on another machine: uv run snakemake --unlock" in said
    assert f"1 half-written files, such as {half}" in said
    assert "1 unfinished files of jobs that were killed (2.0 kB)" in said
    assert "1 trainings were stopped in the middle" in said and said.endswith("3 problems\n")
    assert ended(space.main, "prune", "--yes", "--configfile", "config.yaml") == 1  # not while a lock is there


def test_raw_data_missing_damaged_and_in_order(tmp_path, capsys, quick, monkeypatch):
    data = tmp_path / "data"
    (data / "svhn").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OOD_DATA", str(data))
    config = write(tmp_path / "c.yaml", offline=True, experiments=[
        {"paper": "p", "id": "digits", "networks": ["net"], "recipes": ["ce"], "scores": ["msp"],
         "ood": {"far": ["svhn"]}}])
    assert ended(doctor.main, "--configfile", config) == 1
    assert "missing: resources/archives/test_32x32.mat" in capsys.readouterr().out
    (data / "svhn" / "test_32x32.mat").write_bytes(b"half")
    assert ended(doctor.main, "--configfile", config) == 1
    assert "test_32x32.mat: 64,275,384 bytes expected, found 4" in capsys.readouterr().out
    monkeypatch.setenv("OOD_DATA", str(tmp_path / "nowhere"))
    assert ended(doctor.main, "--configfile", config) == 1
    assert "OOD_DATA: there is no folder" in capsys.readouterr().err


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    found, = health.disk({tmp_path: (3000, True), tmp_path / "resources": (0, False)})
    assert found.kind == "problem" and "make room for 2.0 kB" in found.mend and "3.0 kB or more" in found.text
    assert [f.kind for f in health.disk({tmp_path: (999, False)})] == ["ok"]


def test_a_clock_that_is_wrong_and_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(health.time, "time", lambda: 1000.0)
    assert [f.kind for f in health.storage(tmp_path)] == ["ok", "ok", "ok", "problem", "ok", "ok"]
    monkeypatch.setattr(Path, "write_text", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(30, "Read-only")))
    assert "cannot be written: Read-only" in list(health.storage(tmp_path))[-1].text


PROFILE = """
__use_yte__: true
__variables__: {part: gpu}
executor: slurm
slurm-status-command: STATUS
default-resources:
  slurm_partition: ?part
set-resources:
  train_network: {slurm_partition: long}
  score_sets: {slurm_partition: cpu, mem_mb: 100}
"""


@pytest.mark.parametrize(("partitions", "status", "texts"), [
    ("cpu gpu long", "squeue", []),
    ("cpu gpu", "squeue", ["partition long does not exist here; there are cpu, gpu"]),
    ("cpu gpu long", "sacct", ["sacct does not answer"]),
    (None, "squeue", ["Slurm's sbatch, squeue, scancel, sinfo not found"]),
])
def test_slurm_and_the_partitions_of_a_profile(tmp_path, monkeypatch, partitions, status, texts):
    commands = tmp_path / "bin"
    commands.mkdir()
    if partitions:
        for name, line in (("sinfo", f"printf '%s\\n' {partitions}"), ("sacct", "exit 1"), ("sbatch", ""),
                           ("squeue", ""), ("scancel", "")):
            (commands / name).write_text(f"#!/bin/sh\n{line}\n")
            (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands))
    (tmp_path / "profile.yaml").write_text(PROFILE.replace("STATUS", status))
    found = list(health.slurm(tmp_path, health.read_profile(tmp_path)))
    problems = [finding for finding in found if finding.kind == "problem"]
    assert len(problems) == len(texts)
    assert all(text in finding.text and finding.mend for text, finding in zip(texts, problems, strict=True))


@pytest.mark.parametrize(("main", "words", "line"), [
    (doctor.main, ["--profile", "nowhere"], "--profile: there is no nowhere/profile.yaml"),
    (doctor.main, ["--directory", "nowhere"], "--directory: there is no folder nowhere"),
    (doctor.main, ["--config", "only=dfx"], "only.papers: 'dfx' is not known; did you mean 'dfb'?"),
    (space.main, ["du", "--directory", "nowhere"], "there is no folder nowhere/results/small; run the workflow first"),
    (space.main, ["prune", "--stage", "train_network"], "--stage: 'train_network' is not known"),
])
def test_wrong_words_are_told_in_one_line(tmp_path, monkeypatch, capsys, main, words, line):
    monkeypatch.chdir(tmp_path)
    assert ended(main, *words) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}") and len(said.splitlines()) == 1
