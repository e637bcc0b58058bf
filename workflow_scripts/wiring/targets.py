"""What a paper's target makes, and the names that stand for files on the command line."""

from __future__ import annotations

from pathlib import PurePath

from workflow_scripts.wiring import paths, pictures
from workflow_scripts.work.plan import Plan

FIGURES = ("histograms", "roc", "heatmap")
FILES = ("csv", "md", "tex", "published", "manifest")  # of each paper, beside its figures
RELIABILITY = ("risk_coverage", "confidences", "reliability")  # for papers that ask for them


def results_of(plan: Plan, paper: str) -> list[str]:
    """Everything a paper's target makes."""
    return [*(paths.of_paper(plan, paper, kind) for kind in FILES), *figures(plan, paper)]


def figures(plan: Plan, paper: str) -> list[str]:
    """The figures of a paper's section, as SVG: those that every paper has, then its own."""
    about = plan.about(paper)
    wanted = (*FIGURES, *(RELIABILITY if about and about.reliability else ()),
              *(picture.file for picture in pictures.of_paper(plan, paper)))
    return [paths.of_paper(plan, paper, f"{name}.svg") for name in wanted]


def targets(plan: Plan) -> dict[str, list[str]]:
    """Names that stand for files of a paper: all of it, its table, its figures, each of its figures."""
    named: dict[str, list[str]] = {}
    for paper in plan.papers:
        drawn = figures(plan, paper)
        named[paper] = results_of(plan, paper)
        named[f"{paper}_table"] = [paths.of_paper(plan, paper, kind) for kind in FILES if kind != "manifest"]
        named[f"{paper}_figures"] = drawn
        for figure in drawn:
            named.setdefault(f"{paper}_{PurePath(figure).stem}", [figure])
    return named
