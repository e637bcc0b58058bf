"""Results laid out as tables, apart from how they are printed: Markdown here, HTML in the page's template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workflow_scripts.reporting.results import AVERAGE, DEFAULT_ID_METRICS, DEFAULT_METRICS, Result
from workflow_scripts.reporting.statistics import Seeds, best, metric, show


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    metric: str
    seeds: Seeds | None
    best: bool = False

    @property
    def text(self) -> str:
        return show(self.seeds, self.metric)

    @property
    def missing(self) -> bool:
        return self.seeds is None or not self.seeds.n

    @property
    def sort(self) -> str:
        """The number to sort by; empty where there is none."""
        return "" if self.missing else repr(self.seeds.mean)

    @property
    def detail(self) -> str:
        """Each seed's value, for a tooltip."""
        scale = metric(self.metric).scale
        return ", ".join(f"seed {seed}: " + ("missing" if v is None else f"{v * scale:.2f}".replace("nan", "NaN"))
                         for seed, v in (self.seeds.values if self.seeds else ()))


@dataclass(frozen=True)
class Column:
    """A set, an average over sets, or the ID task, with the metrics shown under it."""

    dataset: str
    group: str
    metrics: tuple[str, ...]
    n_ood: int | None = None


@dataclass(frozen=True)
class Row:
    """One score of one recipe; ``cells[i][j]`` belongs to ``columns[i].metrics[j]``."""

    recipe: str
    label: str
    score: str
    cells: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """One ID set and network: rows = recipe and score, columns = sets, averages and the ID task."""

    id: str
    network: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    n_id: int | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that the table was asked for."""
        return tuple(sorted({seed for row in self.rows for cells in row.cells for cell in cells if cell.seeds
                             for seed, _ in cell.seeds.values}))

    @property
    def one_seed(self) -> bool:
        """Whether a number in it rests on one seed, so that nothing can be said about noise."""
        return any(cell.seeds is not None and cell.seeds.n == 1
                   for row in self.rows for cells in row.cells for cell in cells)

    @property
    def rule(self) -> str:
        """One sentence: what bold means in this table."""
        if self.one_seed:
            return "One seed: bold is only the best number of its column; how much a seed changes it is not known."
        return ("Bold: best of its column by more than twice the larger standard deviation over seeds (and at least "
                "0.1); no bold: no clear best.")


def columns_of(results: Sequence[Result], metrics: Sequence[str], id_metrics: Sequence[str]) -> tuple[Column, ...]:
    """The columns for results of one ID set and network: sets by group, averages over several sets, the ID task."""
    sets: dict[tuple[str, str], int | None] = {}
    for r in results:
        if r.group not in ("id", AVERAGE):
            key = (r.dataset, r.group)
            sets[key] = sets.get(key) or r.n_ood
    sizes: dict[str, int] = {"all": len(sets)}
    for _, group in sets:
        sizes[group] = sizes.get(group, 0) + 1
    groups = [g for g in sizes if g != "all"]
    shown = tuple(metrics)
    columns = [Column(dataset, group, shown, n) for g in groups for (dataset, group), n in sets.items() if group == g]
    if len(groups) > 1:
        columns += [Column(g, AVERAGE, shown) for g in groups if sizes[g] > 1]
    if sizes["all"] > 1:
        columns.append(Column("all", AVERAGE, shown))
    if results and id_metrics:
        columns.append(Column(results[0].id, "id", tuple(id_metrics)))
    return tuple(columns)


def tables(results: Iterable[Result], metrics: Sequence[str] = DEFAULT_METRICS,
           id_metrics: Sequence[str] = DEFAULT_ID_METRICS) -> list[Table]:
    """One table per ID set and network, in the order of ``results``; test sets as released have one of their own."""
    by_network: dict[tuple[str, str], list[Result]] = {}
    for r in (r for r in results if not r.other_sets):
        by_network.setdefault(r.network_key, []).append(r)
    return [_table(group, metrics, id_metrics) for group in by_network.values()]


def _table(results: list[Result], metrics: Sequence[str], id_metrics: Sequence[str]) -> Table:
    columns = columns_of(results, metrics, id_metrics)
    found = {(r.recipe, r.score, r.dataset, r.group, r.metric): r.seeds for r in results}
    heads = list(dict.fromkeys((r.recipe, r.label, r.score) for r in results if r.group != "id"))
    # A metric of the ID task that does not depend on the score stands under the empty score.
    grid = [[[found.get((recipe, score, c.dataset, c.group, m))
              or (found.get((recipe, "", c.dataset, c.group, m)) if c.group == "id" else None)
              for m in c.metrics] for c in columns] for recipe, _, score in heads]
    rows = []
    marks = {(i, j): _marks(grid, heads, i, j, column.group, name)
             for i, column in enumerate(columns) for j, name in enumerate(column.metrics)}
    for k, head in enumerate(heads):
        cells = tuple(tuple(Cell(name, grid[k][i][j], k in marks[i, j]) for j, name in enumerate(column.metrics))
                      for i, column in enumerate(columns))
        rows.append(Row(*head, cells))
    return Table(results[0].id, results[0].network, columns, tuple(rows),
                 next((r.n_id for r in results if r.n_id), None))


def _marks(grid: list, heads: list, i: int, j: int, group: str, name: str) -> set[int]:
    """Rows in bold. On the ID task recipes compete, not scores, where a recipe's scores all share one number."""
    column = [row[i][j] for row in grid]
    if group != "id":
        return best(column, metric(name))
    first: dict[str, int] = {}
    for k, (recipe, _, _) in enumerate(heads):
        first.setdefault(recipe, k)
    if any(column[k] != column[first[head[0]]] for k, head in enumerate(heads)):
        return best(column, metric(name))
    winners = best([column[k] for k in first.values()], metric(name))
    chosen = {recipe for position, recipe in enumerate(first) if position in winners}
    return {k for k, head in enumerate(heads) if head[0] in chosen}


