"""The GPU benchmarks: on a GPU what they check, and without one that they run, report and read their data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_data
from benchmarks.gpu_rows import Absent, Late, Rows, within

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = '''
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"snakemake", "lmdb", "open_clip"}:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Blocked())
'''


def command(tmp_path: Path, *arguments: str) -> dict[str, dict]:
    """Run a benchmark where Snakemake, lmdb and open_clip cannot be imported. -> its rows by name."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(BLOCKED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "blocked"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-m", *arguments, "--out", str(tmp_path)], cwd=tmp_path, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    assert done.returncode == 0, done.stdout[-4000:]
    name = arguments[0].rsplit(".", 1)[1]
    assert (tmp_path / f"{name}.md").read_text().startswith(f"# {name}")
    rows = json.loads((tmp_path / f"{name}.json").read_text())["rows"]
    return {f"{row['section']}: {row['name']}": row for row in rows}


@pytest.mark.gpu
def test_the_gpu_computes_what_the_cpu_computes(tmp_path):
    rows = command(tmp_path, "benchmarks.gpu_check", "--minutes", "4", "--only", "checks")
    assert {row["status"] for row in rows.values()} <= {"passed", "absent"}


@pytest.mark.slow
def test_the_check_runs_without_a_gpu_and_without_the_workflow(tmp_path):
    rows = command(tmp_path, "benchmarks.gpu_check", "--device", "cpu", "--small", "--threads", "1",
                   "--minutes", "20")
    absent = [name for name, row in rows.items() if row["status"] == "absent"]
    assert absent == ["scores: gl_mcm", "scores: neglabel", "architectures: clip_vit"]
    assert all("clip" in rows[name]["note"] for name in absent)
    assert all(row["status"] in ("passed", "measured") for name, row in rows.items() if name not in absent), rows
    assert len({row["section"] for row in rows.values()}) == 11


def test_each_key_that_speeds_a_training_up_has_a_row(tmp_path):
    """CUDA graphs apart, which a CPU has not."""
    from benchmarks import gpu_keys

    rows = command(tmp_path, "benchmarks.gpu_check", "--device", "cpu", "--small", "--threads", "1", "--only", "keys")
    wanted = {f"keys: {name}" for name, words in gpu_keys.KEYS if words.get("compiling") != "graphs"}
    assert set(rows) == wanted | {"keys: resident: short256, its crops alone"}
    assert all(row["status"] == "measured" and row["images/s"] > 0 for row in rows.values()), rows
    assert rows["keys: the defaults"]["times the defaults"] == 1


def made_up(folder: Path) -> None:
    """Mosaics of images whose class shows, and of noise."""
    rng = np.random.default_rng(0)
    for name in gpu_data.SETS:
        labels = np.arange(300 if name == "cifar10_train" else 60) % 10
        pixels = rng.integers(0, 120, (len(labels), 32, 32, 3), dtype=np.uint8)
        if name.startswith("cifar10_"):
            for label in range(10):
                pixels[labels == label, 3 * label:3 * label + 4] += 120
        gpu_data.write(folder, name, 0, gpu_data.Set(pixels, labels, "made up"))


@pytest.mark.slow
def test_the_training_runs_without_a_gpu_and_is_scored(tmp_path):
    made_up(tmp_path / "data")
    rows = command(tmp_path, "benchmarks.gpu_train", "--data", str(tmp_path / "data"), "--device", "cpu", "--small",
                   "--threads", "1")
    assert all(row["status"] == "measured" for row in rows.values())
    assert rows["summary: msp"]["published near"] == "88.03 ± 0.25" and rows["summary: msp"]["seeds"] == 1
    assert rows["training: seed 0"]["epochs"] == 1
    scores = [row for row in rows.values() if row["section"] == "scores, seed 0"]
    assert len(scores) >= 20 and all(0 <= row["near AUROC"] <= 100 for row in scores)


