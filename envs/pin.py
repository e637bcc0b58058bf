"""Pin every dependency: envs/direct.txt, envs/dev.txt -> pyproject.toml (between its marks) and envs/ood.yaml.

    uv run python envs/pin.py             write; pins already there are kept where the direct ones allow it
    uv run python envs/pin.py --upgrade   write the newest release of everything that direct.txt and dev.txt do not name
    uv run python envs/pin.py --check     write nothing; exit 1 and name each difference from what would be written

One universal resolution serves Python 3.11 to 3.13 on Linux, macOS and Windows, with one version of a package for all
of them where there is one. ``ood.yaml`` is that resolution for one of these: Linux on x86-64 with ``CONDA_PYTHON``.
Pins are compared by what they mean; text that means the same stays, so that another uv, which may write a marker in
another way, changes nothing.
Which index answers is the user's own uv setting; no address is written. Exit 2: it could not be resolved.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENVS = Path(__file__).resolve().parent
PYPROJECT, CONDA = ENVS.parent / "pyproject.toml", ENVS / "ood.yaml"

PYTHONS = ("3.11", "3.12", "3.13")  # what `requires-python` in pyproject.toml admits
CONDA_PYTHON = "3.12"
MACHINES = {"linux": ("x86_64", "aarch64"), "darwin": ("arm64", "x86_64"), "win32": ("AMD64", "ARM64")}
BEGIN, END = "# pins of {name}: written by envs/pin.py from envs/{name}.txt", "# end of pins"
CONDA_HEAD = """\
# The pins of pyproject.toml for Python {python} on Linux (x86-64), for `snakemake --sdm conda` and `conda env create`.
# Written by envs/pin.py; edit envs/direct.txt instead.
name: ood
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python ={python}
  - pip
  - pip:
"""
UNREACHABLE = ("Failed to fetch", "error sending request", "dns error", "Could not connect", "network was disabled")


class PinError(Exception):
    """The pins cannot be resolved or written; the text says why and what to do."""


class Unreachable(PinError):
    """No package index answered."""


def environment(python: str, platform: str, machine: str, patch: int = 0) -> dict[str, str]:
    """The marker variables of CPython ``python`` (such as ``"3.12"``) on ``sys_platform`` and ``platform_machine``."""
    systems = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
    full = f"{python}.{patch}"
    return {
        "python_version": python, "python_full_version": full, "implementation_version": full,
        "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": "",
        "sys_platform": platform, "platform_system": systems[platform], "platform_machine": machine,
        "os_name": "nt" if platform == "win32" else "posix", "platform_release": "", "platform_version": "",
    }


ENVIRONMENTS = [  # the first and a late patch release, for markers such as python_full_version < '3.11.4'
    environment(python, system, machine, patch)
    for python in PYTHONS for system, machines in MACHINES.items() for machine in machines for patch in (0, 99)
]


def compile_requirements(requirements: Iterable[str], *options: str, keep: Iterable[str] = ()) -> list[str]:
    """``uv pip compile`` of ``requirements``; one row per package and marker, as uv writes them.

    What uv says of a yanked release goes to standard error.

    Args:
        requirements: requirement lines.
        options: further options of ``uv pip compile``.
        keep: pins that are kept where nothing forbids it.

    Raises:
        Unreachable: no index answers. PinError: uv is missing, or there is no resolution (its message).
    """
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise PinError("uv is not on PATH; install it (see README.md) or run `uv run python envs/pin.py`")
    # Outside the checkout, so that uv reads the user's settings and not [tool.uv] of this project.
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "requirements.in"), Path(folder, "requirements.txt")
        source.write_text("\n".join(requirements) + "\n")
        output.write_text("\n".join(keep) + "\n")  # uv prefers the versions in the file it is about to replace
        command = [uv, "pip", "compile", source.name, "--output-file", output.name, "--python", sys.executable]
        command += ["--no-header", "--no-annotate", "--no-generate-hashes", *options]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if run.returncode:
            unreachable = any(sign.lower() in run.stderr.lower() for sign in UNREACHABLE)
            raise (Unreachable if unreachable else PinError)(f"uv could not resolve:\n{run.stderr.strip()}")
        sys.stderr.writelines(line for line in run.stderr.splitlines(keepends=True) if "is yanked" in line)
        return requirement_lines(output.read_text())


def requirement_lines(text: str) -> list[str]:
    """The requirements in the text of a requirements file, without comments and options."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def reduce_markers(rows: Iterable[str]) -> list[str]:
    """Rows without those no supported environment needs; a marker that is true in all of them goes too."""
    kept = []
    for row in rows:
        marker = Requirement(row).marker
        needed = [marker is None or marker.evaluate(where) for where in ENVIRONMENTS]
        if any(needed):
            kept.append(row.partition(" ;")[0] if all(needed) else row)
    return kept


