"""What `pip install .` installs runs the workflow without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from envs import pin
from tests.checkout import ROOT, copy, would_run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The content of the wheel, where an installer puts it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
                   cwd=copy(folder / "checkout"), check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:  # of this checkout, made a moment ago
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


def test_the_builder_is_the_pinned_one():
    [builder] = map(Requirement, PROJECT["build-system"]["requires"])
    assert str(builder) in pin.present()[1]


def test_it_is_one_folder_beside_a_file_that_puts_it_on_the_path(installed):
    names = sorted(path.name for path in installed.iterdir() if not path.name.endswith(".dist-info"))
    assert names == ["ood_reproduction", "ood_reproduction.pth"]
    found = subprocess.run(
        [sys.executable, "-c", f"import site, sys; site.addsitedir({str(installed)!r}); print(sys.path[-1])"],
        capture_output=True, text=True, check=True).stdout
    assert found == f"{installed / 'ood_reproduction'}\n"


def test_it_has_all_that_the_workflow_reads(installed):
    """Of the folders that are shipped everything, and each file that code or tables name."""
    shipped = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["ships"]
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *shipped], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.splitlines()
    here = {path.relative_to(installed / "ood_reproduction").as_posix()
            for path in (installed / "ood_reproduction").rglob("*") if path.is_file()}
    assert here == {name for name in listed if (ROOT / name).is_file()}


def test_the_default_run_is_planned_from_it(installed, tmp_path):
    root = installed / "ood_reproduction"
    assert would_run(tmp_path, "--snakefile", str(root / "Snakefile"), PYTHONPATH=str(root))["train_network"] == 28
    planned = subprocess.run([sys.executable, "-m", "workflow_scripts.plan", "--quick"], cwd=tmp_path,
                             capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert planned.returncode == 0 and "posthoc" in planned.stdout, planned.stderr
