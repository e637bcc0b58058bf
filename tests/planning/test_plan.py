"""The plan before a run: its jobs are Snakemake's, its costs are counted, its estimates say what they are."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT, would_run
from tests.everyday_data import TINY, write
from workflow_scripts import plan as command
from workflow_scripts.planning import dag, networks, setting
from workflow_scripts.planning.count import count, lacking
from workflow_scripts.planning.dag import Jobs
from workflow_scripts.planning.estimate import Estimator
from workflow_scripts.planning.measured import Measured
from workflow_scripts.planning.text import hours, size
from workflow_scripts.wiring import paths
from workflow_scripts.work.expand import read_plan

COSTS = networks.load()


def read(raw: dict, environment: dict[str, str] | None = None):
    return read_plan(raw, ROOT, environment or {})


def jobs_of(configfile: Path) -> Jobs:
    return dag.read(setting.read(configfile), setting.words(configfile))


def estimator(raw: dict, folder: Path, machine: str = "gpu") -> tuple[Estimator, Jobs]:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    jobs = jobs_of(folder / "config.yaml")
    return Estimator(jobs.plan, COSTS, Measured(folder, paths.root(jobs.plan)), machine), jobs


@pytest.mark.parametrize("name", ["config.yaml", "config/cifar.yaml", "config/npos.yaml"])
def test_its_jobs_are_those_of_snakemake(tmp_path, monkeypatch, name):
    monkeypatch.delenv("OOD_DATA", raising=False)
    counted = Counter(job.rule for job in jobs_of(ROOT / name).page())
    assert counted == would_run(tmp_path, "all", "--snakefile", str(ROOT / "Snakefile"), "--configfile",
                                str(ROOT / name))


def test_the_answer_is_kept_until_the_configuration_changes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(dag, "_ask", lambda plan, words, compare: asked.append(words) or {
        "jobs": [], "due": [], "reasons": []})
    for seeds in ([0], [0], [0, 1], [0]):
        estimator({**TINY, "seeds": seeds}, tmp_path)
    assert len(asked) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # that cannot be written
    estimator(TINY, tmp_path)
    assert len(asked) == 3


def test_what_a_paper_needs_is_a_part_of_the_page(tmp_path):
    _, jobs = estimator(TINY, tmp_path)
    page, first = jobs.page(), jobs.paper("first")
    assert {*first} < {*page}
    assert Counter(job.rule for job in first)["train_network"] == 1
    assert not any("pool" in name for job in first for name in job.outputs)
    order = [name for job in page for name in job.outputs]
    assert all(order.index(name) < order.index(job.outputs[0]) for job in page for name in job.inputs if name in order)


def test_files_before_a_training_are_known():
    before = jobs_of(ROOT / "config.yaml").upstream_of_training
    kinds = {Path(name).parts[2] for name in before}
    assert kinds == {"data", "models", "masks", "selection", "starts"}


@pytest.mark.parametrize("row", COSTS.networks, ids=lambda row: f"{row.model}-{row.side}-{row.parameters}")
def test_the_table_of_costs_is_what_networks_cost(row):
    found = count(row.model, row.options, row.side)
    assert found == {key: value for key, value in row.model_dump(exclude={"model", "options", "side"}).items()
                     if value is not None}


@pytest.mark.parametrize("name", ["config.yaml", "config/cifar.yaml", "config/paper.yaml"])
def test_every_network_of_the_configurations_is_in_the_table(name):
    assert lacking([ROOT / name]) == [], "uv run python -m workflow_scripts.planning.count --write"


@pytest.mark.parametrize("machine", ["cpu", "gpu", "a100", "h100", "h200"])
def test_every_job_of_all_papers_that_runs_a_network_has_its_hours(machine):
    plan = setting.read(ROOT / "config" / "paper.yaml")
    guess = Estimator(plan, COSTS, Measured(Path("nowhere"), paths.root(plan)), machine)
    jobs = [job for job in jobs_of(ROOT / "config" / "paper.yaml").page() if job.on_gpu]
    assert len(jobs) > 900 and all(guess.seconds(job)[0] > 0 for job in jobs)


def test_images_and_steps_of_trainings(tmp_path):
    def sizes(**changes):
        guess, jobs = estimator({**TINY, **changes}, tmp_path)
        return {job.run.path_name: guess.training(job.run) for job in jobs.page() if job.rule == "train_network"}

    small, whole, cut = sizes(), sizes(limit={}), sizes(limit={"steps": 2})
    assert (small["ce"].steps, small["ce"].images) == (6, 96)  # 48 images, batches of 16, two epochs
    assert small["oe"].images == 96 + 6 * 16  # and 16 outliers a step
    assert (whole["ce"].steps, whole["ce"].images) == (126, 2000)
    assert (cut["ce"].steps, cut["ce"].images) == (2, 32) and cut["ce"].epochs == pytest.approx(2 * 2 / 126)


def test_time_is_measured_where_it_was_else_of_other_seeds_else_assumed(tmp_path):
    raw = {**TINY, "seeds": [0, 1], "networks": [{**TINY["networks"][0], "options": {"blocks": [1, 1, 1, 1],
                                                                                      "width": 16}}]}
    place = tmp_path / "results/tiny/benchmarks/models/digits/net/ce"
    place.mkdir(parents=True)
    (place / "seed0.tsv").write_text("s\th:m:s\n40.0\t0:00:40\n")
    (place / "seed3.tsv").write_text("s\th:m:s\n20.0\t0:00:20\n")
    (tmp_path / "results/tiny/benchmarks/half.tsv").write_text("s\n")
    guess, jobs = estimator(raw, tmp_path)
    found = {(job.run.path_name, job.run.seed): guess.seconds(job) for job in jobs.page() if job.trains}
    assert found["ce", 0] == (40.0, "measured") and found["ce", 1] == (30.0, "other seeds")
    machine, row = COSTS.machines["gpu"], COSTS.find(jobs.plan, next(iter(jobs.plan.runs.values())))
    expected = machine.start + max(6 * machine.step, 192 * 3 * row.gflops / machine.assumed["float32"])
    assert found["oe", 0] == (pytest.approx(expected), "assumed")


def test_a_network_nobody_counted_is_said_not_guessed(tmp_path):
    guess, jobs = estimator(TINY, tmp_path)
    assert {guess.seconds(job) for job in jobs.page() if job.on_gpu} == {(None, "unknown")}
    assert guess.uncounted == {"net"}


def test_sizes_and_times_are_written_for_people():
    assert [size(n) for n in (0, 999, 1500, 2.5e6, 147897477120, None)] == ["0 B", "999 B", "1.5 kB", "2.5 MB",
                                                                          "148 GB", "?"]
    assert [hours(s) for s in (3, 119, 120, 7200, 3.6e6, None)] == ["3 s", "119 s", "2.0 min", "2.0 h", "1,000 h", "?"]


def run(capsys, *words: str) -> str:
    command.main([str(word) for word in words])
    return capsys.readouterr().out


def test_it_says_what_to_download_and_what_to_bring(capsys, monkeypatch):
    monkeypatch.delenv("OOD_DATA", raising=False)
    said = run(capsys, "--quick", "--configfile", ROOT / "config/goe.yaml")
    assert "cifar-10-binary.tar.gz   170,052,171" in said
    assert "To bring by hand: 1\n  resources/archives/tiny_images.bin (243,615,796,224 bytes)" in said
    assert "Assumed: 10000 GFLOP/s sustained" in said and "scood_cifar10_svhn.test" in said
    line = next(line for line in said.splitlines() if line.startswith("goe"))
    assert line.split()[1:4] == ["150", "30,000", "3,512,688,000"]  # 2 x 3 x 5 x 5 networks, 200 epochs each
    faster = run(capsys, "--quick", "--gflops", "100000", "--configfile", ROOT / "config/goe.yaml")
    assert "Assumed: 100000 GFLOP/s" in faster


def test_targets_are_listed_and_planned(capsys, tmp_path):
    config = write(tmp_path / "c.yaml")
    assert "second_roc  results/tiny/figures/second/roc.svg" in run(capsys, "--targets", "--configfile", config)
    said = run(capsys, "first", "--quick", "--configfile", config, "--directory", tmp_path)
    assert said.startswith("Plan of 'tiny': 14 jobs, of which 14 would run.")


def test_it_needs_neither_torch_nor_snakemake():
    code = ("import sys; from workflow_scripts import plan; plan.main(['--quick']); "
            "print(sorted({'torch', 'snakemake'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("words", "line"), [
    (["--configfile", "nowhere.yaml"], "--configfile: there is no file nowhere.yaml"),
    (["--config", "only=dfx"], "only.papers: 'dfx' is not known; did you mean 'dfb'?"),
    (["--config", "seeds"], "--config: KEY=VALUE expected, found 'seeds'"),
    (["--directory", "nowhere"], "--directory: there is no folder nowhere"),
    (["dfx"], "target: 'dfx' is not known; did you mean 'dfb'?"),
    (["--gflops", "0"], "--gflops: a number above 0 expected, found 0"),
    (["--costs", "nowhere.yaml"], "nowhere.yaml: the table of costs is not there"),
])
def test_wrong_words_are_told_in_one_line(capsys, words, line):
    with pytest.raises(SystemExit) as left:
        command.main(["--quick", *words])
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.startswith(f"error: {line}") and len(said.splitlines()) == 1
