"""The part of a configuration's work that its key ``only`` keeps."""

from __future__ import annotations

from collections.abc import Iterable

from workflow_scripts.config.models import Config
from workflow_scripts.config.only import Only
from workflow_scripts.core.errors import OODError, unknown
from workflow_scripts.work.plan import Key, LeftOut, Plan, Trained


def keeps(only: Only, run: Trained) -> bool:
    """Whether a network is of the part, whichever paper reports it."""
    return keeps_place(only, run.key) and (not only.recipes or bool(_names(run) & {*only.recipes}))


def keeps_place(only: Only, key: Key) -> bool:
    """Whether the networks of an ID set, architecture and seed are of the part, whatever their recipes."""
    return ((not only.ids or key.id in only.ids) and (not only.networks or key.network in only.networks)
            and (not only.seeds or key.seed in only.seeds))


def keeps_left_out(only: Only, one: LeftOut) -> bool:
    """Whether a network that is left out would be of the part."""
    return keeps_place(only, one.key) and (not only.recipes or one.key.recipe in only.recipes) and (
        not only.papers or one.paper in only.papers)


def check(config: Config, runs: Iterable[Trained], left_out: Iterable[LeftOut]) -> None:
    """Every name in ``only`` is one of the configuration.

    Args:
        runs: all networks of the configuration.
        left_out: those of them that lack optional weights.

    Raises:
        OODError: it is not; the key, what was found and what is allowed.
    """
    only, runs, absent = config.only, list(runs), [one.key for one in left_out]
    _among("papers", only.papers, {experiment.paper for experiment in config.experiments})
    _among("ids", only.ids, {run.id for run in runs} | {key.id for key in absent})
    seeds = {run.seed for run in runs} | {key.seed for key in absent}
    for seed in only.seeds:
        if seed not in seeds:
            raise OODError(f"only.seeds: {seed} is no seed of this configuration, whose seeds are "
                           f"{', '.join(map(str, sorted(seeds)))}; set the key seeds, e.g. seeds: {seed + 1}")
    _among("networks", only.networks, {run.network.name for run in runs} | {key.network for key in absent})
    _among("recipes", only.recipes, {name for run in runs for name in _names(run)} | {key.recipe for key in absent})


def check_some(plan: Plan) -> None:
    """Something is kept.

    Raises:
        OODError: nothing is, or only what lacks optional weights, which it then names.
    """
    if not plan.papers and plan.left_out:
        raise OODError("experiments: nothing is left but what lacks optional weights:\n" + "\n".join(
            map(str, plan.left_out)))
    if not plan.papers:
        raise OODError(f"only: no experiment is in all of {plan.config.only.model_dump(exclude_defaults=True)}")


def _names(run: Trained) -> set[str]:
    """What a user may call a network's recipe."""
    return {run.recipe.name, run.path_name}


def _among(key: str, names: Iterable[str], allowed: set[str]) -> None:
    for name in names:
        if name not in allowed:
            raise unknown(f"only.{key}", name, allowed)
