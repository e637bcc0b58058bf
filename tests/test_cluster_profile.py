"""The Slurm profile: what a lab edits, and how many jobs the full configurations become. For real: test_slurm.py."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml
import yte

from tests.checkout import ROOT, snakemake
from workflow_scripts import plan
from workflow_scripts.work.expand import read_plan

PROFILE = ROOT / "profiles/slurm/profile.yaml"
RULES = "\n".join(path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")])


def profile(**values) -> dict:
    """The profile as snakemake reads it, with a lab's values."""
    text = PROFILE.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^  {key}: +\S+", f"  {key}: {value}", text)
        assert count == 1, key
    return yte.process_yaml(text, require_use_yte=True)


def rules(directive: str) -> dict[str, str]:
    """Rule -> value, for the rules that have a directive."""
    blocks = re.split(r"(?m)^ *rule ?(\w*):\n", RULES)
    found = {}
    for name, block in zip(blocks[1::2], blocks[2::2], strict=True):
        if value := re.search(rf"(?m)^ +{directive}:\s+(\S+)$", block):
            found[name] = value[1]
    return found


def test_every_name_in_the_profile_is_one_of_the_rules():
    content = profile()
    named = set(re.findall(r"(?m)^rule (\w+):", RULES))
    assert set(content["set-resources"]) <= named
    groups = dict(line.split("=") for line in content["group-components"])
    assert {f'grouped("{name}")' for name in groups} == set(rules("group").values())


def test_a_labs_values_reach_every_place():
    content = profile(cpu_partition="batch", gpu_partition="accelerated", gpu_model="a100", account="vision",
                      status="sacct", jobs=7, most_minutes=600)
    default, of = content["default-resources"], content["set-resources"]
    assert (content["jobs"], content["slurm-status-command"]) == (7, "sacct")
    assert default | {"runtime": None, "mem_mb": None} == {
        "slurm_partition": "accelerated", "gpu_model": "a100", "slurm_account": "vision", "nodes": 1,
        "runtime": None, "mem_mb": None}
    assert of["score_sets"]["slurm_partition"] == "batch" and of["score_sets"]["gpu_model"] == "''"
    assert "slurm_partition" not in of["train_network"]
    plain = profile()
    assert not {"gpu_model", "slurm_account"} & set(plain["default-resources"])
    for attempt, expected in ((1, (600, 32000)), (2, (600, 64000)), (9, (600, 128000))):
        found = [eval(of["train_network"][key], {"attempt": attempt}) for key in ("runtime", "mem_mb")]
        assert tuple(found) == expected


def test_what_both_profiles_must_share_they_share():
    """Else a run that moves from one machine to a cluster would compare its inputs otherwise."""
    here = yaml.safe_load((ROOT / "profiles/default/profile.yaml").read_text())
    for key in ("max-checksum-file-size", "rerun-incomplete", "keep-going", "show-failed-logs"):
        assert profile()[key] == here[key]


def test_retries_are_the_profiles_and_no_cluster_rules():
    """A rule's own would be obeyed inside the job, in an allocation that was too small."""
    assert profile()["retries"] >= 2 and profile()["slurm-no-requeue"] is True
    assert set(rules("retries")) <= set(rules("localrule"))


def test_the_pages_table_of_trainings_is_that_of_the_configurations():
    rows = ["| configuration | networks | trained here | their epochs | scores |", "|---|--:|--:|--:|--:|"]
    for name in ("himplos", "bgresample", "goe", "npos", "dfb", "paper"):
        runs = read_plan(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()), ROOT).runs.values()
        trained = [run.recipe.training for run in runs if run.recipe.checkpoint is None]
        epochs = sum(training.epochs or 0 for training in trained)
        scores = sum(len(run.scores) for run in runs)
        rows.append(f"| `config/{name}.yaml` | {len(runs)} | {len(trained)} "
                    f"| {f'{epochs:,}' if epochs else 'in steps'} | {scores:,} |")
    page = (ROOT / "docs/cluster.md").read_text()
    assert page.split("<!-- trainings: begin -->\n")[1].split("<!-- trainings: end -->")[0] == "\n".join(rows) + "\n"


def test_the_pages_estimates_are_those_of_the_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OOD_DATA", raising=False)
    plan.main(["--quick", "--configfile", str(ROOT / "config/paper.yaml"), "--directory", str(tmp_path)])
    rows = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()[2:11])
    page = (ROOT / "docs/cluster.md").read_text()
    assert page.split("<!-- costs: begin -->\n")[1].split("<!-- costs: end -->")[0] == f"```\n{rows}\n```\n"


@pytest.mark.slow
def test_at_most_one_and_a_half_cluster_jobs_per_trained_network():
    """Snakemake's own groups of the DAG at full size, which is the same on a host without Slurm or GPU."""
    done = snakemake(ROOT, "--dry-run", "--workflow-profile", "profiles/slurm", "--configfile", "config/paper.yaml",
                     "--forceall", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout[-3000:]
    networks = len(read_plan(yaml.safe_load((ROOT / "config/paper.yaml").read_text()), ROOT).runs)
    table = dict(re.findall(r"(?m)^(\w+) +(\d+)$", done.stdout.split("Job stats:")[1].split("\n\n")[0]))
    listed = done.stdout.split("\ntotal ")[1]
    grouped = len(re.findall(r"(?m)^\[.*\] Group job \S+ ", listed))
    alone = len(re.findall(r"(?m)^Job \d+: ", listed)) - sum(int(table[rule]) for rule in rules("localrule"))
    assert alone == sum(int(table.get(rule, 0)) for rule in ("train_network", "import_weights", "make_masks",
                                                             "cache_trunk", "choose_recipe"))
    assert int(table["train_network"]) + int(table["import_weights"]) == networks > 300
    print(f"{grouped + alone} jobs for {networks} networks")
    assert grouped + alone <= 1.5 * networks


READING = """
import atexit, resource, sys
import snakemake.api, snakemake.cli

def cpu():
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])

before = cpu()
atexit.register(lambda: print("read in", cpu() - before, "s, torch:", "torch" in sys.modules))
snakemake.cli.main(["--list-rules"])
"""


def test_the_snakefile_is_read_in_under_a_second_and_without_torch():
    """CPU seconds beyond Snakemake's own imports; each job of a cluster reads it anew."""
    found = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", READING], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds, torch = re.search(r"read in ([\d.]+) s, torch: (\w+)", done.stdout).groups()
        assert torch == "False" and "train_network" in done.stdout
        found.append(float(seconds))
    assert min(found) < 1, found
