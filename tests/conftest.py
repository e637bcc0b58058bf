"""What several test files share."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests import checkout

ROOT = Path(__file__).resolve().parent.parent


NO_DATA = "OOD_DATA does not name a folder of real samples"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-data", action="store_true",
                     help="a data test that is skipped for want of real samples is a failure")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of real samples run where OOD_DATA names them.

    Tests that ask a package index run where ``-m`` names them: their answer may change from one day to the next. Those
    of a GPU run where torch finds one.
    """
    skip_without_gpu([item for item in items if item.get_closest_marker("gpu")])
    if "network" not in config.getoption("markexpr"):
        for item in items:
            if "network" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="asks a package index; run `uv run pytest -m network`"))
    data = os.environ.get("OOD_DATA")
    if data and Path(data).is_dir():
        return
    if config.getoption("--all-data"):
        raise pytest.UsageError(f"--all-data: {NO_DATA} (found {data!r}), and no data test may be skipped")
    for item in items:
        if "data" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=NO_DATA))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """With --all-data a data test that skips itself fails."""
    report = yield
    if report.skipped and item.get_closest_marker("data") and item.config.getoption("--all-data"):
        report.outcome, report.longrepr = "failed", f"--all-data: no data test may be skipped: {report.longrepr}"
    return report


def pytest_runtest_teardown() -> None:
    """Give back the memory that stages keep for their next step (networks/memory.py): here the process runs on."""
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 65_536)  # glibc's defaults
        libc.mallopt(-1, 128 * 1024)
        libc.malloc_trim(0)


def skip_without_gpu(items: list[pytest.Item]) -> None:
    if not items:
        return
    import torch  # only here: not every test file needs it

    if not torch.cuda.is_available():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"torch {torch.__version__} finds no GPU"))


@pytest.fixture
def one_thread():
    """One thread of torch: small trainings wait for one another's threads on a busy machine."""
    import torch  # only here: not every test file needs it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the small golden vectors."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout in which the default run has finished: its own run, or that of the checkout OOD_DEFAULT_RUN."""
    folder = checkout.copy(tmp_path_factory.mktemp("default"))
    if elsewhere := os.environ.get("OOD_DEFAULT_RUN"):
        return checkout.take_over(Path(elsewhere), folder)
    done = checkout.snakemake(folder, "--cores", "all")
    assert done.returncode == 0, done.stdout[-5000:]
    (folder / "terminal.txt").write_text(done.stdout)
    return folder
