"""The files of ``--configfile``, tried before Snakemake reads them.

Snakemake parses them before it reads the Snakefile, and its own messages name neither file nor line. The only code of
ours that runs earlier is that of a profile (``__definitions__``), so both profiles call :func:`try_given_files`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.core.errors import OODError, nearest
from workflow_scripts.core.yaml_files import read_yaml


def try_given_files(words: Sequence[str]) -> None:
    """Ends the process with exit code 1 and one line where a file of ``--configfile`` cannot be read.

    Args:
        words: the command line of Snakemake, without its first word.
    """
    try:
        for file in _files(words):
            try_file(file)
    except OODError as error:
        print(*(f"config: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        sys.exit(1)


def try_file(file: Path) -> None:
    """Reads a file as Snakemake is about to.

    Raises:
        OODError: it is missing, is not UTF-8, is not valid YAML, gives a key twice, or is not a mapping.
    """
    if not file.exists():
        beside = [path.name for path in file.parent.iterdir()] if file.parent.is_dir() else []
        raise OODError(f"{file}: there is no such file{nearest(file.name, beside) or '.'} Each word after --configfile "
                       "counts as a file, up to the next option: put targets in front of it")
    if not file.is_file() and not file.is_dir():
        return  # a pipe can be read once, and Snakemake has to
    from snakemake.common.configfile import load_configfile  # here: it is Snakemake that calls

    try:
        content = read_yaml(file, "configuration")
    except RecursionError:
        raise OODError(f"{file}: its brackets are nested too deep to be read") from None
    if not isinstance(content, dict):
        found = {type(None): "nothing", list: "a list"}.get(type(content), f"the value {content!r}")
        raise OODError(f"{file}: expected a mapping such as 'seeds: [0]', found {found}")
    try:
        file.read_text(encoding="utf-8")
        load_configfile(file)
    except UnicodeDecodeError:
        raise OODError(f"{file}: Snakemake reads UTF-8 alone, and this file is UTF-16; save it as UTF-8") from None
    except Exception as error:  # of its own reading of YAML 1.1, which has dates, and of templates
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise OODError(f"{file}: Snakemake cannot read it ({reason}); put texts that look like dates into quotation "
                       "marks, and leave __use_yte__ out") from None


def _files(words: Sequence[str]) -> list[Path]:
    """The words that Snakemake takes for files of ``--configfile``; none where its own parser refuses the line."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--configfile", "--configfiles", nargs="+", type=Path, default=[])
    parser.add_argument("--config", "-C", nargs="*")
    try:
        return parser.parse_known_args(words)[0].configfile
    except argparse.ArgumentError:
        return []

