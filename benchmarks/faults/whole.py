"""Faults that hit the workflow: files cut off or lost, a full disk, the head process killed, two at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import yaml

from benchmarks.faults.scene import LIMIT, Row, Scene, wait_for
from benchmarks.faults.trainings import MODELS
from tests.lmdb_data import MEMBERS, folder
from tests.workflow.test_pack_rule import LMDB, STORES, configuration

STORE = "results/small/data/digits.test.h5"
NETWORK = "digits/resnet-small/pretrain/seed0"
CHECKPOINT = f"{MODELS}/{NETWORK}.pt"
FEATURES = f"results/small/features/{NETWORK}/digits.test.h5"
METRICS = f"results/small/metrics/{NETWORK}.csv"
TARGETS = (STORE, CHECKPOINT, FEATURES, METRICS)
FOLDERS = ("results/small/data", "results/small/models", "results/small/features")
SMALL, LARGE = "1200k", "64m"  # sizes of the small disk: too small for a training's progress, and enough


def faults(scene: Scene, wanted: set[str]) -> Iterator[Row]:
    """Rows of the kinds wanted."""
    if "files" in wanted:
        yield cut_off(scene, "truncated HDF5", STORE)
        yield cut_off(scene, "truncated checkpoint", CHECKPOINT)
        yield cut_lmdb(scene)
    if "head" in wanted:
        yield head_killed(scene)
    if "two" in wanted:
        yield two_at_once(scene)
    if "disk" in wanted:
        yield full_disk(scene)


def cut_off(scene: Scene, fault: str, path: str, targets: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> Row:
    """A file loses its second half: the next job that reads it must name it; without it, it is made again."""
    row, problems = Row(fault, Path(path).name), []
    targets = targets or TARGETS
    folders = {str(Path(target).parent) for target in targets}
    expected, files = scene.hashes(*targets), scene.names(*folders)
    file = scene.folder / path
    os.truncate(file, file.stat().st_size // 2)
    if not scene.workflow(*targets, *words).wait(LIMIT):
        problems.append("the cut file was read without a word")
    elif file.name not in scene.said():
        problems.append("the message does not name the file")
    file.unlink()
    if scene.workflow(*targets, *words).wait(LIMIT):
        problems.append("did not recover")
    row.add(problems + scene.other_than(expected) + left_over(scene, files, folders))
    return row


def cut_lmdb(scene: Scene) -> Row:
    """The same of a packed archive, in a small configuration of its own."""
    folder(scene.folder / "raw" / "x", MEMBERS)
    (scene.folder / "lmdb.yaml").write_text(yaml.safe_dump(configuration(data_root="raw")))
    targets, words = (LMDB, *STORES), ("--configfile", "lmdb.yaml")
    if scene.workflow(*targets, *words).wait(LIMIT):
        raise SystemExit(f"failed undisturbed:\n{scene.said()[-2000:]}")
    return cut_off(scene, "truncated LMDB", LMDB, targets, words)


def head_killed(scene: Scene) -> Row:
    """kill -9 for the head process alone: its training lives on, and the restarted workflow trains beside it."""
    row, problems = Row("head process killed, its job lives on, started again", "training and all behind it"), []
    expected, files = scene.hashes(CHECKPOINT, FEATURES, METRICS), scene.names(*FOLDERS)
    (scene.folder / CHECKPOINT).unlink()
    head = scene.workflow(*TARGETS)
    log = scene.folder / f"results/small/logs/models/{NETWORK}.log"
    log.unlink(missing_ok=True)
    wait_for(log.exists, head)
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    if not scene.workflow(*TARGETS).wait(LIMIT):
        problems.append("a killed head's lock was ignored")
    scene.workflow("--unlock").wait(LIMIT)
    if scene.workflow(*TARGETS).wait(LIMIT):
        problems.append("did not recover")
    while trains(scene):
        time.sleep(0.2)
    row.add(problems + scene.other_than(expected) + left_over(scene, files))
    return row


def trains(scene: Scene) -> bool:
    """Whether a training of this copy still runs."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(scene.folder) and "workflow_scripts.stages.train_network" in process.cmdline():
                return True
    return False


def two_at_once(scene: Scene) -> Row:
    """A second workflow in the same folder is refused; the first ends well."""
    row, problems = Row("two workflows at once", "one folder"), []
    expected, files = scene.hashes(CHECKPOINT, FEATURES, METRICS), scene.names(*FOLDERS)
    (scene.folder / CHECKPOINT).unlink()
    log = scene.folder / f"results/small/logs/models/{NETWORK}.log"
    log.unlink(missing_ok=True)
    first = scene.workflow(*TARGETS)
    wait_for(log.exists, first)
    if not scene.workflow(*TARGETS).wait(LIMIT):
        problems.append("the second was not refused")
    elif "locked" not in scene.said():
        problems.append("the second was not told why")
    if first.wait(LIMIT):
        problems.append("the first failed")
    row.add(problems + scene.other_than(expected) + left_over(scene, files))
    return row


def full_disk(scene: Scene) -> Row:
    """A training on a disk too small for its progress; then the disk is enlarged."""
    row, problems = Row("disk full", "training"), []
    if os.geteuid() or not shutil.which("mount"):
        row.left_out = "mounting a small disk needs root"
        return row
    disk = scene.folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "none", disk], check=False).returncode:
        row.left_out = "a small disk could not be mounted"
        return row
    try:
        command = scene.command(CHECKPOINT)
        expected = scene.hashes(CHECKPOINT)[CHECKPOINT]
        command = command.replace(f"{MODELS}/{NETWORK}", "disk/seed0")
        log = scene.folder / command.split("> ")[-1].split()[0]
        if not scene.start(command).wait(LIMIT):
            problems.append("ended well on a full disk")
        elif "no space left" not in log.read_text():
            problems.append("the message does not say that the disk is full")
        problems += [f"{path.name}: left over" for path in disk.iterdir() if path.name.endswith(".partial")]
        subprocess.run(["mount", "-o", f"remount,size={LARGE}", disk], check=True)
        scene.finish(command)
        problems += [] if scene.hashes("disk/seed0.pt")["disk/seed0.pt"] == expected else ["seed0.pt: other bits"]
        left = {path.name for path in disk.iterdir()} - {"seed0.pt", "seed0.h5"}
        row.add(problems + [f"{name}: left over" for name in sorted(left)])
    finally:
        subprocess.run(["umount", disk], check=False)
    return row


def left_over(scene: Scene, files: set[str], folders: Iterable[str] = FOLDERS) -> list[str]:
    return [f"{path}: left over" for path in sorted(scene.names(*folders) - files)]

