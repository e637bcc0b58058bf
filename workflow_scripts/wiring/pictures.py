"""The papers' own pictures: which networks they show, and the inputs and parameters of their jobs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from workflow_scripts.config.models import Picture
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import digest
from workflow_scripts.core.errors import OODError
from workflow_scripts.stages.sections.draw_picture import DrawPicture
from workflow_scripts.wiring import paths
from workflow_scripts.wiring.paths import Wildcards
from workflow_scripts.work.extras import names_of
from workflow_scripts.work.only import keeps_place
from workflow_scripts.work.plan import Plan, Trained


class Pictures:
    """Files and parameters of the jobs that draw them."""

    def __init__(self, plan: Plan, root: str):
        self.plan, self.root = plan, root

    def of(self, paper: str) -> list[Picture]:
        """The pictures of a paper, but those none of whose networks `only` keeps."""
        about, only = self.plan.about(paper), self.plan.config.only
        return [p for p in about.pictures if not only.within_a_paper() or self.shown(paper, p)] if about else []

    def constraint(self) -> str:
        """All of them as the constraint of a wildcard."""
        named = {picture.file for paper in self.plan.papers for picture in self.of(paper)}
        return "|".join(map(re.escape, sorted(named))) or "(?!)"

    def shown(self, paper: str, picture: Picture) -> list[Trained]:
        """Networks that a picture shows: of the paper's ID sets and architectures, in the order of its recipes.

        Raises:
            OODError: there is none, and not because of `only`.
        """
        places = {(e.id, network) for e in self.plan.config.experiments if e.paper == paper for network in e.networks}
        found = [run for name in picture.recipes for run in self.plan.runs.values()
                 if run.recipe.name == name and (run.id, run.network.name) in places]
        only = self.plan.config.only
        if found and only.within_a_paper():
            wanted = self.plan.wanted if only.recipes else self.plan.runs
            found = [run for run in found if keeps_place(only, run.key) and run.key in wanted]
        elif not found:
            raise OODError(f"papers: picture '{picture.file}' of '{paper}' shows the recipes "
                           f"{', '.join(picture.recipes)}, none of which this paper trains")
        one = plugins.spec("pictures", picture.picture).scope == "one"
        return found[:1] if one else found

    def _drawn(self, wildcards: Wildcards) -> tuple[Picture, list[tuple[Trained, dict[str, Any]]]]:
        """A picture, and the networks it shows with their files by kind."""
        picture = next(p for p in self.of(wildcards.paper) if p.file == wildcards.picture)
        needs = plugins.spec("pictures", picture.picture).needs
        runs = self.shown(wildcards.paper, picture)
        return picture, [(run, {kind: self._file(kind, run) for kind in sorted(needs)}) for run in runs]

    def _file(self, kind: str, run: Trained) -> str | list[str]:
        """A network's file of one of the kinds in :data:`workflow_scripts.core.specs.PictureInput`."""
        train, test, *tests = self.plan.sets(run.id)

        def of_network(place: str, rest: str) -> str:
            return paths.of_network(self.root, place, run, rest)

        def store(pair: tuple[str, str]) -> str:
            return paths.store(self.root, *pair)

        def features(pair: tuple[str, str]) -> str:
            return paths.features(self.root, run, [pair])[0]

        def outliers() -> str:
            assert run.outliers is not None  # a picture that needs them shows recipes that train against them
            return store((run.outliers, "train"))

        found: dict[str, Callable[[], str | list[str]]] = {
            "record": lambda: of_network("models", ".h5"),
            "checkpoint": lambda: of_network("models", ".pt"),
            "outliers": outliers,
            "selection": lambda: of_network("selection", ".h5"),
            "distances": lambda: of_network("distances", ".h5"),
            "metrics": lambda: of_network("metrics", ".csv"),
            "scores": lambda: [of_network("scores", f"/{score}.h5") for score in run.scores],
            "panels": lambda: of_network("panels", ".h5"),
            "train": lambda: store(train),
            "test": lambda: store(test),
            "ood": lambda: [store(pair) for pair in tests],
            "train_features": lambda: features(train),
            "test_features": lambda: features(test),
            "ood_features": lambda: paths.features(self.root, run, tests),
        }
        return found[kind]()

    def inputs(self, wildcards: Wildcards) -> list[str]:
        files = [file for _, kinds in self._drawn(wildcards)[1] for file in kinds.values()]
        return list(dict.fromkeys(f for file in files for f in (file if isinstance(file, list) else [file])))

    def section(self, wildcards: Wildcards) -> str:
        picture, runs = self._drawn(wildcards)
        shown = [{"id": run.id, "network": run.network.name, "recipe": run.path_name, "label": run.recipe.label,
                  "seed": run.seed, "files": files,
                  "section": run.recipe.model_dump(mode="json", exclude={"label", "where"})} for run, files in runs]
        return DrawPicture.of(paper=wildcards.paper, name=picture.file, picture=picture.picture,
                              options=picture.options, names=names_of(self.plan, wildcards.paper),
                              runs=shown).dump(ordered=True)

    def code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.draw_picture", f"pictures.{self._drawn(wildcards)[0].picture}")
