"""The key ``only``: a part of a configuration's work. What is left out stays as it is; what is kept keeps its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from workflow_scripts.config.base import Name, Strict
from workflow_scripts.core.errors import OODError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workflow_scripts.work.expand import Key, Plan, Trained


def _listed(value: Any) -> Any:
    """One name stands for a list of one; on the command line `a,b` for two."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int) else value


Names = Annotated[list[Name], BeforeValidator(_listed)]


class Only(Strict):
    """A part of the work: the tables, figures and page of these papers, ID sets, networks, recipes and seeds, and what
    they need. Files, parameters and code of what is kept are those of the whole run, so nothing that exists is made
    again for another part but tables, figures and page. A name, or a list of names, alone is that of papers:
    `--config only=goe`, `--config 'only={papers: [goe], seeds: [0]}'`."""

    papers: Names = []
    """Papers, by the names of the experiments; empty: all."""
    ids: Names = []
    """ID sets; empty: all."""
    networks: Names = []
    """Networks; empty: all."""
    recipes: Names = []
    """Recipes whose networks are reported; those they start from are trained too; empty: all."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_listed)] = []
    """Seeds; empty: all. `seeds: 5` with `only: {seeds: [3, 4]}` trains two more beside those that exist."""

    @model_validator(mode="before")
    @classmethod
    def _papers(cls, value: Any) -> Any:
        return {"papers": value} if isinstance(value, str | list) else value

    def keeps(self, run: Trained, recipe: bool = True) -> bool:
        """Whether a network is of the part (``recipe=False``: whatever its recipe), whichever paper reports it."""
        return ((not self.ids or run.id in self.ids) and (not self.networks or run.network.name in self.networks)
                and (not self.seeds or run.seed in self.seeds)
                and (not recipe or not self.recipes or bool({run.recipe.name, run.path_name} & {*self.recipes})))

    def within_a_paper(self) -> dict[str, list]:
        """What it leaves out of a paper's own table; empty where that table is whole."""
        return {key: value for key, value in self.model_dump(exclude={"papers"}).items() if value}

    def check(self, papers: Iterable[str], runs: Iterable[Trained]) -> None:
        """Every name is one of the configuration.

        Raises:
            OODError: it is not; the key, what was found and what is allowed.
        """
        runs = list(runs)
        allowed = {"papers": set(papers), "ids": {run.id for run in runs}, "seeds": {run.seed for run in runs},
                   "networks": {run.network.name for run in runs},
                   "recipes": {name for run in runs for name in (run.recipe.name, run.path_name)}}
        for key, names in allowed.items():
            for name in getattr(self, key):
                if name not in names:
                    if key == "seeds":
                        raise OODError(f"only.seeds: {name} is no seed of this configuration, whose seeds are "
                                       f"{', '.join(map(str, sorted(names)))}; set the key seeds, e.g. "
                                       f"seeds: {name + 1}")
                    raise unknown(f"only.{key}", name, names)


def check(plan: Plan) -> None:
    """What a configuration keeps is there.

    Raises:
        OODError: a name that it does not have, or nothing is kept.
    """
    given = plan.config.only
    given.check({e.paper for e in plan.config.experiments}, plan.runs.values())
    if not plan.papers:
        raise OODError(f"only: no experiment is in all of {given.model_dump(exclude_defaults=True)}")


def wanted(plan: Plan, runs: Iterable[Trained] | None = None) -> dict[Key, Trained]:
    """These networks (left out: what the papers that are kept report) and those they start from, in the order of the
    configuration."""
    todo = [run for paper in plan.papers for run in plan.reported(paper)] if runs is None else list(runs)
    kept: set[Key] = set()
    while todo:
        run = todo.pop()
        if run.key not in kept:
            kept.add(run.key)
            todo += [plan.runs[run.id, run.network.name, other, run.seed]
                     for other in (run.parent, run.classifier, run.weights, *run.among) if other]
    return {key: run for key, run in plan.runs.items() if key in kept}
