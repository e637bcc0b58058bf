"""What would run again, and because of which file or key.

    uv run python -m workflow_scripts.why                                    the default run
    uv run python -m workflow_scripts.why --configfile config/cifar.yaml     any words that snakemake takes

Asks ``snakemake --dry-run`` and boils its reasons down: of the code digests and configuration sections that differ,
only the files, package versions and keys that changed are shown. Raw files are told apart by their names and contents;
a content is read again where a file's size, times or inode changed (docs/own.md).
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from workflow_scripts.core.commands import described

_JOB = re.compile(r"^(?:Job \d+: |(?:local)?rule )(.*?):?$")
SHOWN = 8  # keys of one cause
WIDTH = 160  # of a line
_PARAMS = re.compile(r"Params have changed since last execution: .*?before: (.*)$")


def reasons(output: str) -> list[tuple[str, str]]:
    """(job, reason) of every job in the output of a dry run."""
    found, job = [], ""
    for line in output.splitlines():
        if match := _JOB.match(line):
            job = match[1]
        elif line.strip().startswith("Reason: ") and job:
            found.append((job, line.strip().removeprefix("Reason: ")))
            job = ""
    return found


def explain(reason: str) -> list[str] | None:
    """What changed, in a few words each; ``None`` when a job only follows from others."""
    if match := _PARAMS.search(reason):
        return changes(match[1])
    if reason.startswith("Input files updated by another job"):
        return None
    if reason.startswith("Missing output files"):
        return ["never made (or deleted)"]
    return [reason.split(". ")[0]]


def changes(text: str) -> list[str]:
    """What differs between ``{old values} now: {new values}``, where each value is the repr of a parameter."""
    for cut in (m.start() for m in re.finditer(r" now: ", text)):
        before, now = _values(text[:cut]), _values(text[cut + 6:])
        if before is not None and now is not None:
            break
    else:
        return ["parameters changed"]
    lines = []
    old, new = ({kind: part for value in values for kind, part in [_kind(value)]} for values in (before, now))
    for kind in sorted(old.keys() | new.keys()):
        a, b = _flat(old.get(kind, {})), _flat(new.get(kind, {}))
        lines += _raw(a.pop("raw", None), b.pop("raw", None))
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                lines.append(_change(kind, key, a.get(key), b.get(key)))
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"and {more} more keys"] if more > 0 else [])


def _raw(old: Any, new: Any) -> list[str]:
    """What differs between raw files, each ``[path, bytes or number of files, hash]``."""
    a, b = ({path: state for path, *state in files or []} for files in (old, new))
    lines = []
    for path in sorted(a.keys() | b.keys()):
        if path not in a or path not in b:
            lines.append(f"raw files: {path} {'is new' if path not in a else 'is gone'}")
        elif a[path] != b[path]:
            sizes = [f"{state[0]:,} bytes" if isinstance(state[0], int) else state[0] for state in (a[path], b[path])]
            said = f"other content, {sizes[0]} as before" if sizes[0] == sizes[1] else f"{sizes[0]} -> {sizes[1]}"
            lines.append(f"raw files: {path}: {said}")
    return lines


def _change(kind: str, key: str, old: Any, new: Any) -> str:
    if kind == "code" and "/" in key:
        return f"{key} {'is new' if old is None else 'is gone' if new is None else 'changed'}"
    sides = ("none" if side is None else str(side) for side in (old, new))
    return f"{key}: {' -> '.join(s if len(s) <= WIDTH // 2 else s[:WIDTH // 2] + '...' for s in sides)}"


def _values(text: str) -> tuple | None:
    text = text.strip()
    if text == "<nothing exclusive>":
        return ()
    try:
        return ast.literal_eval(f"({text},)")
    except (SyntaxError, ValueError):
        return None


def _kind(value: Any) -> tuple[str, dict]:
    """A code digest is a mapping, a section of the configuration the JSON text of one."""
    if isinstance(value, dict):
        return "code", value
    try:
        section = json.loads(value)
        return "config", section if isinstance(section, dict) else {"value": section}
    except (TypeError, ValueError):
        return "config", {"value": value}


def _flat(section: Any, path: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; entries of a list of mappings by their names or numbers, other lists are
    kept whole."""
    if isinstance(section, list) and any(isinstance(entry, dict) for entry in section):
        section = {f"[{entry.get('name', i) if isinstance(entry, dict) else i}]": entry
                   for i, entry in enumerate(section)}
    if not isinstance(section, dict):
        return {path: section}
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{path}{'' if key[:1] == '[' else '.'}{key}" if path else str(key))
    return flat


def summary(found: Iterable[tuple[str, str]], most: int | None = None) -> str:
    """The page for the terminal: each cause once, with (at most ``most``) jobs it touches; then how many follow.

    Args:
        found: (job, reason) of each that would run.
        most: jobs shown of one cause.
    """
    causes: dict[tuple[str, ...], list[str]] = {}
    following = 0
    for job, reason in found:
        cause = explain(reason)
        if cause is None:
            following += 1
        else:
            causes.setdefault(tuple(cause), []).append(job)
    if not causes and not following:
        return "Nothing would run: all results are up to date."
    lines = []
    for cause, jobs in causes.items():
        lines += [f"{line}" for line in cause]
        counted = Counter(jobs)
        shown = [f"    {job}" + (f"  (x{count})" if count > 1 else "") for job, count in counted.items()]
        lines += shown[:most] + ([f"    and {len(shown) - most} more"] if most and len(shown) > most else [])
    if following:
        lines.append(f"and {following} jobs that follow from these")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    return described(__spec__, __doc__)


def main(argv: list[str] | None = None) -> None:
    """Entry point; all words are snakemake's."""
    _, words = parser().parse_known_args(argv)
    done = subprocess.run([sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", *words], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        sys.exit(done.returncode)
    print(summary(reasons(done.stdout)))


if __name__ == "__main__":
    main()
