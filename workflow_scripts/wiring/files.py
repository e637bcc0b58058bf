"""Where the files of a run are; all lie below ``results``/variant."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from workflow_scripts.wiring.pictures import Pictures
from workflow_scripts.work.expand import Plan, Trained
from workflow_scripts.work.imported import Taken

FIGURES = ("histograms", "roc", "heatmap")
FILES = ("csv", "md", "tex", "published", "manifest")  # of each paper, beside its figures
RELIABILITY = ("risk_coverage", "confidences", "reliability")  # for papers that ask for them
Wildcards = Any  # Snakemake's; attributes by name


class Files:
    """Paths of stores, of files of one trained network, and of a paper's results."""

    def __init__(self, plan: Plan, results: str = "results"):
        self.plan = plan
        self.root = f"{results}/{plan.config.variant}"
        self.pictures = Pictures(self)

    def store(self, dataset: str, split: str) -> str:
        return f"{self.root}/data/{dataset}.{split}.h5"

    def file(self, kind: str, run: Trained, *rest: str) -> str:
        """A file of one trained network: root/kind/id/network/recipe/seedN, then ``rest`` as it is."""
        return "".join([f"{self.root}/{kind}/{run.id}/{run.network.name}/{run.path_name}/seed{run.seed}", *rest])

    def features(self, run: Trained, *sets: tuple[str, str]) -> list[str]:
        """The features files of (dataset, split)."""
        return [self.file("features", run, f"/{name}.h5") for name in self.features_names(run.id, sets)]

    @staticmethod
    def features_names(id: str, sets: Iterable[tuple[str, str]]) -> list[str]:
        """One file for each split of the ID set, and one for all other sets: one job writes them, each score reads
        them, and few inputs make a small workflow."""
        return list(dict.fromkeys(f"{dataset}.{split}" if dataset == id else "ood" for dataset, split in sets))

    def train_features(self, run: Trained) -> str:
        """The features file of the ID train set."""
        return self.features(run, (run.id, "train"))[0]

    def test_features(self, run: Trained) -> str:
        """The features file of the ID test set."""
        return self.features(run, (run.id, "test"))[0]

    def imported(self, taken: Taken, kind: str) -> str:
        """The scores (`h5`) or metrics (`csv`) of another tool's score files."""
        return f"{self.root}/imported/{'/'.join(map(str, taken.key[:3]))}/seed{taken.key[3]}.{kind}"

    def of_paper(self, paper: str, kind: str) -> str:
        """A file of a paper: its table (csv, md, tex), published numbers, manifest, or a figure by file name."""
        if kind in ("csv", "md", "tex"):
            return f"{self.root}/tables/{paper}.{kind}"
        if kind == "published":
            return f"{self.root}/published/{paper}.csv"
        return f"{self.root}/tables/{paper}.manifest.json" if kind == "manifest" else (
            f"{self.root}/figures/{paper}/{kind}")

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
