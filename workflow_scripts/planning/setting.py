"""The configuration that a helper's command line names, read as the workflow reads it, without Snakemake."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import read_yaml
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Plan


def add(parser: argparse.ArgumentParser) -> None:
    """``--configfile``, ``--config`` and ``--directory``, as snakemake has them."""
    parser.add_argument("--configfile", type=Path, default=ROOT / "config.yaml", help="default: config.yaml")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="over the file, e.g. seeds=5")
    parser.add_argument("--directory", type=Path, default=Path(), help="folder that holds results/ (default: here)")


def words(configfile: Path, pairs: Sequence[str] = ()) -> list[str]:
    """The first two for snakemake."""
    given = ["--config", *pairs] if pairs else []
    return [*given, "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(configfile.resolve())]


def read(path: Path, pairs: Sequence[str] = ()) -> Plan:
    """The plan of a configuration file with ``KEY=VALUE`` over it.

    Raises:
        OODError: no such file, no YAML mapping, or a configuration that is not in order.
    """
    if not path.is_file():
        raise OODError(f"--configfile: there is no file {path}")
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise OODError(f"{path}: a mapping of keys expected, found {type(raw).__name__}")
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise OODError(f"--config: KEY=VALUE expected, found '{pair}'")
        try:
            raw[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise OODError(f"--config: the value of {key} is not valid YAML: {value}") from None
    return read_plan(raw, ROOT, place=path.absolute().parent)
