"""A table, laid out once: cells, column groups, what is bold, notes. Printed by :mod:`.printing` and by the page.

The cells are one frame whose column labels are :class:`Column`, so that columns are chosen and ordered as in any frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from workflow_scripts.reporting import families as families_
from workflow_scripts.reporting.inputs import DEFAULT_ID_METRICS, DEFAULT_METRICS, Counting
from workflow_scripts.reporting.results import AVERAGE, corrected, seeds_of
from workflow_scripts.reporting.statistics import Seeds, best, metric, show, spread_of

STRICT = ("Strict rules, the same for every paper: all images, equal scores together, FPR95 at the first threshold "
          "that accepts 95 % of its positive class, AUPR as average precision.")
"""What is said of the tables beside those by a paper's own rules."""


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    value: float | None = None
    """The number behind it, to sort by."""
    best: bool = False
    """Whether it is bold."""
    detail: str = ""
    """Each seed's value, or other words for a tooltip."""
    flag: str = ""
    """``missing``, ``below`` chance or ``within-no`` (outside the tolerance), which the page colours."""
    link: str = ""
    """Where on the page it leads."""


@dataclass(frozen=True)
class Column:
    """The head of a column. Columns of the same ``group`` stand together below its title."""

    title: str
    group: str = ""
    tag: str = ""
    """The configuration's group of a set, which the page shows behind the title."""
    style: str = ""
    """``average`` (over sets, or the ID task) or ``same`` (nothing that tells rows apart), which the page shades;
    ``prose``, which it breaks into lines."""
    numbers: bool = True
    """Whether it holds numbers, which stand on the right, and not words."""
    of: str = ""
    """What tells groups of the same title apart."""


@dataclass(frozen=True)
class Table:
    """A table with its title; ``caption`` is what LaTeX says of it."""

    title: str
    caption: str
    cells: pd.DataFrame
    before: tuple[str, ...] = ()
    """Paragraphs above it."""
    after: tuple[str, ...] = ()
    """Paragraphs below it."""
    joined: str = ""
    """How Markdown, which has no groups, writes the cells of one: ``{} → {} ({})``; else with slashes between."""
    keys: tuple[Mapping[str, str], ...] = ()
    """What the page filters rows by."""
    folded: tuple[bool, ...] = ()
    """Rows that the page folds away; empty: none."""

    def ordered(self, *first: str) -> Table:
        """The same table with the columns of these titles first, in their order."""
        columns = sorted(self.cells.columns, key=lambda c: first.index(c.title) if c.title in first else len(first))
        return replace(self, cells=self.cells[columns])


def table(title: str, caption: str, columns: Mapping[Column, Sequence[Cell | str]], **fields: object) -> Table:
    """A table of these columns; text stands for a cell of it."""
    return Table(title, caption, pd.DataFrame({
        column: pd.Series([Cell(cell) if isinstance(cell, str) else cell for cell in cells], dtype=object)
        for column, cells in columns.items()}), **fields)


@dataclass(frozen=True)
class Tests:
    """Paired tests of columns."""

    over: str
    """What they vary: ``images`` or ``seeds``."""
    leads: Mapping[tuple[str, ...], tuple[str, str] | None]
    """(ID set, network, set, group, metric) -> recipe and score that are better than each other, if any."""


def label(name: str) -> str:
    """A metric's heading with its arrow."""
    return f"{metric(name).label} {metric(name).arrow}".strip()


def number(name: str, seeds: Seeds | None, bold: bool = False, spread: Seeds | None = None) -> Cell:
    """A metric over seeds; in brackets its ``spread`` over the draws of a counting rule, where it has one."""
    if seeds is None or not seeds.n:
        return Cell(show(seeds, name), flag="missing")
    scale, below = metric(name).scale, name.partition("@")[0] == "auroc" and seeds.mean < 0.5
    each = [f"seed {seed}: " + ("missing" if v is None else f"{v * scale:.2f}".replace("nan", "NaN"))
            for seed, v in seeds.values]
    drawn = f" [{spread.mean * scale:.1f}]" if spread is not None and spread.mean is not None else ""
    return Cell(show(seeds, name) + drawn, seeds.mean, bold, ", ".join(each), "below" if below else "")


