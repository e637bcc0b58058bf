"""Every command that README.md and docs/ show, word for word, in a checkout where the default run has finished.

A shell runs them with a ``uv`` of this file in front, which runs what stands behind ``uv run`` with this Python:
Snakemake dry (``-n``), and nothing that would be computed for minutes or deleted.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.checkout import HANGS, ROOT
from tests.scores.test_foreign import made
from workflow_scripts.core import commands

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    "docs/own.md": "tests/workflow/test_own.py runs them all, not dry",
    "docs/tutorial.md": "tests/workflow/test_tutorial.py runs them in their order, not dry",
    "docs/deployment.md": "tests/workflow/test_deployment.py deploys with them, and installs nothing",
    "uv run pytest": "runs the tests themselves",
    "docker build": "builds an image, which needs Docker and downloads",
    "apptainer build": "builds an image, which needs Apptainer and that of Docker",
    "--sdm apptainer": "Snakemake looks for Apptainer in a dry run too",
    "cp -r results/small /tmp/before": "writes outside the checkout; the line below it is tried on the run itself",
    "source .venv/bin/activate": "changes the reader's shell",
    "register-python-argcomplete": "changes the reader's shell; tests/core/test_commands.py asks for completions",
}
"""Part of a command, or a page -> why it is not run here."""
WORDS = {"/folder/of/the/archives": "{archives}", "/your/archives": "{archives}", "/tmp/before": "results/small",
         "features.npz": "{archives}/features.npz"}
"""What a reader is to replace."""
ENDS_IN_DRY = {"workflow_scripts.reproduce": ["--check"], "benchmarks.faults": ["--help"]}
"""Modules that compute for long -> what keeps them from it."""
LEFT_OUT = {"--yes": "deletes", "--watch": "does not end"}
STATUS = {"workflow_scripts.doctor": (0, 1), "workflow_scripts.reproduce": (0, 2)}
"""Modules that say by their exit status what they found."""
UV = """#!{python}
import subprocess, sys
words = sys.argv[2:]
if words[0] == "ood":
    words = ["python", "-m", "workflow_scripts" + "".join("." + w.replace("-", "_") for w in words[1:2]), *words[2:]]
if words[0] == "snakemake":
    words = ["-m", *words, "-n"]
else:
    words = [word for word in words[1:] if word not in {left_out!r}] + {dry!r}.get(words[2], [])
status = subprocess.call([sys.executable, *words])
sys.exit(0 if status in {status!r}.get(words[1], (0,)) else status)
"""


class Command(NamedTuple):
    page: str
    text: str


def fenced() -> list[Command]:
    """Commands of the blocks marked as shell, one for each line that does not go on."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            lines = re.sub(r" *\\\n *", " ", block).splitlines()
            found += [Command(page.relative_to(ROOT).as_posix(), re.sub(r" +# .*", "", line).strip()) for line in lines]
    return [command for command in found if command.text]


def inline() -> list[Command]:
    """Commands within sentences."""
    return [Command(page.relative_to(ROOT).as_posix(), " ".join(text.split())) for page in PAGES for text in re.findall(
        r"`((?:[A-Z_]+=\S+ )*uv run [^`]+)`", page.read_text(encoding="utf-8"))]


def not_run(command: Command) -> str:
    return next((why for part, why in ELSEWHERE.items() if part == command.page or part in command.text), "")


COMMANDS = list(dict.fromkeys([*fenced(), *(c for c in inline() if "benchmarks" not in c.text)]))
RUN = [command for command in COMMANDS if not not_run(command)]


def snakemakes() -> list[list[str]]:
    """The words behind ``snakemake`` of all commands."""
    found = []
    for command in COMMANDS:
        for part in re.split(r"&&|\|", command.text):
            words = shlex.split(part)
            if "snakemake" in words:
                found.append(words[words.index("snakemake") + 1:])
    return found


def test_commands_are_found_and_none_is_left_out_without_need():
    assert len(COMMANDS) > 50 and len(RUN) > 40
    for part in ELSEWHERE:
        assert any(part == command.page or part in command.text for command in COMMANDS), part


@pytest.mark.parametrize("words", snakemakes(), ids=" ".join)
def test_no_option_takes_a_target_for_its_own(words):
    from snakemake.cli import parse_args

    _, args = parse_args(words)
    rules = {name for path in (ROOT / "rules").glob("*.smk")
             for name in re.findall(r"^rule (\w+)", path.read_text(), re.MULTILINE)}
    assert all(str(path).endswith(".yaml") for path in args.configfile or ()), args.configfile
    assert set(args.until or ()) | set(args.omit_from or ()) <= rules
    assert all("=" in str(entry) for entry in args.config or ()), args.config
    first = words and not words[0].startswith("-") and words[0]
    assert not first or first in args.targets


def test_every_command_of_ood_is_there():
    named = {name for page in PAGES for name in re.findall(r"\buv run ood ([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert {"results", "score"} <= named <= {*commands.listed()}


MODULES = sorted({name for page in PAGES
                  for name in re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_there(module):
    assert importlib.util.find_spec(module) is not None


@pytest.fixture(scope="module")
def shell(tmp_path_factory) -> tuple[Path, Path]:
    """A folder with ``uv`` and ``pip`` for the path, and one for raw data."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "bin").mkdir()
    (folder / "archives").mkdir()
    np.savez(folder / "archives" / "features.npz", **made())
    for name, text in {"uv": UV.format(python=sys.executable, left_out=list(LEFT_OUT), dry=ENDS_IN_DRY, status=STATUS),
                       "pip": '#!/bin/sh\ntest "$*" = "install uv"\n'}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return folder / "bin", folder / "archives"


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text)
def test_it_runs(default_run, shell, command):
    if not shutil.which("bash"):
        pytest.skip("no bash to run it with")
    binaries, archives = shell
    text = command.text
    for old, new in WORDS.items():
        text = text.replace(old, new.format(archives=archives))
    known = {key: value for key, value in os.environ.items() if key != "OOD_DATA"}
    done = subprocess.run(["bash", "-c", f"set -o pipefail\n{text}"], cwd=default_run, text=True, timeout=HANGS,
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**known, "PATH": f"{binaries}:{known['PATH']}"})
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout and "Traceback" not in done.stdout
