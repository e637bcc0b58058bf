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


def of_paper(plan: Plan, paper: str) -> list[Picture]:
    """The pictures of a paper, but those none of whose networks `only` keeps, or whose weights are not there."""
    about = plan.about(paper)
    whole = not plan.config.only.within_a_paper() and not plan.left_out
    return [p for p in about.pictures if whole or shown(plan, paper, p)] if about else []


def constraint(plan: Plan) -> str:
    """All of them as the constraint of a wildcard."""
    named = {picture.file for paper in plan.papers for picture in of_paper(plan, paper)}
    return "|".join(map(re.escape, sorted(named))) or "(?!)"


def shown(plan: Plan, paper: str, picture: Picture) -> list[Trained]:
    """Networks that a picture shows: of the paper's ID sets and architectures, in the order of its recipes.

    Raises:
        OODError: there is none, and not because of `only` or of optional weights that are not there.
    """
    places = {(e.id, network) for e in plan.config.experiments if e.paper == paper for network in e.networks}
    found = [run for name in picture.recipes for run in plan.runs.values()
             if run.recipe.name == name and (run.id, run.network.name) in places]
    only = plan.config.only
    if found and only.within_a_paper():
        wanted = plan.wanted if only.recipes else plan.runs
        found = [run for run in found if keeps_place(only, run.key) and run.key in wanted]
    elif not found and not any(one.paper == paper and one.key.recipe in picture.recipes for one in plan.left_out):
        raise OODError(f"papers: picture '{picture.file}' of '{paper}' shows the recipes "
                       f"{', '.join(picture.recipes)}, none of which this paper trains")
    one = plugins.spec("pictures", picture.picture).scope == "one"
    return found[:1] if one else found


def _drawn(plan: Plan, wildcards: Wildcards) -> tuple[Picture, list[tuple[Trained, dict[str, Any]]]]:
    """A picture, and the networks it shows with their files by kind."""
    picture = next(p for p in of_paper(plan, wildcards.paper) if p.file == wildcards.picture)
    needs = plugins.spec("pictures", picture.picture).needs
    runs = shown(plan, wildcards.paper, picture)
    return picture, [(run, {kind: _file(plan, kind, run) for kind in sorted(needs)}) for run in runs]


def _file(plan: Plan, kind: str, run: Trained) -> str | list[str]:
    """A network's file of one of the kinds in :data:`workflow_scripts.core.specs.PictureInput`."""
    train, test, *tests = plan.sets(run.id)

    def outliers() -> str:
        assert run.outliers is not None  # a picture that needs them shows recipes that train against them
        return paths.store(plan, run.outliers, "train")

    found: dict[str, Callable[[], str | list[str]]] = {
        "record": lambda: paths.of_network(plan, "models", run, ".h5"),
        "checkpoint": lambda: paths.of_network(plan, "models", run, ".pt"),
        "outliers": outliers,
        "selection": lambda: paths.of_network(plan, "selection", run, ".h5"),
        "distances": lambda: paths.of_network(plan, "distances", run, ".h5"),
        "metrics": lambda: paths.of_network(plan, "metrics", run, ".csv"),
        "scores": lambda: [paths.of_network(plan, "scores", run, f"/{score}.h5") for score in run.scores],
        "panels": lambda: paths.of_network(plan, "panels", run, ".h5"),
        "train": lambda: paths.store(plan, *train),
        "test": lambda: paths.store(plan, *test),
        "ood": lambda: [paths.store(plan, *pair) for pair in tests],
        "train_features": lambda: paths.train_features(plan, run),
        "test_features": lambda: paths.test_features(plan, run),
        "ood_features": lambda: paths.features(plan, run, tests),
        "head": lambda: paths.of_network(plan, "features", run, "/head.h5"),
        "statistics": lambda: paths.of_network(plan, "precompute", run, ".h5"),
    }
    return found[kind]()


def inputs(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Files of the networks that a picture shows, each once."""
    files = [file for _, kinds in _drawn(plan, wildcards)[1] for file in kinds.values()]
    return list(dict.fromkeys(f for file in files for f in (file if isinstance(file, list) else [file])))


def section(plan: Plan, wildcards: Wildcards) -> str:
    """What a picture shows."""
    picture, runs = _drawn(plan, wildcards)
    rows = [{"id": run.id, "network": run.network.name, "recipe": run.path_name, "label": run.recipe.label,
              "seed": run.seed, "files": files,
              "section": run.recipe.model_dump(mode="json", exclude={"label", "where"})} for run, files in runs]
    return DrawPicture.of(paper=wildcards.paper, name=picture.file, picture=picture.picture,
                          options=picture.options, names=names_of(plan, wildcards.paper),
                          runs=rows).dump(ordered=True)


def code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind a picture."""
    return digest("stages.draw_picture", f"pictures.{_drawn(plan, wildcards)[0].picture}")
