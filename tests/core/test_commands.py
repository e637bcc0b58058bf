"""`ood`: one command over what a person types, listed by the code; quick help, completion, the nearest word."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from importlib import metadata

import pytest

from tests.checkout import ROOT
from workflow_scripts.core import commands

FLAT = sorted(path.stem for path in (ROOT / "workflow_scripts").glob("*.py") if not path.stem.startswith("_"))


def ood(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "workflow_scripts", *words], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, **environment}, check=False)


def test_each_flat_module_is_a_command_with_what_it_does():
    found = commands.listed()
    assert list(found) == [commands.command(name) for name in FLAT] and "partial-page" in found
    assert all(10 < len(said) <= 120 and said[-1] in ".?" for said in found.values())
    shown = ood("--help").stdout
    assert all(f"  {name} " in shown and said in shown for name, said in found.items())
    assert ood().stdout == shown


def test_each_has_a_parser_that_needs_no_torch():
    code = """
import sys
from workflow_scripts.core import commands
for name in commands.listed():
    module = commands.load(name)
    module.parser()
    assert callable(module.main) and not {"torch", "snakemake"} & set(sys.modules), name
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_is_installed():
    found, = metadata.entry_points(group="console_scripts", name=commands.PROGRAM)
    assert found.load().__module__ == "workflow_scripts.__main__"


def test_help_takes_less_than_half_a_second_of_cpu():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ood("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_a_command_says_how_it_was_called_and_gets_its_words():
    assert ood("why", "--help").stdout.startswith("usage: ood why [-h]\n\nWhat would run again, ")
    done = ood("progress", "--configfile", "nowhere.yaml")
    assert done.returncode == 1 and done.stderr == "error: --configfile: there is no file nowhere.yaml\n"
    alone = subprocess.run([sys.executable, "-m", "workflow_scripts.why", "--help"], cwd=ROOT, text=True,
                           capture_output=True, check=True)
    assert alone.stdout.startswith("usage: python -m workflow_scripts.why [-h]")


def test_an_unknown_command_names_the_nearest():
    done = ood("progess")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ood: 'progess' is not known; did you mean 'progress'? Allowed: compare, ")


@pytest.mark.parametrize(("line", "completions"), [
    ("ood pl", {"plan "}), ("ood p", {"partial-page", "plan", "progress", "publish-list"}),
    ("ood why --h", {"--help "}), ("ood space pr", {"prune "}),
    ("ood plan --prec", {"--precision "}), ("ood plan --precision b", {"bfloat16 "}), ("ood why --co", set())])
def test_a_shell_completes_commands_options_and_choices(line, completions, tmp_path):
    answer = tmp_path / "answer"
    done = ood(_ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)), COMP_TYPE="9", IFS="\013",
               _ARGCOMPLETE_IFS="\013", _ARGCOMPLETE_STDOUT_FILENAME=str(answer), _ARGCOMPLETE_SUPPRESS_SPACE="0")
    assert done.returncode == 0, done.stderr
    assert set(filter(None, answer.read_text().split("\013"))) == completions


