"""Pages that are made of the code and the tables: written by a command, compared by its ``--check``."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, command
from workflow_scripts.core.files import atomic
from workflow_scripts.core.sources import shown


def asked_to_check(spec: ModuleSpec, text: str, argv: list[str] | None) -> bool:
    """Read the command line of a page's module: ``--check`` alone.

    Args:
        spec: the module's.
        text: its docstring.
    """
    parser = command(spec, text)
    parser.add_argument("--check", action="store_true", help="compare instead of writing; exit with 1 if it differs")
    return parser.parse_args(argv).check


def keep(page: Path, text: str, spec: ModuleSpec, check: bool) -> None:
    """Write a page that differs from its text, or refuse it.

    Raises:
        OODError: ``check``, and the page differs.
    """
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return
    name = shown(page, ROOT)
    if check:
        raise OODError(f"{name} is out of date; run: uv run python -m {spec.name}")
    with atomic(page) as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"written: {name}")
