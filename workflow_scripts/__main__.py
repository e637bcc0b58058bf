"""Everything about a run that is typed beside snakemake.

    uv run ood COMMAND ...            the same as uv run python -m workflow_scripts.COMMAND ...
    uv run ood COMMAND --help         what it does, with examples

The run itself is snakemake's: uv run snakemake --cores all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping

from workflow_scripts.core import commands
from workflow_scripts.core.errors import unknown

COMPLETION = "_ARGCOMPLETE"
"""Where argcomplete says that a shell asks for completions, and from which word on."""


def parser(found: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of the first word."""
    width = max(map(len, found))
    lines = ["commands:", *(f"  {name:<{width}}  {said}" for name, said in found.items()), "",
             f'Completion in bash or zsh, in an activated environment: eval "$(register-python-argcomplete '
             f'{commands.PROGRAM})"']
    words = argparse.ArgumentParser(prog=commands.PROGRAM, usage=f"{commands.PROGRAM} COMMAND ...", description=__doc__,
                                    epilog="\n".join(lines), add_help=False,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("command", choices=list(found), metavar="COMMAND", help=argparse.SUPPRESS)
    words.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    return words


def complete(found: Mapping[str, str]) -> None:
    """Answer a shell that asks how the line may go on."""
    import argcomplete

    line, place = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    _, _, _, before, _ = argcomplete.split_line(line, place)
    own = parser(found)
    if len(before) > 1 and before[1] in found:
        os.environ[COMPLETION] = "2"  # the words of a command begin with its name
        own = commands.load(before[1]).parser()
    argcomplete.autocomplete(own)


def main() -> None:
    """Entry point of ``ood``; an unknown command ends it with a line that names the nearest."""
    found = commands.listed()
    if COMPLETION in os.environ:
        complete(found)
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        parser(found).print_help()
        return
    name = commands.command(words[0])
    if name not in found:
        print(f"error: {unknown(commands.PROGRAM, words[0], found)}", file=sys.stderr)
        sys.exit(1)
    sys.argv = [f"{commands.PROGRAM} {name}", *words[1:]]
    commands.load(name).main()


if __name__ == "__main__":
    main()
