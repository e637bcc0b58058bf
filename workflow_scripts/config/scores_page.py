"""Generate docs/scores.md, a table of the post-hoc scores, from their declarations and docstrings.

    python -m workflow_scripts.config.scores_page            write docs/scores.md
    python -m workflow_scripts.config.scores_page --check    exit 1 if the file differs
"""

from __future__ import annotations

import ast
from typing import get_args

from workflow_scripts.core import plugins
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import stage
from workflow_scripts.core.generated import asked_to_check, keep
from workflow_scripts.core.specs import Family, ScoreSpec

TARGET = ROOT / "docs" / "scores.md"
BANKS = ("train_features", "train_logits", "train_background", "train_scores")


def cost(spec: ScoreSpec) -> str:
    """What a score reads of the network and the train set."""
    if "network" in spec.needs:
        learns = "train_labels" in spec.needs
        return "runs the network on the test images" + (", once on the train images" if learns else "")
    if spec.needs.intersection(BANKS):
        return "cached features; one pass over those of the train set"
    return "cached features"


def in_families() -> dict[str, list[str]]:
    """Scores by family, in the order of the families; a family without a score is left out."""
    names = plugins.names("scores")
    found = {family: [name for name in names if plugins.spec("scores", name).family == family]
             for family in get_args(Family)}
    return {family: members for family, members in found.items() if members}


def row(name: str) -> str:
    """One score's line of the table."""
    spec = plugins.spec("scores", name)
    assert isinstance(spec, ScoreSpec)
    tree = ast.parse(plugins.find("scores", name, "scores").read_text(encoding="utf-8"))
    title = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    options = ", ".join(f"`{field[0]}`" for field in plugins.fields("scores", name)) or "-"
    space = "<br>".join(f"`{option}` {', '.join(map(str, values))}" for option, values in spec.space.items()) or "-"
    cells = (f"`{name}`", title, ", ".join(sorted(spec.needs)), cost(spec), options, space)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def text() -> str:
    """The whole page as Markdown."""
    head = ["| score | what, and where from | reads | cost | options | values to try |", "|---|---|---|---|---|---|"]
    lines = ["# Scores", "", "Written by `python -m workflow_scripts.config.scores_page` from the scores themselves; "
             "do not edit.", "",
             f"{len(plugins.names('scores'))} post-hoc scores, a file each in `workflow_scripts/scores`, whose first "
             "lines give the equation and the papers' values; its options are in [config.md](config.md). Name a score "
             "under `scores:` of a configuration. The `tuning` of an experiment searches the *values to try* "
             "([own.md](own.md), 5). Tables with many scores show them in these families, the best of each first."]
    for family, members in in_families().items():
        lines += ["", f"## {family.capitalize()}", "", *head, *map(row, members)]
    return "\n".join(lines) + "\n"


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    check = asked_to_check(__spec__, __doc__, argv)
    keep(TARGET, text(), __spec__, check)


if __name__ == "__main__":
    main()
