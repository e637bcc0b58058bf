"""What may be wrong with a machine, a folder or an interrupted run, and what mends it."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from workflow_scripts.config import catalogue
from workflow_scripts.core import sources
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.locks import without_locks
from workflow_scripts.data.archives.checksums import Expected
from workflow_scripts.planning import state
from workflow_scripts.planning.text import size
from workflow_scripts.work.plan import Plan

SHARED = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "afs", "glusterfs", "fuse.sshfs",
          "fuse.glusterfs", "wekafs", "panfs", "orangefs"}
WRITTEN = 2**20  # bytes, to see whether a quota is used up
AT_ONCE, LATE = 0.5, 10.0
"""Seconds: a new file is listed in its folder at once, or too late to work with."""
SKEW = 2.0
"""Seconds that the clocks of a file system and of this machine may differ."""
_TORCH = """
import json, torch
gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "gpus": [
    [torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i)] for i in range(gpus)]}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a problem says what to mend."""

    text: str
    mend: str = ""
    kind: str = "ok"
    """``ok``, ``note`` (works, but should be known) or ``problem``."""

    def __str__(self) -> str:
        return f"{self.kind:8}{self.text}" + (f"\n{'':8}-> {self.mend}" if self.mend else "")


def problem(text: str, mend: str) -> Finding:
    return Finding(text, mend, "problem")


def note(text: str, mend: str = "") -> Finding:
    return Finding(text, mend, "note")


def software(device: str) -> Iterator[Finding]:
    """Python, torch and GPUs; torch is asked in a process of its own."""
    version = platform.python_version()
    yield Finding(f"Python {version}") if (3, 11) <= sys.version_info[:2] <= (3, 13) else problem(
        f"Python {version}; 3.11, 3.12 or 3.13 expected", "uv python pin 3.12, then uv sync")
    done = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield problem(f"torch cannot be imported: {last}", "uv sync")
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    yield Finding(f"torch {found['version']}, built for " + (f"CUDA {found['cuda']}" if found["cuda"] else "CPU only"))
    for name, free, total in found["gpus"]:
        yield Finding(f"GPU {name}, {size(free)} of {size(total)} free") if free > total / 10 else note(
            f"GPU {name} is full: {size(free)} of {size(total)} free", "look with nvidia-smi who uses it")
    if not found["gpus"]:
        driver = shutil.which("nvidia-smi")
        why = "a driver is installed, but torch cannot use it" if driver else "no NVIDIA driver on this machine"
        if device == "cuda":
            yield problem(f"the configuration says device: cuda, and there is no GPU ({why})",
                          "run on a machine with a GPU, or set device: auto")
        else:
            yield note(f"no GPU ({why})", "networks run on the CPU" + (
                "; compare the driver's CUDA version (nvidia-smi) with torch's" if driver else ""))


def disk(needed: dict[Path, tuple[int, bool]]) -> Iterator[Finding]:
    """Free space against what the plan will still write: folder -> (bytes, whether there is more of unknown size)."""
    disks: dict[int, list[Path]] = {}
    for folder in needed:
        disks.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    for folders in disks.values():
        free = shutil.disk_usage(_existing(folders[0])).free
        count, blank = sum(needed[f][0] for f in folders), any(needed[f][1] for f in folders)
        text = (f"disk of {_existing(folders[0])}: {size(free)} free, about {size(count)}{' or more' * blank} to be "
                "written")
        yield Finding(text) if free > count else problem(
            text, f"make room for {size(count - free)} (python -m workflow_scripts.space prune says what can go), or "
            "use a larger disk: snakemake --directory, key resources")


def storage(folder: Path) -> Iterator[Finding]:
    """Kind of file system, atomic renaming, room to write, locks, hard links, and its clock."""
    place = _existing(folder)
    kind = _file_system(place)
    if kind in SHARED:
        yield note(f"{place} is shared storage ({kind})",
                   "other machines may see files late: let the profile have latency-wait: 60 or more")
    else:
        yield Finding(f"{place} is local storage ({kind or 'kind not known'})")
    old, new = (place / f".doctor.{os.getpid()}.{name}" for name in ("old", "new"))
    try:
        before = time.time()
        old.write_text("old")
        stamp, after = old.stat().st_mtime, time.time()
        new.write_text("new")
        os.replace(new, old)
        if old.read_text() != "new" or new.exists():
            yield problem(f"{place}: a file that replaces another is not seen at once",
                          "put results on another file system")
        else:
            yield Finding(f"{place}: files are replaced at once")
        yield _listed(old)
        skew = max(before - stamp, stamp - after, 0.0)
        yield Finding("its clock is this machine's") if skew <= SKEW else problem(
            f"{place}: the file system's clock differs by {skew:.0f} s from this machine's",
            "set both by NTP: Snakemake compares the dates of large files")
        with open(new, "wb") as file:
            file.write(bytes(WRITTEN))
            os.fsync(file.fileno())
        yield from _locks(place)
        yield _links(old, new)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            yield problem(f"{place}: {size(WRITTEN)} cannot be written: {error.strerror}",
                          "make room, or choose another place: snakemake --directory, key resources")
            return
        if error.filename2:
            yield problem(f"{place}: a file cannot be renamed: {error.strerror}", "no result would be whole for "
                          "certain; put results on another file system: snakemake --directory, key resources")
            return
        yield problem(f"{place} cannot be written: {error.strerror or error}", "choose another with --directory")
    finally:
        old.unlink(missing_ok=True)
        new.unlink(missing_ok=True)


def _listed(file: Path) -> Finding:
    """How long a new file takes to appear in its folder; on shared storage another machine may wait longer."""
    begin = time.monotonic()
    while file.name not in os.listdir(file.parent):
        if time.monotonic() - begin > LATE:
            return problem(f"{file.parent}: a new file is not listed after {LATE:.0f} s",
                           "put results on another file system: snakemake --directory, key resources")
        time.sleep(0.05)
    took = time.monotonic() - begin
    if took < AT_ONCE:
        return Finding(f"{file.parent}: a new file is listed at once")
    return note(f"{file.parent}: a new file is listed after {took:.1f} s",
                f"let the profile have latency-wait: {max(60, 10 * round(took))} or more")


def _locks(place: Path) -> Iterator[Finding]:
    """Locks, of which HDF5 asks where its setting says so."""
    asked = os.environ.get("HDF5_USE_FILE_LOCKING", "FALSE").upper() not in ("FALSE", "0")
    why = without_locks(place)
    if not why:
        yield Finding(f"{place}: files can be locked")
    elif asked:
        yield problem(f"{place}: files cannot be locked ({why}), and HDF5_USE_FILE_LOCKING asks for it",
                      "set HDF5_USE_FILE_LOCKING=FALSE")
    else:
        yield note(f"{place}: files cannot be locked ({why})", "none of ours is, and a download that runs holds a file "
                   "of its own; set HDF5_USE_FILE_LOCKING=FALSE for other tools that open results")


def _links(old: Path, new: Path) -> Finding:
    """Hard links, which nothing here makes."""
    new.unlink()
    try:
        os.link(old, new)
    except OSError as error:
        return Finding(f"{old.parent}: no hard links ({error.strerror}); none is needed")
    return Finding(f"{old.parent}: hard links can be made")


def data(plan: Plan, pairs: list[tuple[str, str]], missing: list[str], thorough: bool) -> Iterator[Finding]:
    """The data root, and the raw files of these (dataset, split): there, of the right size, missing."""
    root = plan.data_root
    if root is None:
        wanted = any(catalogue.files(plan.datasets[d], s) for d, s in pairs)
        yield note("OOD_DATA is not set", "raw files are downloaded or must be brought; name a folder with OOD_DATA or "
                   "the key data_root") if wanted else Finding("no raw files are needed: all images are bundled")
    seen = set()
    archives = Path(plan.config.resources) / "archives"
    for dataset, split in pairs:
        names = plan.archives(dataset, split)
        for path in [*sources.locate(catalogue.files(plan.datasets[dataset], split), root),
                     *(archives / name for name in names if (archives / name).is_file())]:
            if path in seen:
                continue
            seen.add(path)
            yield _raw(plan, path, thorough)
    for line in missing:
        yield problem(f"missing: {line.strip()}", "bring it to that place")


def _raw(plan: Plan, path: Path, thorough: bool) -> Finding:
    source = plan.sources.get(path.name)
    if path.is_dir():
        return Finding(f"{path}: a folder of {len(os.listdir(path))} entries")
    found = path.stat().st_size
    if source is None:
        return Finding(f"{path}: {found:,} bytes, nothing to compare with")
    lock = Path(plan.config.resources) / "checksums.json"
    expected = Expected(source.name, source.size, tuple(source.checksum), lock)
    if thorough and (wrong := expected.problem(path)):
        return problem(f"{path}: {wrong}", "delete it and bring it again: it is damaged or another file")
    if source.size not in (None, found):
        return problem(f"{path}: {source.size:,} bytes expected, found {found:,}",
                       "delete it and bring it again: it is half of the file or another one")
    return Finding(f"{path}: {found:,} bytes" + (", checksum as published" if thorough and source.checksum else
                                                 ", as published" if source.size else ", size not published"))


def interrupted(folder: Path, root: str) -> Iterator[Finding]:
    """Locks, half-written files and trainings that a stopped run left."""
    locks = state.locked(folder)
    running = _running(folder) if locks else []
    if running:
        yield Finding(f"a run is in progress here (process {running[0]})")
        return
    if locks:
        yield problem(f"{folder / '.snakemake/locks'}: a lock, and no snakemake runs here on this machine",
                      "if none runs on another machine: uv run snakemake --unlock")
    half = [name for name in sorted(state.markers(folder)) if (folder / name).exists()]
    if half:
        yield problem(f"{len(half)} half-written files, such as {half[0]}",
                      "run the same command again: the profile says rerun-incomplete, so they are made again")
    files = list((folder / root).rglob("*")) if (folder / root).is_dir() else []
    if left := [path for path in files if re.fullmatch(r"\..*\.\d+\.partial", path.name)]:
        total = sum(path.stat().st_size for path in left)
        names = " ".join(str(path) for path in left[:3])
        yield problem(f"{len(left)} unfinished files of jobs that were killed ({size(total)})",
                      f"delete them: rm {names}{' ...' if len(left) > 3 else ''}")
    if going := [path for path in files if path.name.endswith(".resume")]:
        yield note(f"{len(going)} trainings were stopped in the middle, such as {going[0]}",
                   "run the same command again: they go on where they were")
    if not (locks or half or left or going):
        yield Finding("no lock, no half-written file")


def slurm(profile: Path, settings: dict[str, Any]) -> Iterator[Finding]:
    """Slurm's commands, and that the partitions a profile names exist."""
    if settings.get("executor") != "slurm":
        yield Finding(f"profile {profile} does not use Slurm")
        return
    lacking = [name for name in ("sbatch", "squeue", "scancel", "sinfo") if not shutil.which(name)]
    if lacking:
        yield problem(f"Slurm's {', '.join(lacking)} not found", "start from a login node of the cluster")
        return
    yield Finding("Slurm's commands are there")
    asked = subprocess.run(["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, check=False,
                           timeout=60)
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        yield problem(f"sinfo fails: {said}", "ask the cluster's staff: Slurm does not answer here")
        return
    there = sorted(set(asked.stdout.split()))
    for name in sorted(_resource(settings, "slurm_partition")):
        parts = [part for part in name.split(",") if part not in there]
        yield Finding(f"partition {name} exists") if not parts else problem(
            f"profile {profile}: partition {', '.join(parts)} does not exist here; there are {', '.join(there)}",
            "write one of these into the profile")
    if settings.get("slurm-status-command", "sacct") == "sacct":
        sacct = shutil.which("sacct") and subprocess.run(["sacct", "--noheader"], capture_output=True, check=False,
                                                         timeout=60).returncode == 0
        yield Finding("sacct answers") if sacct else problem(
            "sacct does not answer: Slurm keeps no accounts here, and a run would wait for ever",
            "set slurm-status-command: squeue in the profile")


def read_profile(profile: Path) -> dict[str, Any]:
    """The settings of a folder with a profile, as snakemake reads it.

    Raises:
        OODError: there is no such profile, or it cannot be read.
    """
    path = next((profile / name for name in ("profile.yaml", "config.yaml") if (profile / name).is_file()), None)
    if path is None:
        raise OODError(f"--profile: there is no {profile}/profile.yaml")
    from snakemake.profiles import ProfileConfigFileParser  # only here: it takes a second

    try:
        with open(path, encoding="utf-8") as file:
            return ProfileConfigFileParser().parse(file)
    except Exception as error:  # a template may fail in any way
        raise OODError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


def _resource(settings: dict[str, Any], name: str) -> set[str]:
    """What a profile says of a resource, for all rules and for each."""
    entries = [*settings.get("default-resources", ()), *settings.get("set-resources", ())]
    pairs = (str(entry).rpartition(":")[2].partition("=") for entry in entries)
    return {value.strip("'\"") for key, _, value in pairs if key == name and value.strip("'\"")}


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _file_system(place: Path) -> str:
    parts = [p for p in psutil.disk_partitions(all=True) if place.is_relative_to(p.mountpoint)]
    return max(parts, key=lambda p: len(p.mountpoint)).fstype if parts else ""


def _running(folder: Path) -> list[int]:
    """Processes of this machine that run snakemake in a folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words, where = process.info["cmdline"] or [], process.info["cwd"]
        there = where and Path(where) == folder.resolve() or str(folder.resolve()) in words
        if there and any("snakemake" in word for word in words) and process.info["pid"] != os.getpid():
            found.append(process.info["pid"])
    return found
