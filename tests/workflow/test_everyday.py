"""doctor, space, reproduce and crate as a user runs them, on a finished run of seconds outside the repository."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT
from tests.everyday_data import TINY, run, write
from workflow_scripts import crate, doctor, reproduce, space
from workflow_scripts.core.files import sha256
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


# --- crate ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory) -> Path:
    """The crate of the run, a .zip."""
    path = tmp_path_factory.mktemp("crate") / "tiny.crate.zip"
    assert ended(crate.main, finished / "results/tiny", "--to", path, "--networks") == 0
    return path


@pytest.fixture
def unpacked(made, tmp_path) -> Path:
    shutil.unpack_archive(made, tmp_path / "crate")
    return tmp_path / "crate"


def test_a_crate_says_what_each_file_is(unpacked, finished):
    """By the profile Workflow Run RO-Crate 0.5; tried with roc-validator 0.13.0: 57 of 57 required checks."""
    entities = {one["@id"]: one for one in json.loads((unpacked / "ro-crate-metadata.json").read_text())["@graph"]}
    root, action = entities["./"], entities["#run"]
    main = entities[root["mainEntity"]["@id"]]
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} == set(main["@type"])
    assert entities[main["programmingLanguage"]["@id"]]["name"] == "Snakemake"
    assert main["@id"] == "code/Snakefile" and re.match(r"0\.1\.0\+git\.\w{12}", main["version"])
    assert root["license"] == main["license"] == {"@id": "https://spdx.org/licenses/MIT"}
    assert {one["@id"].split("/")[-2] for one in root["conformsTo"]} == {"process", "workflow", "workflow-ro-crate"}
    assert action["instrument"] == {"@id": "code/Snakefile"} and root["mentions"] == {"@id": "#run"}
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    described = {id for id, one in entities.items() if "File" in one["@type"]}
    assert described == files - {"ro-crate-metadata.json"}
    assert all(entities[id]["sha256"] == sha256(unpacked / id) for id in described)
    inputs = {entities[one["@id"]].get("name"): entities[one["@id"]]["sha256"] for one in action["object"]}
    manifest = json.loads((finished / "results/tiny/tables/second.manifest.json").read_text())
    raw = {entry["path"]: entry["sha256"] for entry in manifest["inputs"] if not entry["path"].startswith("results/")}
    assert raw.items() <= inputs.items() and "scikit-learn 1.9.1: digits.csv.gz" in raw
    results = {one["@id"] for one in action["result"]}
    assert {"results/tiny/report.html", "results/tiny/tables/first.tex", "results/tiny/figures/second/roc.svg",
            "results/tiny/metrics/digits/net/oe/seed0.csv", "results/tiny/models/digits/net/oe/seed0.pt"} <= results
    assert not [name for name in results if "/data/" in name or "/features/" in name]
    assert {"code/rules/training.smk", "code/workflow_scripts/stages/train_network.py", "code/config.yaml"} <= files


def test_the_configuration_of_a_crate_is_that_of_the_run(unpacked):
    config = yaml.safe_load((unpacked / "config.yaml").read_text())
    assert [one["paper"] for one in config["experiments"]] == ["first", "second"]
    assert config["variant"] == "tiny" and [one["name"] for one in config["recipes"]] == [
        one["name"] for one in TINY["recipes"]]
    assert str(ROOT) not in (unpacked / "config.yaml").read_text()


def test_reproduce_takes_a_crate(made, folder, capsys):
    assert ended(reproduce.main, made, "--check") == 0
    said = capsys.readouterr().out
    assert "first, second, variant tiny, seeds 0" in said and "all as it was" in said


@pytest.mark.slow
def test_a_crate_gives_its_numbers_again(unpacked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ended(reproduce.main, unpacked, "--exact", "--cores", "2") == 0
    said = capsys.readouterr().out
    assert "48 numbers, 48 the same" in said and "Nothing differs." in said
    assert "2 of 2 networks are the same, bit by bit." in said
    assert (tmp_path / "reproduced/tiny/results/tiny/tables/second.csv").is_file()


@pytest.mark.parametrize(("harm", "line"), [
    (lambda crate: (crate / "results/tiny/tables/first.csv").write_text("x"), "first.csv is another file (sha256"),
    (lambda crate: (crate / "config.yaml").unlink(), "config.yaml is missing; fetch the crate again"),
    (lambda crate: (crate / "ro-crate-metadata.json").unlink(), "no RO-Crate (Not a valid RO-Crate: missing"),
    (lambda crate: (crate / "ro-crate-metadata.json").write_text("{"), "no RO-Crate ("),
])
def test_a_crate_that_is_not_whole(unpacked, capsys, harm, line):
    assert ended(crate.main, "--check", unpacked) == 0
    harm(unpacked)
    for command in ([crate.main, "--check", unpacked], [reproduce.main, unpacked]):
        capsys.readouterr()
        assert ended(*command) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: {unpacked}: ") and line in said and len(said.splitlines()) == 1


def changed(results: Path, *keys: str, to: object, papers: str = "*") -> None:
    """Another value in manifests."""
    for path in (results / "tables").glob(f"{papers}.manifest.json"):
        manifest = inside = json.loads(path.read_text())
        for key in keys[:-1]:
            inside = inside[key]
        inside[keys[-1]] = to
        path.write_text(json.dumps(manifest))


LOOP = "workflow_scripts/training/loop.py"
OWN = {"mine": {"reader": "images", "options": {"files": "/a/b"}, "splits": {"test": {}}}}


@pytest.mark.parametrize(("harm", "line"), [
    (lambda results: (results / "figures/first/roc.svg").unlink(),
     "the run is not finished: results/tiny/figures/first/roc.svg and 0 other files are not there"),
    (lambda results: shutil.rmtree(results / "tables"), "no results of a run; expected a folder such as results/small"),
    (lambda results: changed(results, "code", "stages.train_network", LOOP, to="0", papers="first"),
     "workflow_scripts/training/loop.py is not the code that computed it (first.manifest.json); check out revision"),
    (lambda results: changed(results, "config", "datasets", to=OWN),
     "datasets.mine.options.files names a file of this machine (/a/b)"),
    (lambda results: changed(results, "config", "seeds", to=[1], papers="first"), "of another configuration than"),
    (lambda results: Path("c.zip").touch(), "--to: c.zip exists already"),
])
def test_a_run_that_no_crate_can_be_made_of(folder, capsys, harm, line):
    results = Path("results/tiny")
    harm(results)
    capsys.readouterr()
    before = set(folder.iterdir())
    assert ended(crate.main, results, "--to", "c.zip") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and line in said and len(said.splitlines()) == 1
    assert set(folder.iterdir()) == before


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
