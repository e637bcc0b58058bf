"""What a paper's target makes, and the names that stand for files on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePath

from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, nearest, unknown
from workflow_scripts.wiring import paths, pictures
from workflow_scripts.work.plan import Key, Plan

FIGURES = ("histograms", "roc", "heatmap")
FILES = ("csv", "md", "tex", "published", "intervals", "manifest")  # of each paper, beside its figures
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
        whole = {paper: results_of(plan, paper), f"{paper}_figures": drawn,
                 f"{paper}_table": [paths.of_paper(plan, paper, kind) for kind in FILES if kind != "manifest"]}
        each = {f"{paper}_{PurePath(figure).stem}": [figure] for figure in drawn}
        named |= {**each, **whole}
    return named


def check_papers(plan: Plan) -> None:
    """A paper's targets are called as no rule is, and as no other paper's.

    Raises:
        OODError: naming the experiment's paper.
    """
    of: dict[str, str] = {}
    for paper in plan.papers:
        for name in targets(replace(plan, results=tuple(r for r in plan.results if r[0].paper == paper))):
            if name in rules() or of.setdefault(name, paper) != paper:
                taken = f"a target of paper '{of[name]}'" if name in of else "a rule of the workflow"
                raise OODError(f"experiments: paper '{paper}': '{name}' would be its target, and is {taken} already; "
                               f"call the paper e.g. '{paper}_paper'")


@cache
def rules() -> frozenset[str]:
    """Names of the workflow's rules, which are targets too."""
    return frozenset(name for text in _texts() for name in re.findall(r"(?m)^rule (\w+):", text))


@cache
def _kinds(folder: str) -> frozenset[str]:
    """Folders below a configuration's results, or below all ``results``, that rules write into."""
    found = {kind for text in _texts() for kind in re.findall(rf"\"{folder}/(\w+)[/\"]", text)}
    return frozenset(found | ({PurePath(paths.CHECKS).name} if folder == "results" else set()))


def _texts() -> Iterator[str]:
    for path in [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]:
        yield path.read_text(encoding="utf-8")


def check(plan: Plan, asked: Iterable[str]) -> None:
    """Each target that is asked for stands for something: a rule, a paper, a file of a set or network that there is.

    Raises:
        OODError: naming the target, the part of it that is not known, and the nearest that is.
    """
    for target in asked:
        known = {*rules(), *targets(plan)}
        if target in known or Path(target).exists():
            continue
        if "/" not in target:
            raise unknown("target", target, known)
        parts = PurePath(target).parts
        if parts[0] == "results":
            _check_result(plan, f"target {target}", parts)
        elif target.startswith(f"{plan.config.resources}/archives/") and parts[-1] not in plan.sources:
            raise unknown(f"target {target}: raw file", parts[-1], plan.sources)
        elif not target.startswith(f"{plan.config.resources}/") and nearest(parts[0], places := [
                "results", plan.config.resources]):
            raise unknown(f"target {target}: folder", parts[0], places)


def _check_result(plan: Plan, where: str, parts: tuple[str, ...]) -> None:
    """A file of results, by its folders."""
    if len(parts) > 1 and parts[1] in _kinds("results"):
        return  # beside every configuration
    if len(parts) > 1:
        _one_of(f"{where}: variant", parts[1], [plan.config.variant, "report.html", *_kinds("results")])
    if len(parts) < 4 or parts[2] in ("logs", "benchmarks"):  # a page or an overview; the rules know them
        return
    kind, name = parts[2], parts[3]
    _one_of(f"{where}: folder", kind, _kinds("<results>"))
    if kind in ("data", "folders"):
        dataset, _, split = name.removesuffix(".h5").rpartition(".")
        _one_of(f"{where}: dataset", dataset, plan.datasets)
        _one_of(f"{where}: split", split, plan.datasets[dataset].splits)
    elif kind in ("tables", "published", "intervals", "figures"):
        _one_of(f"{where}: paper", re.sub(r"\.(csv|md|tex|manifest\.json)$", "", name), plan.papers)
    elif len(parts) >= 7:
        keys: list[Key] = [*plan.runs, *plan.imported]
        seed = re.match(r"seed(\d+)", parts[6])
        for place, what in enumerate(("ID set", "network", "recipe")):
            _one_of(f"{where}: {what}", parts[3 + place], {str(key[place]) for key in keys})
            keys = [key for key in keys if key[place] == parts[3 + place]]
        if seed:
            _one_of(f"{where}: seed", seed[1], {str(key.seed) for key in keys})


def _one_of(where: str, name: str, allowed: Iterable[str]) -> None:
    if name not in allowed:
        raise unknown(where, name, allowed)
