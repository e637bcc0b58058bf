"""Options of scores chosen three ways, side by side: as configured, without OOD images, on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from workflow_scripts.reporting.comparison import Pair
from workflow_scripts.reporting.families import arranged
from workflow_scripts.reporting.inputs import DEFAULT_METRICS, TunedScore, Way
from workflow_scripts.reporting.layout import Cell, Column, Table, label, number, table
from workflow_scripts.reporting.results import AVERAGE, NETWORK

WAYS: dict[Way, str] = {"id_only": "without OOD images", "validation": "on validation images"}
"""Ways to choose, as the table calls them."""


def main(results: pd.DataFrame, tuned: Sequence[TunedScore]) -> pd.DataFrame:
    """The results of scores as they are configured, which all other tables and figures are of."""
    return results[~results["score"].isin([one.name for one in tuned])]


def laid_out(results: pd.DataFrame, tuned: Sequence[TunedScore], names: Mapping[str, str],
             families: Mapping[str, str] | None = None) -> list[Table]:
    """A table for each ID set and network, a row for each training and score, none where nothing was chosen; means over
    all OOD sets, and what choosing changes over the seeds that both have."""
    found = results.set_index([*NETWORK, "score", "dataset", "group", "metric"])["seeds"].to_dict()
    ways = [way for way in WAYS if way in {one.way for one in tuned}]
    by_base = {base: {one.way: one.name for one in tuned if one.base == base} for base in
               dict.fromkeys(one.base for one in tuned)}
    tables = []
    for (id, network), rows in results.groupby(["id", "network"], sort=False):
        heads = [(*run, base) for run in rows[NETWORK].drop_duplicates().itertuples(index=False, name=None)
                 for base in by_base if ((rows["score"] == base) & (rows["recipe"] == run[2])).any()]
        if not heads:
            continue
        configured = {head[2::2]: found.get((*head[:4], head[4], "all", AVERAGE, DEFAULT_METRICS[0])) for head in heads}
        order = arranged(pd.DataFrame([head[2::2] for head in heads], columns=["recipe", "score"]), families or {},
                         DEFAULT_METRICS[0], configured)
        heads = [heads[place] for place in order.index]
        columns: dict[Column, list[Cell | str]] = {
            Column("Training", numbers=False): [names.get(head[3], head[3]) for head in heads],
            **({Column("Family", numbers=False): list(order["family"])} if order["family"].any() else {}),
            Column("Score", numbers=False): [names.get(head[4], head[4]) for head in heads]}
        for metric in DEFAULT_METRICS:
            def seeds(head: tuple[str, ...], score: str | None, metric: str = metric) -> object:
                return found.get((*head[:4], score, "all", AVERAGE, metric))

            group = label(metric)
            columns[Column("as configured", group, of="configured")] = [
                number(metric, seeds(head, head[4])) for head in heads]
            for way in ways:
                pairs = [Pair(metric, seeds(head, head[4]), seeds(head, by_base[head[4]].get(way))) for head in heads]
                columns[Column(WAYS[way], group, of=way)] = [number(metric, pair.released) for pair in pairs]
                columns[Column("change", group, of=way)] = [
                    Cell(pair.text, pair.difference.mean if pair.text else None) for pair in pairs]
        place = f"{names.get(id, id)}, {names.get(network, network)}"
        tables.append(table(
            f"Options chosen: {place}", f"Options of scores chosen three ways: {place}.", columns,
            folded=tuple(order["folded"]) if order["folded"].any() else (), before=(
                "Means over all OOD test sets, which no choice has seen. As configured: the options of the "
                "configuration or the score's defaults. Without OOD images: those that are best on ID train images "
                "against pseudo-OOD copies of them. On validation images: those that are best on ID and OOD validation "
                "images. The chosen options of each network are in sweep/.",)))
    return tables
