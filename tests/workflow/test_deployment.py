"""The workflow where deployment tools put it: workflow/Snakefile, config/config.yaml, a folder of snakedeploy, a module
that a hosting service serves."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT, copy, snakemake, would_run
from tests.everyday_data import write

DEPLOYED = """from snakemake.utils import min_version


min_version("6.10.0")


configfile: "config/config.yaml"


module ood:
    snakefile:
        {snakefile}
    config:
        config


use rule * from ood
"""
"""What snakedeploy 0.17.1 writes as workflow/Snakefile, its comments left out."""
DEFAULT, TINY = 28, 2
"""Networks that the default run trains, and the tiny one."""
HOSTED = 'github("owner/name", path="workflow/Snakefile", tag="v0.1.0")'
SNAKEDEPLOY = ["uv", "tool", "run", "--python", "3.12", "--from", "snakedeploy==0.17.1", "snakedeploy"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of this repository with what is not committed yet, at the tag v0.1.0."""
    folder = copy(tmp_path_factory.mktemp("host") / "owner" / "name.git")
    git(folder, "init", "-q", "-b", "main")
    release(folder, "v0.1.0")
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@localhost", *words],
                   check=True)


def release(folder: Path, tag: str) -> None:
    """Commit all that has changed, and tag it."""
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", tag)
    git(folder, "tag", tag)


def deployed(folder: Path, snakefile: str) -> Path:
    """A folder as snakedeploy makes it, with a tiny configuration."""
    (folder / "workflow").mkdir(parents=True)
    (folder / "workflow" / "Snakefile").write_text(DEPLOYED.format(snakefile=snakefile))
    for name in ("config", "profiles"):
        shutil.copytree(ROOT / name, folder / name)
    write(folder / "config" / "config.yaml")
    return folder


def jobs(folder: Path, *words: str, **environment: str) -> int:
    """How many networks a dry run would train; it makes the page."""
    found = would_run(folder, *words, **environment)
    assert found["default"] == found["make_report"] == 1
    return found["train_network"]


def hosted(clone: Path, folder: Path) -> dict[str, str]:
    """An environment in which https://github.com is the folder above the clone, and its code the installed package."""
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{clone.parents[1].as_uri()}/.insteadOf",
            "GIT_CONFIG_VALUE_0": "https://github.com/", "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(ROOT)}


def test_the_test_case_of_the_catalogue_is_the_default_run(clone):
    assert jobs(clone, "--snakefile", "workflow/Snakefile", "--directory", ".test") == DEFAULT
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_the_catalogue_finds_what_it_asks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"] == {"conda": True} and usage["report"] is True
    assert (ROOT / "config" / "README.md").is_file() and (ROOT / "workflow" / "Snakefile").is_file()


def test_a_deployed_folder_uses_a_clone_by_its_path(clone, tmp_path):
    folder = deployed(tmp_path / "project", f'"{clone}/workflow/Snakefile"')
    shutil.copy(ROOT / "config" / "config.yaml", folder / "config")
    assert jobs(folder) == DEFAULT
    (folder / "config" / "config.yaml").open("a").write("sedes: 3\n")
    done = snakemake(folder, "--dry-run", "--cores", "1")
    assert done.returncode == 1 and "config: sedes: unknown key 'sedes'; did you mean 'seeds'?" in done.stdout


def test_a_deployed_folder_uses_a_hosting_service_and_the_package(clone, tmp_path):
    folder = deployed(tmp_path / "project", HOSTED)
    assert jobs(folder, **hosted(clone, tmp_path)) == TINY


def test_rules_of_another_version_than_the_package_are_refused(clone, tmp_path):
    other = tmp_path / "host" / "owner" / "name.git"
    git(clone, "clone", "-q", ".", str(other))
    (other / "rules" / "report.smk").open("a").write("# another\n")
    release(other, "v0.2.0")
    folder = deployed(tmp_path / "project", HOSTED.replace("v0.1.0", "v0.2.0"))
    done = snakemake(folder, "--dry-run", "--cores", "1", **hosted(other, tmp_path))
    assert done.returncode == 1
    assert f"v0.2.0/rules/report.smk differs from the rules of the installed package ({ROOT})" in done.stdout


def test_rules_without_the_package_say_so(clone, tmp_path):
    blocked = tmp_path / "blocked" / "workflow_scripts"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ModuleNotFoundError('no module', name='workflow_scripts')")
    folder = deployed(tmp_path / "project", HOSTED)
    shutil.rmtree(folder / "profiles")
    done = snakemake(folder, "--dry-run", "--cores", "1",
                     **hosted(clone, tmp_path) | {"PYTHONPATH": str(blocked.parent)})
    assert done.returncode == 1 and "has no module 'workflow_scripts'; install the workflow" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.network
@pytest.mark.parametrize("service", [False, True], ids=["clone", "service"])
def test_snakedeploy(clone, tmp_path, service):
    """As docs/deployment.md says it; from a clone the module's place is corrected by hand."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not on PATH")
    source = "https://github.com/owner/name" if service else str(clone)
    ref = ["--tag", "v0.1.0"] if service else ["--branch", "main"]
    environment = hosted(clone, tmp_path)
    done = subprocess.run([*SNAKEDEPLOY, "deploy-workflow", source, str(tmp_path / "project"), *ref, "--name", "ood"],
                          capture_output=True, text=True, env={**os.environ, **environment})
    if "error sending request" in done.stderr or "Failed to fetch" in done.stderr:
        pytest.skip("no package index is reachable")
    assert done.returncode == 0, done.stderr
    written = tmp_path / "project" / "workflow" / "Snakefile"
    if not service:
        assert '"workflow/Snakefile"' in written.read_text()
        written.write_text(written.read_text().replace('"workflow/Snakefile"', f'"{clone}/workflow/Snakefile"'))
    place = HOSTED if service else f'"{clone}/workflow/Snakefile"'
    lines = [line for line in written.read_text().split("\n") if not line.startswith("#")]
    assert " ".join(" ".join(lines).split()) == " ".join(DEPLOYED.format(snakefile=place).split())
    assert jobs(tmp_path / "project", **environment) == DEFAULT
