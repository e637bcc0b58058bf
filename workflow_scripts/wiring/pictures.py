"""The papers' own pictures: which networks they show, and the inputs and parameters of their jobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from workflow_scripts.config.models import Picture
from workflow_scripts.core import plugins
from workflow_scripts.core.digest import digest
from workflow_scripts.core.errors import OODError
from workflow_scripts.stages.sections.draw_picture import DrawPicture
from workflow_scripts.work.extras import names_of

if TYPE_CHECKING:
    from workflow_scripts.wiring.files import Files, Wildcards
    from workflow_scripts.work.expand import Trained


class Pictures:
    """Files and parameters of the jobs that draw them."""

    def __init__(self, wire: Files):
        self.wire, self.plan = wire, wire.plan

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
            found = [run for run in found if only.keeps(run, recipe=False) and run.key in wanted]
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
        wire, tests = self.wire, self.plan.sets(run.id)[2:]
        return {
            "record": lambda: wire.file("models", run, ".h5"),
            "checkpoint": lambda: wire.file("models", run, ".pt"),
            "outliers": lambda: wire.store(self.plan.outliers(run), "train"),
            "selection": lambda: wire.file("selection", run, ".h5"),
            "distances": lambda: wire.file("distances", run, ".h5"),
            "metrics": lambda: wire.file("metrics", run, ".csv"),
            "scores": lambda: [wire.file("scores", run, f"/{score}.h5") for score in run.scores],
            "panels": lambda: wire.file("panels", run, ".h5"),
            "train": lambda: wire.store(run.id, "train"),
            "test": lambda: wire.store(run.id, "test"),
            "ood": lambda: [wire.store(*pair) for pair in tests],
            "train_features": lambda: wire.train_features(run),
            "test_features": lambda: wire.test_features(run),
            "ood_features": lambda: wire.features(run, *tests),
        }[kind]()

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