def test_a_row_that_fails_is_kept_and_the_rest_goes_on(tmp_path):
    def late() -> dict:
        with within(0.2, "waiting"):
            while True:
                pass

    def absent() -> dict:
        raise Absent("no scipy")

    rows = Rows("some", tmp_path, {"card": "none"}, 1)
    rows.run("a", "raises", lambda: 1 / 0)
    rows.run("a", "wrong", lambda: {"passed": False, "gap": 0.5})
    rows.run("a", "right", lambda: {"passed": True, "gap": 0.1})
    rows.run("b", "number", lambda: {"images/s": 12345.6})
    rows.run("b", "late", late)
    rows.run("b", "absent", absent)
    rows.run("b", "no time", lambda: {}, needs=1e6)
    found = json.loads((tmp_path / "some.json").read_text())["rows"]
    assert [row["status"] for row in found] == ["error", "failed", "passed", "measured", "left out", "absent",
                                                "left out"]
    assert found[0]["note"].startswith("ZeroDivisionError") and found[0]["traceback"]
    text = (tmp_path / "some.md").read_text()
    assert "| number | measured | 12,346 |" in text and "1 failed" in text
    with pytest.raises(Late, match="longer than 0 s"), within(0.1, "it"):
        while True:
            pass


def test_a_row_ends_when_the_time_is_up(tmp_path):
    def endless() -> dict:
        with within(60, "a part"):
            pass
        while True:  # calls of torch that take longer than was expected
            time.sleep(0.01)

    rows = Rows("some", tmp_path, {}, 0.3 / 60)
    started = time.monotonic()
    assert rows.run("a", "endless", endless, needs=0)["status"] == "left out"
    assert rows.run("a", "next", lambda: {"passed": True}, needs=1)["status"] == "left out"
    assert time.monotonic() - started < 60
    late = Rows("some", tmp_path, {}, 0)
    assert late.run("a", "whole", lambda: time.sleep(0.2) or {}, needs=-1, stop=False)["status"] == "measured"


def test_the_time_of_a_row_is_expected_from_those_before(tmp_path):
    torch = pytest.importorskip("torch")
    from benchmarks import gpu_speed

    rows = Rows("some", tmp_path, {}, 1)
    speeds = gpu_speed.Speeds(rows, torch.device("cpu"), small=False)
    first, large = gpu_speed.CASES[:2]
    assert speeds.expected(large, "bfloat16") == 8
    rows.rows.append({"section": "table", "status": "measured", "seconds": 10.0})
    assert speeds.expected(large, "bfloat16") == 15
    speeds.peaks = {"bfloat16": 700.0, "TF32": 350.0, "float32": 50.0}
    speeds.took = {large.name: [("bfloat16", 13.6), ("TF32", 15.6)], first.name: [("float32", 20.0)]}
    assert speeds.expected(large, "float32") == pytest.approx(15.6 * 7)
    assert speeds.expected(first, "TF32") == 20  # not less in a faster precision


def test_mosaics_hold_the_images_to_the_bit_and_come_first(tmp_path):
    rng = np.random.default_rng(1)
    first, second = (gpu_data.Set(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(n) % 10, "x")
                     for n in (130, 7))
    gpu_data.write(tmp_path, "svhn", 0, first)
    gpu_data.write(tmp_path, "svhn", 1, second)
    found = gpu_data.load(tmp_path, "svhn")
    assert np.array_equal(found.pixels, np.concatenate([first.pixels, second.pixels]))
    assert np.array_equal(found.labels, np.concatenate([first.labels, second.labels]))


def test_official_records_and_lists_are_read(tmp_path):
    rng = np.random.default_rng(2)
    folder = tmp_path / "cifar10"
    folder.mkdir()
    table = rng.integers(0, 256, (30, 3073), dtype=np.uint8)
    table[:, 0] = np.arange(30) % 10
    table.tofile(folder / "data_batch_1.bin")
    found = gpu_data.load(tmp_path, "cifar10_train")
    assert found.what == "1 official batches" and found.labels.tolist() == (np.arange(30) % 10).tolist()
    assert np.array_equal(found.pixels[4, :, :, 1].ravel(), table[4, 1025:2049])
    table[:, :-1].tofile(folder / "data_batch_1.bin")
    with pytest.raises(ValueError, match="not a whole number of records of 3,073 bytes"):
        gpu_data.load(tmp_path, "cifar10_train")
    with pytest.raises(FileNotFoundError, match="no mosaic either"):
        gpu_data.load(tmp_path, "cifar100")


def test_the_fast_step_ends_with_the_weights_of_the_loop():
    torch = pytest.importorskip("torch")
    from benchmarks import gpu_checks

    found = gpu_checks.fast_step(torch.device("cpu"), small=True)
    assert found["passed"] and found["difference"] < 1e-6


@pytest.mark.parametrize(("command", "words"), [("gpu_check", ()), ("gpu_train", ("--data", "nowhere"))])
def test_a_machine_without_a_gpu_is_told_how_to_try(command, words, tmp_path):
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{command}", *words, "--out", tmp_path], cwd=ROOT,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--device cpu --small" in done.stderr