def tables(results: pd.DataFrame, metrics: Sequence[str] = DEFAULT_METRICS,
           id_metrics: Sequence[str] = DEFAULT_ID_METRICS, names: Mapping[str, str] | None = None,
           countings: Sequence[Counting] = (), tests: Tests | None = None,
           families: Mapping[str, str] | None = None, listed: Mapping[str, int] | None = None,
           headline: str = "") -> list[Table]:
    """The tables of each ID set and network, in the order of ``results``: one by each of the paper's own rules, then
    one by the strict rules. A row per recipe and score, columns for sets by group, averages over several sets and the
    ID task. Test sets as released have a table of their own. Where ``tests`` have
    a column, they say what is bold. Many scores are in their ``families``. ``listed``: sets that published
    lists choose -> images of the list; ``headline``: the score that the paper is about."""
    found = []
    for _, rows in results[corrected(results)].groupby(["id", "network"], sort=False):
        of = partial(_table, rows, names=names or {}, tests=tests, families=families or {}, listed=listed or {},
                     headline=headline)
        found += [of(counting.names, counting.id_metrics, counting=counting) for counting in countings]
        strict = of(metrics, id_metrics)
        found.append(replace(strict, after=(STRICT, *strict.after)) if countings else strict)
    return found


def _columns(results: pd.DataFrame, metrics: Sequence[str], id_metrics: Sequence[str]) -> list[tuple[str, str, str]]:
    """(set, group, metric) of each column of numbers: sets by group, averages over several sets, the ID task."""
    sets = results.loc[~results["group"].isin(["id", AVERAGE]), ["dataset", "group"]].drop_duplicates()
    sizes = sets.groupby("group", sort=False).size()
    heads = [pair for group in sizes.index for pair in sets[sets["group"] == group].itertuples(index=False, name=None)]
    heads += [(group, AVERAGE) for group, size in sizes.items() if len(sizes) > 1 and size > 1]
    heads += [("all", AVERAGE)] if len(sets) > 1 else []
    return [(*head, m) for head in heads for m in metrics] + [(results["id"].iloc[0], "id", m) for m in id_metrics]


def _table(results: pd.DataFrame, metrics: Sequence[str], id_metrics: Sequence[str], names: Mapping[str, str],
           tests: Tests | None, families: Mapping[str, str], listed: Mapping[str, int],
           headline: str, counting: Counting | None = None) -> Table:
    found = results.set_index(["recipe", "score", "dataset", "group", "metric"])["seeds"].to_dict()
    heads = results.loc[results["group"] != "id", ["recipe", "label", "score"]].drop_duplicates()
    places = _columns(results, metrics, id_metrics)
    overall = [place for place in places if place[1] != "id" and place[2] == metrics[0]][-1:]  # the mean over all sets
    heads = families_.arranged(heads, families, metrics[0], {
        pair: found.get((*pair, *place)) for pair in heads[["recipe", "score"]].itertuples(index=False, name=None)
        for place in overall}, headline)
    columns: dict[Column, Sequence[Cell | str]] = {
        Column("Training", numbers=False): [names.get(x, x) for x in heads["label"]],
        **({Column("Family", numbers=False): list(heads["family"])} if heads["family"].any() else {}),
        Column("Score", numbers=False): [names.get(x, x) for x in heads["score"]]}
    tested: list[tuple[str, ...]] = []
    untested: list[Seeds | None] = []
    counted_by = f" @{counting.rule}" if counting else ""  # the title says it
    for dataset, group, name in places:
        # A metric of the ID task that does not depend on the score stands under the empty score.
        seeds = [found.get((recipe, score, dataset, group, name),
                           found.get((recipe, "", dataset, group, name)) if group == "id" else None)
                 for recipe, score in zip(heads["recipe"], heads["score"], strict=True)]
        place = (*results[["id", "network"]].iloc[0], dataset, group, name)
        if tests and place in tests.leads:
            bold = {k for k, pair in enumerate(zip(heads["recipe"], heads["score"], strict=True))
                    if pair == tests.leads[place]}
            tested.append(place)
        else:
            bold = _best_of_task(seeds, list(heads["recipe"]), name) if group == "id" else best(seeds, metric(name))
            untested += seeds
        spreads = [found.get((recipe, score, dataset, group, spread_of(name)))
                   for recipe, score in zip(heads["recipe"], heads["score"], strict=True)]
        one = group not in ("id", AVERAGE)
        head = Column(label(name).replace(counted_by, ""), heading(dataset, group, names), group if one else "",
                      "" if one else "average", of=f"{group}/{dataset}")
        columns[head] = [number(name, s, k in bold, spread)
                         for k, (s, spread) in enumerate(zip(seeds, spreads, strict=True))]
    title = ", ".join(names.get(x, x) for x in results[["id", "network"]].iloc[0])
    said = counts(results[results["metric"].isin([*metrics, *id_metrics])], names, listed), rule(
        any(seeds is not None and seeds.n == 1 for seeds in untested), tests.over if tests and tested else "")
    if counting:
        title, said = f"{title}, counted as {counting.rule}", (counting.says, *said)
    return table(title, f"{title}. Mean ± sample standard deviation over seeds. {' '.join(said)}", columns, after=said,
                 folded=tuple(heads["folded"]) if heads["folded"].any() else ())


