"""What several test files share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of real samples run where OOD_DATA names them; in CI with the folder present a skip would be a failure."""
    data = os.environ.get("OOD_DATA")
    if data and Path(data).is_dir():
        return
    for item in items:
        if "data" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="OOD_DATA does not name a folder of real samples"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the small golden vectors."""
    return ROOT / "tests" / "golden"


def run_snakemake(cwd: Path, *words: str, timeout: int = 600, **environment: str) -> subprocess.CompletedProcess:
    """``snakemake`` as a user runs it, in ``cwd``; returns the finished process with text output (stderr joined)."""
    return subprocess.run([sys.executable, "-m", "snakemake", *words], cwd=cwd, text=True, timeout=timeout, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **environment})