def heading(column: Column, names: dict[str, str]) -> str:
    """A column's title: the set, ``mean of near`` for an average, ``ID`` for the ID task."""
    if column.group == "id":
        return "ID task"
    name = names.get(column.dataset, column.dataset)
    return {"all": "mean of all"}.get(column.dataset, f"mean of {name}") if column.group == AVERAGE else name


def markdown(table: Table, names: dict[str, str]) -> str:
    """A table in Markdown, its counts and the rule for bold below it. ``names`` maps names to what is printed."""
    def name(key: str) -> str:
        return names.get(key, key).replace("|", r"\|")

    def print_cell(cell: Cell) -> str:
        return f"**{cell.text}**" if cell.best else cell.text

    heads = ["Training", "Score"]
    for column in table.columns:
        labels = " / ".join(f"{metric(m).label} {metric(m).arrow}".strip() for m in column.metrics)
        heads.append(f"{heading(column, names)}<br>{labels}".replace("|", r"\|"))
    lines = [f"### {name(table.id)}, {name(table.network)}", "",
             "| " + " | ".join(heads) + " |", "|:--|:--|" + "--:|" * len(table.columns)]
    lines += ["| " + " | ".join([name(row.label), name(row.score),
                                 *(" / ".join(map(print_cell, cells)) for cells in row.cells)]) + " |"
              for row in table.rows]
    return "\n".join([*lines, "", counts(table, names), "", table.rule, ""])


def counts(table: Table, names: dict[str, str]) -> str:
    """One sentence: how many images of each set, how many seeds."""
    sets = [f"{names.get(c.dataset, c.dataset)} ({c.group}) {'not counted' if c.n_ood is None else c.n_ood}"
            for c in table.columns if c.group not in ("id", AVERAGE)]
    n_id = "not counted" if table.n_id is None else table.n_id
    seeds = ", ".join(map(str, table.seeds)) or "none"
    return (f"Images: {names.get(table.id, table.id)} (ID) {n_id}; {', '.join(sets) or 'no OOD set'}. "
            f"Seeds ({len(table.seeds)}): {seeds}.")
