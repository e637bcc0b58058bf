"""The workflows of GitHub run what .ci/run runs, on the Pythons of the project, with actions that cannot change."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from envs import pin
from tests.checkout import ROOT

TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
JOBS = yaml.safe_load(TEXT)["jobs"]
MARKERS = [marker.partition(":")[0] for marker in
           tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]]


def commands() -> list[str]:
    return [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]


def test_actions_are_pinned_by_commit_and_say_which_release_that_is():
    uses = re.findall(r"uses: (.*)", TEXT)
    assert len(uses) == 3 and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use) for use in uses)


def test_the_tests_run_on_each_python_of_the_project():
    assert JOBS["tests"]["strategy"]["matrix"]["python"] == list(pin.PYTHONS)


def test_each_script_is_there_and_is_part_of_the_whole():
    whole = (ROOT / ".ci" / "run").read_text()
    scripts = [command for command in commands() if command.startswith(".ci/")]
    assert set(scripts) == {".ci/lint", ".ci/default"}
    for script in scripts:
        assert (ROOT / script).stat().st_mode & 0o111 and f"\n{script}\n" in whole


@pytest.mark.parametrize("marker", MARKERS, ids="without {}".format)
def test_no_test_runs_that_needs_what_a_hosted_machine_lacks(marker):
    [tests] = [command for command in commands() if "pytest" in command]
    assert f"not {marker}" in tests


def test_the_page_of_the_default_run_is_kept():
    [kept] = [step["with"] for step in JOBS["default-run"]["steps"] if "upload-artifact" in step.get("uses", "")]
    assert "results/small/report.html" in kept["path"].split() and kept["include-hidden-files"]


def test_what_changed_is_said_of_the_version_that_is_released():
    """In CHANGELOG.md; CITATION.cff has that version too (test_environment.py)."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"(?m)^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text())
    assert headings[0][0] == "Unreleased" and headings[1][0] == version and headings[1][1]
