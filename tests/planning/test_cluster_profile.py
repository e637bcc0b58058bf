"""The Slurm profile: what a lab edits, and how many jobs the full configurations become. For real: test_slurm.py."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import yaml
import yte

from tests.checkout import ROOT, snakemake
from workflow_scripts.planning import cluster_page
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


PARTITIONS = """
partitions:
  short: {max_runtime: 120, max_mem_mb: 64000}
  gpu: {max_runtime: 720, max_mem_mb: 128000, max_gpu: 4}
  gpu_long: {max_runtime: 2880, max_mem_mb: 128000, max_gpu: 4}
"""


def test_a_file_of_partitions_lets_slurm_s_plugin_choose(tmp_path):
    """By the plugin's own choice, with the resources that the profile gives."""
    from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file

    (tmp_path / "partitions.yaml").write_text(PARTITIONS)
    content = profile(partitions="partitions.yaml", exclude="g1,g2")
    assert content["slurm-partition-config"] == "partitions.yaml"
    assert content["slurm-exclude-failed-nodes"] == "g1,g2"
    assert "slurm_partition" not in yaml.safe_dump(content)
    plain = profile()
    assert not {"slurm-partition-config", "slurm-exclude-failed-nodes"} & set(plain)

    def chosen(rule: str, gpu: int, attempt: int) -> str:
        asked = content["default-resources"] | content["set-resources"].get(rule, {}) | {"gpu": gpu}
        resources = {key: eval(value, {"attempt": attempt, "min": min}) if key in ("runtime", "mem_mb") else value
                     for key, value in asked.items()}
        job = SimpleNamespace(name=rule, threads=1, resources=resources)
        return get_best_partition(read_partition_file(tmp_path / "partitions.yaml"), job, logging.getLogger())

    assert chosen("score_sets", 0, 1) == "short"
    assert chosen("train_network", 1, 1) == "gpu" and chosen("train_network", 1, 2) == "gpu_long"
    assert chosen("extract_features", 1, 1) == "gpu" and chosen("extract_features", 0, 1) == "short"


def test_a_labs_values_reach_every_place():
    content = profile(cpu_partition="batch", gpu_partition="accelerated", gpu_model="a100", account="vision",
                      status="sacct", jobs=7, most_minutes=600)
    default, of = content["default-resources"], content["set-resources"]
    assert (content["jobs"], content["slurm-status-command"]) == (7, "sacct")
    assert default | {"runtime": None, "mem_mb": None} == {
        "slurm_partition": "accelerated", "gpu_model": "a100", "slurm_account": "vision", "nodes": 1, "disk_mb": 1000,
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


def test_what_runs_no_network_asks_for_no_gpu():
    """But for what shares its job with networks, and what runs beside the head."""
    named = set(profile()["set-resources"])
    for text in re.split(r"(?m)^(?=rule |use rule )", RULES):
        name = re.match(r"rule (\w+):", text)
        runs = name and "shell:" in text and "localrule: True" not in text and 'grouped("features_' not in text
        if runs and not re.search(r"\bgpu=|\bon_gpu\(", text):
            assert name[1] in named, name[1]


def test_retries_are_the_profiles_and_no_cluster_rules():
    """A rule's own would be obeyed inside the job, in an allocation that was too small."""
    assert profile()["retries"] >= 2 and profile()["slurm-no-requeue"] is True
    assert set(rules("retries")) <= set(rules("localrule"))


def test_the_pages_tables_are_those_of_the_configurations():
    """Regenerated by: uv run python -m workflow_scripts.planning.cluster_page"""
    cluster_page.main(["--check"])


@pytest.mark.slow
def test_at_most_one_and_a_half_cluster_jobs_per_training():
    """Snakemake's own groups of the DAG at full size, which is the same on a host without Slurm or GPU."""
    done = snakemake(ROOT, "--dry-run", "--workflow-profile", "profiles/slurm", "--configfile", "config/paper.yaml",
                     "--forceall", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout[-3000:]
    networks = len(read_plan(yaml.safe_load((ROOT / "config/paper.yaml").read_text()), ROOT).runs)
    table = dict(re.findall(r"(?m)^(\w+) +(\d+)$", done.stdout.split("Job stats:")[1].split("\n\n")[0]))
    listed = done.stdout.split("\ntotal ")[1]
    grouped = len(re.findall(r"(?m)^\[.*\] Group job \S+ ", listed))
    count = Counter({rule: int(number) for rule, number in table.items()})
    alone = len(re.findall(r"(?m)^Job \d+: ", listed)) - sum(count[rule] for rule in rules("localrule"))
    assert alone == sum(count[rule] for rule in ("train_start", "train_network", "import_weights", "make_masks",
                                                 "cache_frozen_blocks", "select_best_recipe"))
    assert int(table["train_network"]) + int(table["import_weights"]) == networks > 300
    trainings = networks + count["train_start"]  # first epochs that networks share are one of their own
    print(f"{grouped + alone} jobs for {trainings} trainings")
    assert grouped + alone <= 1.5 * trainings


READING = """
import atexit, resource, sys
import snakemake.api, snakemake.cli

def cpu():
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])

before = cpu()
atexit.register(lambda: print("read in", cpu() - before, "s after", before, "s, torch:", "torch" in sys.modules))
snakemake.cli.main(["--list-rules"])
"""


def test_the_snakefile_is_read_fast_and_without_torch():
    """CPU time as a multiple of Snakemake's own imports, so that neither the machine nor its load counts; each job of a
    cluster reads it anew. Measured: 1.2 to 1.3 (n = 3)."""
    found = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", READING], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds, imports, torch = re.search(r"read in ([\d.]+) s after ([\d.]+) s, torch: (\w+)", done.stdout).groups()
        assert torch == "False" and "train_network" in done.stdout
        found.append(float(seconds) / float(imports))
    assert min(found) < 1.5, found