def meaning(rows: Iterable[str]) -> dict[tuple, tuple[bool, ...]]:
    """What rows ask for, however it is written: (package, extras, version) -> in which of ``ENVIRONMENTS``."""
    found: dict[tuple, tuple[bool, ...]] = {}
    for requirement in map(Requirement, rows):
        marker = requirement.marker
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras), requirement.specifier)
        before = found.get(key, (False,) * len(ENVIRONMENTS))
        found[key] = tuple(b or marker is None or marker.evaluate(e)
                           for b, e in zip(before, ENVIRONMENTS, strict=True))
    return {key: where for key, where in found.items() if any(where)}


def keep_text(rows: list[str], committed: list[str]) -> list[str]:
    """``rows``, with the rows of ``committed`` in place of those of the same package that mean the same."""
    if meaning(rows) == meaning(committed):
        return committed
    new, old = by_package(rows), by_package(committed)
    return [row for name, own in new.items()
            for row in (old[name] if meaning(own) == meaning(old.get(name, [])) else own)]


def by_package(rows: Iterable[str]) -> dict[str, list[str]]:
    """Canonical name -> its rows, in their order."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(canonicalize_name(Requirement(row).name), []).append(row)
    return found


def pins_for(rows: Iterable[str], python: str, platform: str = "linux", machine: str = "x86_64") -> list[str]:
    """``name==version`` of the rows whose marker holds there, in their order."""
    where = environment(python, platform, machine)
    pins = [(Requirement(row), row.partition(" ;")[0]) for row in rows]
    return [pin for requirement, pin in pins if requirement.marker is None or requirement.marker.evaluate(where)]


def present() -> tuple[list[str], list[str]]:
    """Requirements in pyproject.toml: (run time, dev only)."""
    project = tomllib.loads(PYPROJECT.read_text())
    return project["project"]["dependencies"], project["dependency-groups"]["dev"]


def resolve(upgrade: bool = False) -> tuple[list[str], list[str]]:
    """Every pin with its marker: (run time, dev only); present pins are kept where possible unless ``upgrade``.

    A row that means what is committed is the committed one.
    """
    direct, dev = (requirement_lines((ENVS / name).read_text()) for name in ("direct.txt", "dev.txt"))
    committed = present()
    universal = ("--universal", "--python-version", PYTHONS[0], "--fork-strategy", "fewest")
    keep = [] if upgrade else sum(committed, [])
    both = reduce_markers(compile_requirements(direct + dev, *universal, keep=keep))
    main = reduce_markers(compile_requirements(direct, *universal, keep=both))
    known = meaning(main).items()
    only_dev = [row for row in both if not meaning([row]).items() <= known]
    return keep_text(main, committed[0]), keep_text(only_dev, committed[1])


def pyproject_text(text: str, main: list[str], dev: list[str]) -> str:
    """``text`` of pyproject.toml with the rows between its marks replaced.

    Raises:
        PinError: a mark is missing.
    """
    for name, rows in (("direct", main), ("dev", dev)):
        begin = BEGIN.format(name=name)
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(END)
        if not (found and ended):
            raise PinError(f"{PYPROJECT.name}: expected the pins between '{begin}' and '{END}'; restore these comments")
        lines = "".join(f'  "{row}",\n' for row in rows)
        text = f"{before}{begin}\n{lines}  {END}{after}"
    return text


def conda_text(main: list[str]) -> str:
    """The text of envs/ood.yaml."""
    pins = pins_for(main, CONDA_PYTHON)
    return CONDA_HEAD.format(python=CONDA_PYTHON) + "".join(f"      - {pin}\n" for pin in pins)


def differences(wanted: dict[Path, str]) -> list[str]:
    """Lines that differ between each file and its wanted text, with the file's name."""
    found = []
    for path, text in wanted.items():
        now = path.read_text().splitlines() if path.exists() else []
        changed = (line for line in difflib.ndiff(now, text.splitlines()) if line[0] in "+-")
        found += [f"{path.name}: {line}" for line in changed]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="write nothing; exit 1 and name what would change")
    mode.add_argument("--upgrade", action="store_true", help="do not keep the present pins of transitive dependencies")
    chosen = parser.parse_args(arguments)
    try:
        run_time, dev = resolve(chosen.upgrade)
        wanted = {PYPROJECT: pyproject_text(PYPROJECT.read_text(), run_time, dev), CONDA: conda_text(run_time)}
    except PinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    changes = differences(wanted)
    print("\n".join(changes) or f"{len(run_time)} + {len(dev)} pins are as resolved", file=sys.stderr)
    if chosen.check:
        if changes:
            print("error: the pins are not what envs/*.txt give; run `uv run python envs/pin.py`", file=sys.stderr)
        return int(bool(changes))
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
