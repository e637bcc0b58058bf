"""The overview: a row per paper, ID set, network, training, score and average over OOD sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from workflow_scripts.reporting.layout import Cell, Column, Table, Tests, label, number, table
from workflow_scripts.reporting.results import AVERAGE, corrected, statistics, write_csv
from workflow_scripts.reporting.statistics import best, metric

OOD_METRICS = ("fpr95", "auroc", "aupr_in")
ID_METRICS = ("accuracy", "aurc")
METRICS = (*OOD_METRICS, *ID_METRICS)
WORDS = {"id": "ID set", "network": "Network", "training": "Training", "score": "Score", "sets": "OOD sets"}


def rows(results: pd.DataFrame, headline: str = "", tests: Tests | None = None) -> pd.DataFrame:
    """A paper's rows: the columns of :data:`WORDS`, ``headline`` (whether it is the score that the paper is about, or
    the first where it lacks that one), ``n`` (seeds with a number), the :class:`Seeds` of each of :data:`METRICS` and,
    as ``best {metric}``, whether they are best of the same network and sets, by ``tests`` where these have it. Test
    sets as released are left out."""
    found = results.set_index(["id", "network", "recipe", "score", "dataset", "group", "metric"])["seeds"].to_dict()
    heads = results.loc[(results["group"] == AVERAGE) & corrected(results),
                        ["id", "network", "dataset", "recipe", "label", "score"]].drop_duplicates()
    made = []
    for (id, network, sets), methods in heads.groupby(["id", "network", "dataset"], sort=False):
        block = methods.rename(columns={"label": "training", "dataset": "sets"})
        keys = [(id, network, recipe, score) for recipe, score in zip(block["recipe"], block["score"], strict=True)]
        for name in METRICS:
            if name in OOD_METRICS:
                block[name] = [found.get((*key, sets, AVERAGE, name)) for key in keys]
            else:
                block[name] = [found.get((*key, id, "id", name), found.get((*key[:3], "", id, "id", name)))
                               for key in keys]
            place = (id, network, sets, AVERAGE, name)
            if tests and place in tests.leads:
                bold = {k for k, key in enumerate(keys) if key[2:] == tests.leads[place]}
            else:
                bold = best(list(block[name]), metric(name)) if name != "accuracy" else set()  # scores share it
            block[f"best {name}"] = [k in bold for k in range(len(block))]
        first = headline if headline in set(block["score"]) else block["score"].iloc[0]
        made.append(block.assign(headline=block["score"] == first))
    if not made:
        return pd.DataFrame(columns=[*WORDS, "headline", "n", *METRICS, *(f"best {name}" for name in METRICS)])
    overview = pd.concat(made, ignore_index=True)
    return overview.assign(n=[max((s.n for s in of if s), default=0) for of in overview[[*METRICS]].to_numpy()])


def write(path: str | Path, overview: pd.DataFrame) -> None:
    """Fractions with all their digits; empty where there is no number, NaN, or one seed (std)."""
    columns = {"paper": overview["title"], **{key: overview[key] for key in WORDS},
               "headline": overview["headline"].map({True: "yes", False: "no"}), "n": overview["n"]}
    for name in METRICS:
        seeds = statistics(overview[name])
        columns |= {f"{name}_mean": seeds["mean"], f"{name}_std": seeds["std"]}
    write_csv(path, pd.DataFrame(columns))


def laid_out(overview: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """The overview as a table."""
    columns: dict[Column, list[Cell | str]] = {Column("Paper", numbers=False): [
        Cell(row.paper, detail=row.title, link=row.anchor) for row in overview.itertuples()]}
    for key, title in WORDS.items():
        same = "same" if key in ("id", "network") and overview[key].nunique() < 2 else ""
        columns[Column(title, style=same, numbers=False)] = [names.get(x, x) for x in overview[key]]
    for name in METRICS:
        columns[Column(label(name))] = [number(name, seeds, bold) for seeds, bold in zip(
            overview[name], overview[f"best {name}"], strict=True)]
    columns[Column("n")] = [Cell(str(n), n) for n in overview["n"]]
    keys = [{"paper": row.title, "id": row.id, "network": row.network, "sets": row.sets}
            for row in overview.itertuples()]
    caption = "Averages over OOD sets, mean ± sample standard deviation over n seeds."
    return table("", caption, columns, keys=tuple(keys))
