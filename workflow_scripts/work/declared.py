"""What plugins declare that the work depends on, read without importing them."""

from __future__ import annotations

from workflow_scripts.config.models import Recipe, Score
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError


def needs(score: Score) -> frozenset[str]:
    """What a score reads, out of `workflow_scripts.core.specs.ScoreInput`."""
    return plugins.spec("scores", score.module).needs


def joins(score: Score) -> dict[str, str]:
    """The names of the scores that a score joins, by its options; none for a score that stands alone."""
    if "scores" not in needs(score):
        return {}
    options = plugins.parse_options("scores", score.module, score.options, score.name)
    return {"base": options.base, "background": options.background}


def joined(score: Score) -> bool:
    """Whether a score may be joined with a background score."""
    return plugins.spec("scores", score.module).joined


def background(recipe: Recipe) -> bool:
    """Whether a recipe's network has an output for the background beside its K classes."""
    if recipe.checkpoint is not None:
        return recipe.checkpoint.background
    return plugins.spec("methods", recipe.method).background


def switches(recipe: Recipe) -> tuple[str, ...]:
    """Defects of its release that a recipe can reproduce: its method can, and the script that it is of has them."""
    known = plugins.spec("methods", recipe.method).switches if recipe.method else ()
    return known if recipe.defects is None else tuple(bug for bug in known if bug in recipe.defects)


def outliers(recipe: Recipe, released: tuple[str, ...]) -> str | None:
    """The dataset a recipe trains against; none where its method, corrected or as released, reads no outliers.

    Raises:
        OODError: its method trains against outliers, and it names none.
    """
    when = plugins.spec("methods", recipe.method).outliers if recipe.method else None
    if when == "always" and not recipe.outliers:
        raise OODError(f"recipe '{recipe.name}': method {recipe.method} trains against outliers; "
                       "name them, e.g. outliers: {dataset: pool}")
    if recipe.outliers and (when == "always" or when in released):
        return recipe.outliers.dataset
    return None
