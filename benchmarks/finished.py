"""A finished run, to measure its stages on: its plan, and the files and configurations of one network's jobs."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from benchmarks.common import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.planning import setting
from workflow_scripts.wiring import evaluation
from workflow_scripts.work.plan import Plan, Trained


class Finished:
    """The network with the most scores in a finished run of ``configuration``, whose results lie in ``results``.

    Raises:
        OODError: there is no such network's checkpoint.
    """

    def __init__(self, results: Path, configuration: Path = ROOT / "config.yaml"):
        self.results = results
        self.plan: Plan = setting.read(configuration)
        self.run: Trained = max(self.plan.runs.values(), key=lambda run: len(run.scores))
        run = self.run
        self.wildcards = SimpleNamespace(id=run.id, network=run.network.name, recipe=run.path_name, seed=str(run.seed))
        self.checkpoint = self._file("models", ".pt")
        if not self.checkpoint.is_file():
            raise OODError(f"{self.checkpoint}: not there; finish a run of {configuration.name} first "
                           "(uv run snakemake --cores all)")
        self.sets = self.plan.sets(run.id)
        self.stores = [results / "data" / f"{name}.{split}.h5" for name, split in self.sets]
        self.train = f"{run.id}.train.h5"
        self.tests = [f"{name}.{split}" for name, split in self.sets[1:]]

    def _file(self, kind: str, end: str) -> Path:
        run = self.run
        return self.results / kind / run.id / run.network.name / run.path_name / f"seed{run.seed}{end}"

    @cached_property
    def features(self) -> dict:
        """Configuration of the features job of all sets."""
        return json.loads(evaluation.features_section(self.plan, self.wildcards, "all"))

    @cached_property
    def scores(self) -> dict[str, dict]:
        """Configurations of the jobs of those scores that are computed from features with options as they stand."""
        found = {}
        for name, entry in self.run.scores.items():
            if entry.tune is None and not {"network", "scores"} & self.plan.needs(self.run, name):
                wildcards = SimpleNamespace(**vars(self.wildcards), score=name)
                found[name] = json.loads(evaluation.score_section(self.plan, wildcards))
        return found
