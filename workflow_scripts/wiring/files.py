"""The files of a plan: :mod:`workflow_scripts.wiring.paths` with the root that its configuration gives."""

from __future__ import annotations

from pathlib import PurePath

from workflow_scripts.wiring import paths
from workflow_scripts.wiring.paths import Wildcards
from workflow_scripts.wiring.pictures import Pictures
from workflow_scripts.work.plan import Plan, Taken, Trained

__all__ = ["FIGURES", "FILES", "RELIABILITY", "Files", "Wildcards"]

FIGURES = ("histograms", "roc", "heatmap")
FILES = ("csv", "md", "tex", "published", "manifest")  # of each paper, beside its figures
RELIABILITY = ("risk_coverage", "confidences", "reliability")  # for papers that ask for them


class Files:
    """Paths of stores, of files of one trained network, and of a paper's results."""

    def __init__(self, plan: Plan, results: str = "results"):
        self.plan = plan
        self.root = f"{results}/{plan.config.variant}"
        self.pictures = Pictures(plan, self.root)

    def store(self, dataset: str, split: str) -> str:
        return paths.store(self.root, dataset, split)

    def file(self, kind: str, run: Trained, rest: str = "") -> str:
        return paths.of_network(self.root, kind, run, rest)

    def features(self, run: Trained, *sets: tuple[str, str]) -> list[str]:
        return paths.features(self.root, run, sets)

    def train_features(self, run: Trained) -> str:
        """The features file of the ID train set."""
        return self.features(run, (run.id, "train"))[0]

    def test_features(self, run: Trained) -> str:
        """The features file of the ID test set."""
        return self.features(run, (run.id, "test"))[0]

    def imported(self, taken: Taken, kind: str) -> str:
        return paths.imported(self.root, taken, kind)

    def of_paper(self, paper: str, kind: str) -> str:
        return paths.of_paper(self.root, paper, kind)

    def results_of(self, paper: str) -> list[str]:
        """Everything a paper's target makes."""
        return [*(self.of_paper(paper, kind) for kind in FILES), *self.figures(paper)]

    def figures(self, paper: str) -> list[str]:
        """The figures of a paper's section, as SVG: those that every paper has, then its own."""
        about = self.plan.about(paper)
        wanted = (*FIGURES, *(RELIABILITY if about and about.reliability else ()),
                  *(picture.file for picture in self.pictures.of(paper)))
        return [self.of_paper(paper, f"{name}.svg") for name in wanted]

    def targets(self) -> dict[str, list[str]]:
        """Names that stand for files of a paper: all of it, its table, its figures, each of its figures."""
        named: dict[str, list[str]] = {}
        for paper in self.plan.papers:
            figures = self.figures(paper)
            named[paper] = self.results_of(paper)
            named[f"{paper}_table"] = [self.of_paper(paper, kind) for kind in FILES if kind != "manifest"]
            named[f"{paper}_figures"] = figures
            for figure in figures:
                named.setdefault(f"{paper}_{PurePath(figure).stem}", [figure])
        return named
