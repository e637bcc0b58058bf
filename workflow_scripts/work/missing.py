"""Raw files that jobs need and that are not in their place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from workflow_scripts.config import catalogue
from workflow_scripts.config.models import Recipe
from workflow_scripts.config.raw import to_place
from workflow_scripts.core import sources
from workflow_scripts.work.plan import Plan


def missing_data(plan: Plan, splits: Iterable[tuple[str, str]], recipes: Iterable[Recipe]) -> list[str]:
    """A message for each raw file of these (dataset, split) and checkpoints of recipes that is not in its place."""
    archives = {pair: plan.archives(*pair) for pair in splits}
    lines = [line for (dataset, split), names in archives.items() if not names
             for line in catalogue.missing(plan.datasets[dataset], split, plan.data_root)]
    lines += [line for dataset, split in archives
              for line in catalogue.lacking(plan.datasets[dataset], split, plan.data_root)]
    wanted = {name for names in archives.values() for name in names
              if plan.config.offline or plan.sources[name].by_hand}
    wanted |= {name for pair in archives if plan.config.offline and isinstance(name := plan.image_list(*pair), str)}
    for file, recipe in {recipe.checkpoint.file: recipe for recipe in recipes if recipe.checkpoint}.items():
        name = plan.checkpoint_archive(recipe)
        if name and plan.config.offline:
            wanted.add(name)
        elif not name and not sources.locate(file, plan.data_root):
            lines.append(f"recipe '{recipe.name}': checkpoint {file} expected below the data root "
                         f"{plan.data_root or '(not set)'}")
    return lines + to_place(plan.sources, sorted(wanted), Path(plan.config.resources) / "archives").splitlines()
