"""The configuration that a helper's command line names, read as the workflow reads it, without Snakemake."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.config.load import given
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Plan


def add(parser: argparse.ArgumentParser) -> None:
    """``--configfile``, ``--config`` and ``--directory``, as snakemake has them."""
    add_files(parser)
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="over the file, e.g. seeds=5")
    parser.add_argument("--directory", type=Path, default=Path(), help="folder that holds results/ (default: here)")


def add_files(parser: argparse.ArgumentParser) -> None:
    """``--configfile`` alone."""
    parser.add_argument("--configfile", type=Path, action="append", default=[], metavar="FILE",
                        help="once for each file, the later over the earlier; default: config.yaml")


def words(configfile: Path | Sequence[Path], pairs: Sequence[str] = ()) -> list[str]:
    """The first two for snakemake."""
    named = ["--config", *pairs] if pairs else []
    return [*named, "--snakefile", str(ROOT / "Snakefile"), "--configfile", *map(os.path.abspath, _several(configfile))]


def read(configfile: Path | Sequence[Path], pairs: Sequence[str] = ()) -> Plan:
    """The plan of configuration files with ``KEY=VALUE`` over them.

    Raises:
        OODError: no such file, no YAML mapping, or a configuration that is not in order.
    """
    files = _several(configfile)
    for path in files:
        if not path.is_file():
            raise OODError(f"--configfile: there is no file {path}")
    return read_plan(given(files, pairs, Path.cwd()), ROOT)


def place(configfile: Path | Sequence[Path]) -> Path:
    """The folder of the file that counts most."""
    return _several(configfile)[-1].absolute().parent


def _several(configfile: Path | Sequence[Path]) -> Sequence[Path]:
    """The files that ``--configfile`` names: one, several, or none, which is the default run."""
    return [configfile] if isinstance(configfile, Path) else configfile or [ROOT / "config.yaml"]
