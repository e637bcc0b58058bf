"""Trainings that share a GPU: how many, which, and what happens to one that does not fit."""

from __future__ import annotations

import argparse
import re
from types import SimpleNamespace

import pytest
import torch
import yte

from tests.checkout import ROOT, snakemake
from tests.everyday_data import write
from workflow_scripts.core.errors import OODError
from workflow_scripts.training import job
from workflow_scripts.wiring import snakemake_private
from workflow_scripts.wiring.training import sharing

PROFILE = (ROOT / "profiles/default/profile.yaml").read_text()


def profile(**values: int) -> dict:
    text = PROFILE
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^  {key}: +\d+", f"  {key}: {value}", text)
        assert count == 1
    return yte.process_yaml(text, require_use_yte=True)


@pytest.mark.parametrize(("values", "resources", "retries"), [
    ({}, ["gpu=1", "trainings_per_gpu=1"], None),
    ({"gpus": 2, "trainings_per_gpu": 3}, ["gpu=6", "trainings_per_gpu=3"], 1)])
def test_what_the_profile_says(values, resources, retries):
    found = profile(**values)
    assert (found["resources"], found.get("retries")) == (resources, retries)


@pytest.mark.parametrize(("gpus", "attempt", "expected"), [(1, 1, 4), (1, 2, 1), (2, 1, 1), (2, 2, 1)])
def test_a_training_is_alone_when_it_is_tried_again_and_on_several_gpus(gpus, attempt, expected):
    assert sharing(gpus, 4, attempt) == expected


@pytest.mark.parametrize(("limits", "expected"), [
    ({}, 1), ({"gpu": 2}, 1), ({"gpu": 6, "trainings_per_gpu": 3}, 3),
    ({"trainings_per_gpu": 0}, "a whole number from 1 on expected, found 0"),
    ({"gpu": 4, "trainings_per_gpu": 3}, r"found gpu=4; one GPU is --resources gpu=3 trainings_per_gpu=3"),
    ({"trainings_per_gpu": 2}, r"found gpu=\(none\)")])
def test_the_limit_is_read_and_checked(limits, expected):
    workflow = SimpleNamespace(global_resources={k: SimpleNamespace(value=v) for k, v in limits.items()})
    if isinstance(expected, int):
        assert snakemake_private.trainings_per_gpu(workflow) == expected
    else:
        with pytest.raises(OODError, match=f"^trainings_per_gpu: .*{expected}") as caught:
            snakemake_private.trainings_per_gpu(workflow)
        assert "\n" not in str(caught.value)


SHARED = f"""
include: "{ROOT}/rules/common.smk"
rule all:
    default_target: True
    input: "trained0", "trained1", "whole"
rule train:
    output: "trained{{number}}"
    resources: **on_gpu(lambda plan, wildcards: 1), tried=lambda wildcards, attempt: attempt
    shell: "echo {{resources.gpu}} {{resources.trainings}} >> said{{wildcards.number}}; "
           "test {{resources.tried}} -gt 1 && touch {{output}}"
rule whole:
    output: "whole"
    resources: gpu=GPUS
    shell: "echo {{resources.gpu}} > {{output}}"
"""


@pytest.mark.parametrize(("limits", "first", "again", "whole"), [
    (["gpu=6", "trainings_per_gpu=3"], "1 3", "3 1", "3"), (["gpu=2"], "1 1", "1 1", "1")])
def test_what_fails_in_company_is_tried_again_alone(limits, first, again, whole, tmp_path):
    """By Snakemake: a share of a GPU at the first try, then all of it, which other jobs have anyway."""
    write(tmp_path / "config.yaml", device="cuda")
    (tmp_path / "Snakefile").write_text(SHARED)
    done = snakemake(tmp_path, "--cores", "2", "--configfile", "config.yaml", "--retries", "1", "--resources", *limits,
                     PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout[-3000:]
    for number in (0, 1):
        assert (tmp_path / f"said{number}").read_text().splitlines() == [first, again]
    assert (tmp_path / "whole").read_text().strip() == whole


def test_a_training_is_told_of_its_company(tmp_path):
    write(tmp_path / "config.yaml", device="cuda", fused=False, compile="graphs")
    done = snakemake(tmp_path, "--dry-run", "--cores", "8", "--snakefile", str(ROOT / "Snakefile"), "--configfile",
                     "config.yaml", "--printshellcmds", "--resources", "gpu=6", "trainings_per_gpu=3")
    assert done.stdout.count("--device cuda --no-fused --compile graphs --gpus 1 --share 3 ") == 2


def test_a_wrong_limit_ends_the_run_with_one_line(tmp_path):
    write(tmp_path / "config.yaml")
    done = snakemake(tmp_path, "--dry-run", "--cores", "2", "--snakefile", str(ROOT / "Snakefile"), "--configfile",
                     "config.yaml", "--resources", "gpu=1", "trainings_per_gpu=2")
    assert done.returncode and "config: trainings_per_gpu: with 2 the limit of gpu is 2 for each GPU" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(("share", "message"), [
    (3, r"^trainings_per_gpu: this training does not fit into 1/3 of the GPU's memory \(CUDA out of memory\.\)"),
    (1, r"^training.batch_size: the GPU's memory is too small for this training")])
def test_a_training_that_runs_out_of_memory_says_so_in_one_line(share, message, monkeypatch):
    limits = []
    monkeypatch.setattr(job.devices, "pick", lambda *words: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    args = argparse.Namespace(gpus=1, rank=None, device="cuda", threads=1, tf32=False, meeting=None, share=share)

    def train(*given):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    with pytest.raises(OODError, match=message) as caught:
        job.run("stage", args, [], train)
    assert "\n" not in str(caught.value) and limits == ([0.3] if share == 3 else [])
