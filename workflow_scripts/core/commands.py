"""The command line of what a person types: each such module has a docstring, a ``parser()`` and a ``main(argv)``."""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PROGRAM = "ood"
"""The entry point that finds them all by name (:mod:`workflow_scripts.__main__`)."""
FOLDER = Path(__file__).resolve().parents[1]


def described(spec: ModuleSpec, text: str) -> argparse.ArgumentParser:
    """A parser that says what the module's docstring says, called as it was typed: ``ood plan``, ``python -m ...``."""
    typed = sys.argv[0] if sys.argv[0].startswith(f"{PROGRAM} ") else f"python -m {spec.name}"
    return argparse.ArgumentParser(prog=typed, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def command(module: str) -> str:
    """How a module is called: ``partial_page`` -> ``partial-page``."""
    return module.replace("_", "-")


def listed() -> dict[str, str]:
    """Command -> the first line of its module's docstring; the modules are read, not imported."""
    return {command(path.stem): _first_line(path)
            for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}


def load(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f"workflow_scripts.{name.replace('-', '_')}")


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