def _best_of_task(column: Sequence[Seeds | None], recipes: Sequence[str], name: str) -> set[int]:
    """Rows in bold of the ID task: recipes compete, not scores, where a recipe's scores all share one number."""
    first = {recipe: column[recipes.index(recipe)] for recipe in recipes}
    if any(seeds != first[recipe] for seeds, recipe in zip(column, recipes, strict=True)):
        return best(column, metric(name))
    winners = best(list(first.values()), metric(name))
    chosen = [recipe for k, recipe in enumerate(first) if k in winners]
    return {k for k, recipe in enumerate(recipes) if recipe in chosen}


def heading(dataset: str, group: str, names: Mapping[str, str]) -> str:
    """A column's title: the set, ``mean of near`` for an average, ``ID task``."""
    if group == "id":
        return "ID task"
    name = dataset if dataset == "all" and group == AVERAGE else names.get(dataset, dataset)
    return f"mean of {name}" if group == AVERAGE else name


def counts(results: pd.DataFrame, names: Mapping[str, str], listed: Mapping[str, int]) -> str:
    """One sentence: how many images of each set, how many its list (``listed``) has where it lacks some, the seeds."""

    def images(name: str, n: float) -> str:
        if pd.isna(n):
            return "not counted"
        return f"{n} of the {listed[name]} of its list" if n < listed.get(name, 0) else str(n)

    sets = results[~results["group"].isin(["id", AVERAGE])].groupby(["group", "dataset"], sort=False)["n_ood"].max()
    order = list(dict.fromkeys(group for group, _ in sets.index))
    each = [f"{names.get(name, name)} ({group}) {images(name, n)}"
            for (group, name), n in sorted(sets.items(), key=lambda item: order.index(item[0][0]))]
    n_id, seeds = results["n_id"].dropna(), seeds_of(results)
    id = results["id"].iloc[0]
    return (f"Images: {names.get(id, id)} (ID) {'not counted' if n_id.empty else images(id, n_id.iloc[0])}; "
            f"{', '.join(each) or 'no OOD set'}. Seeds ({len(seeds)}): {', '.join(map(str, seeds)) or 'none'}.")


def rule(one_seed: bool, over: str = "") -> str:
    """What bold means. ``one_seed``: a number without a test rests on one, so that nothing can be said about noise;
    ``over``: what the paired tests of AUROC and FPR95 vary, where there are such."""
    others = ("the best number of its column, since how much another seed changes it is not known" if one_seed else
              "better than every other number of its column in a t-test over seeds, paired by seed")
    if over != "images":
        return (f"One seed: bold is only {others}." if one_seed else
                f"Bold: {others} (two-sided, 5 %); no bold: no clear best.")
    return ("Bold: AUROC and FPR95 better than every other number of their column on the same images, for each seed's "
            f"network (DeLong's test and the bootstrap, two-sided, 5 %); other columns: {others}; "
            "no bold: no clear best.")
