"""From one metrics file per trained network to one frame of results over seeds, and that frame as a tidy CSV.

A frame of results has a row for each metric of each score on each set, on each average over sets, and on the ID task:

``id``, ``network``, ``recipe``, ``label``, ``score``
    what was measured; ``score`` is empty where a metric of the ID task does not depend on it;
``dataset``, ``group``
    the set and the configuration's group of it (``near``, ``far``), or ``near``, ``far``, ``all`` in the group
    ``average``, or the ID set in the group ``id``. Test sets as a release takes them stand in groups such as
    ``far+2g-1``; ``all+2g-1`` averages over these and the sets of the groups that it leaves as they are;
``metric``, ``seeds``, ``n_id``, ``n_ood``
    its name, its :class:`Seeds` (fractions), the images behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.reporting.inputs import DEFAULT_ID_METRICS, DEFAULT_METRICS, Run
from workflow_scripts.reporting.statistics import Seeds, average, is_spread

METRICS_HEADER = ["score", "dataset", "group", "metric", "value", "n_id", "n_ood"]
OF_ERRORS = {"aupr_error", "aupr_correct", "auroc_correct", "fpr95_error"}  # undefined without a misclassified image
AVERAGE = "average"  # the group of rows that average over sets
NETWORK = ["id", "network", "recipe", "label"]
QUANTITY = ["score", "dataset", "metric"]
COLUMNS = [*NETWORK, "score", "dataset", "group", "metric", "seeds", "n_id", "n_ood"]
HEADER = [*COLUMNS[:8], "mean", "std", "n", "n_id", "n_ood", "values"]


def read_frame(path: str | Path, header: Sequence[str], mend: str) -> pd.DataFrame:
    """A CSV as a frame of text.

    Raises:
        OODError: columns of ``header`` are not in it; ``mend`` says what to do.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame()
    except pd.errors.ParserError as error:
        raise OODError(f"{path}: expected a CSV, cannot read it ({error}); {mend}") from None
    if not set(header) <= set(frame):
        raise OODError(f"{path}: expected the columns {','.join(header)}, found {list(frame)}; {mend}")
    return frame


def read_metrics(path: str | Path) -> pd.DataFrame:
    """A metrics file; an empty value is NaN.

    Raises:
        OODError: another header, or a value or count that is not a number.
    """
    mend = "delete the file and run again"
    rows = read_frame(path, METRICS_HEADER, mend)
    numbers = ["value", "n_id", "n_ood"]
    for line, found in enumerate(rows[numbers].itertuples(index=False), start=2):
        try:
            float(found.value or "nan"), int(found.n_id), int(found.n_ood)
        except (TypeError, ValueError):
            raise OODError(f"{path}, line {line}: expected a number in value, n_id and n_ood, found "
                           f"{', '.join(map(repr, found))}; {mend}") from None
    rows["value"] = [float(value or "nan") for value in rows["value"]]
    return rows.astype({"n_id": int, "n_ood": int}).drop_duplicates(QUANTITY, keep="last")


def collect(runs: Sequence[Run], metrics: Sequence[str] = DEFAULT_METRICS,
            id_metrics: Sequence[str] = DEFAULT_ID_METRICS) -> pd.DataFrame:
    """All results of a paper's runs, in their order.

    Each score of each run is listed on each set of its groups for each metric that any run has of that score (and those
    of ``metrics`` and ``id_metrics``), so that what is missing has a row that says so. A run whose metrics file is not
    there counts as missing, so that a partial run still gives a table.

    Raises:
        OODError: a seed is listed twice, seeds differ in their test images, or a metrics file cannot be read.
    """
    networks: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        others = networks.setdefault((run.id, run.network, run.recipe), [])
        if run.seed in [other.seed for other in others]:
            raise OODError(f"--config.runs: expected each seed once, found seed {run.seed} of "
                           f"{run.id}/{run.network}/{run.recipe} again; take one out")
        others.append(run)
    measured = {key: _measured(of) for key, of in networks.items()}
    wanted: dict[str, dict[str, None]] = {}
    for key, of in networks.items():
        sets = {name for run in of for names in run.groups.values() for name in names}
        for score in dict.fromkeys(score for run in of for score in run.scores):
            there = measured[key].loc[measured[key]["dataset"].isin(sets) & (measured[key]["score"] == score), "metric"]
            wanted[score] = wanted.get(score, dict.fromkeys(metrics)) | dict.fromkeys(there)
    parts = [_network(of, measured[key], wanted, id_metrics) for key, of in networks.items()]
    results = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    return results.astype({"n_id": "Int64", "n_ood": "Int64"})


def _measured(runs: Sequence[Run]) -> pd.DataFrame:
    """The metrics files of one recipe's seeds as one frame, with the column ``seed``.

    Raises:
        OODError: seeds that were tested on different images.
    """
    files = [read_metrics(run.metrics).assign(seed=run.seed) for run in runs
             if run.metrics and Path(run.metrics).is_file()]
    frame = pd.concat(files) if files else pd.DataFrame(columns=[*METRICS_HEADER, "seed"])
    counts = frame.groupby(QUANTITY, sort=False)[["n_id", "n_ood"]].agg(["min", "max"])
    for name in ("n_id", "n_ood"):
        other = counts[name][counts[name, "min"] != counts[name, "max"]]
        if len(other):
            score, dataset, _ = other.index[0]
            raise OODError(f"{runs[0].id}/{runs[0].network}/{runs[0].recipe}: expected the same test images for every "
                           f"seed, found {name} from {other.iloc[0, 0]} to {other.iloc[0, 1]} for score '{score}' on "
                           f"'{dataset}'; delete the metrics of these seeds and run again")
    return frame


def _network(runs: Sequence[Run], measured: pd.DataFrame, wanted: Mapping[str, Iterable[str]],
             id_metrics: Sequence[str]) -> pd.DataFrame:
    """All results of one recipe of a network: each score on each set, the averages, then the ID task.

    ``wanted``: score -> its metrics of the OOD task.
    """
    scores = list(dict.fromkeys(score for run in runs for score in run.scores))
    groups = list(dict.fromkeys(group for run in runs for group in run.groups))
    sets = dict.fromkeys((name, group) for group in groups for run in runs for name in run.groups.get(group, ()))
    pairs = [(score, metric) for score in scores for metric in wanted[score]]
    ood = pd.DataFrame([(*pair, name) for pair in pairs for name in sets], columns=["score", "metric", "set"])
    ood[["dataset", "group"]] = ood["set"].to_list() or pd.DataFrame(columns=[0, 1])
    ood = _over_seeds(ood, measured, runs)
    single = ood[~ood["metric"].map(is_spread).astype(bool)]  # spreads of several sets have no mean
    means = [part.groupby(["score", "metric", "group"], sort=False, as_index=False)["seeds"].agg(average)
             .rename(columns={"group": "dataset"}).assign(group=AVERAGE)
             for part in (single, *(single[single["group"].isin(of)].assign(group=name)
                                    for name, of in averaged_groups(groups).items())) if len(part)]
    order = {pair: place for place, pair in enumerate(pairs)}
    ood = pd.concat([ood, *means], ignore_index=True)
    ood = ood.iloc[sorted(range(len(ood)), key=[order[pair] for pair in zip(
        ood["score"], ood["metric"], strict=True)].__getitem__)]
    id = runs[0].id
    task = measured.loc[(measured["dataset"] == id) & measured["score"].isin([*scores, "", "-"]), QUANTITY]
    lacking = [("", id, metric) for metric in id_metrics if metric not in set(task["metric"])]
    task = pd.concat([task, pd.DataFrame(lacking, columns=QUANTITY)]).drop_duplicates().assign(group="id")
    task = _over_seeds(task, measured, runs).replace({"score": {"-": ""}})
    return pd.concat([ood, task]).assign(**{key: getattr(runs[0], key) for key in NETWORK})[COLUMNS]


def averaged_groups(groups: Sequence[str]) -> dict[str, list[str]]:
    """The groups that averages over all sets take: ``all`` those of the configuration, ``all+2g-1`` the same, each as
    that ending has it where it changes it."""
    plain = [group for group in groups if "+" not in group]
    endings = dict.fromkeys(group[group.index("+"):] for group in groups if "+" in group)
    return {f"all{ending}": [group + ending if group + ending in groups else group for group in plain]
            for ending in ("", *endings)}


def _over_seeds(quantities: pd.DataFrame, measured: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """``quantities`` with their values over the seeds of ``runs``, and their counts of images."""
    wide = measured.pivot(index=QUANTITY, columns="seed", values=["value", "n_id", "n_ood"]).reindex(
        index=pd.MultiIndex.from_frame(quantities[QUANTITY]),
        columns=pd.MultiIndex.from_product([["value", "n_id", "n_ood"], [run.seed for run in runs]])).astype(float)
    there = wide["n_id"].notna()  # a value of NaN was computed, but is no number
    values = wide["value"].astype(object).where(there, None)
    return quantities.assign(seeds=[Seeds(tuple(zip(values, row, strict=True))) for row in values.to_numpy().tolist()],
                             **{name: wide[name].max(axis=1).to_numpy() for name in ("n_id", "n_ood")})


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    """A frame as CSV: floats with all their digits, empty where there is no number."""
    with atomic(path) as partial:
        frame.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")


def write(path: str | Path, results: pd.DataFrame) -> None:
    """The tidy table: :data:`HEADER`, where ``values`` has each seed's; one seed has no std."""
    write_csv(path, results.assign(**statistics(results["seeds"]), values=[s.text() for s in results["seeds"]])[HEADER])


def statistics(column: pd.Series) -> dict[str, list]:
    """``mean``, ``std`` and ``n`` of a column of :class:`Seeds`; ``None`` where there is no number."""
    return {name: [getattr(seeds or Seeds(()), name) for seeds in column] for name in ("mean", "std", "n")}


def read(path: str | Path) -> pd.DataFrame:
    """The inverse of :func:`write`.

    Raises:
        OODError: another header, or a row that cannot be read.
    """
    frame = read_frame(path, HEADER, "make it with python -m workflow_scripts.stages.make_tables")
    try:
        frame["seeds"] = [Seeds.parse(text) for text in frame["values"]]
        return frame[COLUMNS].assign(**{name: pd.to_numeric(frame[name]).astype("Int64") for name in ("n_id", "n_ood")})
    except (TypeError, ValueError) as error:
        raise OODError(f"{path}: cannot be read ({error}); delete the file and run again") from None


def corrected(results: pd.DataFrame) -> pd.Series:
    """Whether rows belong to the corrected test sets, not to those taken as a release takes them (``far+2g-1``)."""
    return ~results["dataset"].where(results["group"] == AVERAGE, results["group"]).str.contains("+", regex=False)


def seeds_of(results: pd.DataFrame) -> list[int]:
    """The seeds that results were asked for."""
    return sorted({seed for seeds in results["seeds"] for seed, _ in seeds.values})


def gaps(results: pd.DataFrame) -> list[str]:
    """One sentence per score (or ID task) that lacks a number for some seed; sets and metrics joined.

    What only an error of the network defines (:data:`OF_ERRORS`) is no gap where each test image is right. A network
    without any number for a seed is one sentence.
    """
    lines: list[str] = []
    whole: dict[tuple[str, ...], set[int]] = {}
    for key, rows in results.groupby(["id", "network", "label"], sort=False):
        there = {seed for seeds in rows["seeds"] for seed, value in seeds.values if value is not None}
        whole[key] = {seed for seeds in rows["seeds"] for seed, _ in seeds.values} - there
        if whole[key]:
            lines.append(f"{' / '.join(key)}: nothing for seed{'s' if len(whole[key]) > 1 else ''} "
                         f"{', '.join(map(str, sorted(whole[key])))}")
    right = results[(results["metric"] == "accuracy") & results["seeds"].map(lambda seeds: 1.0 in seeds.finite)]
    faultless = set(right[NETWORK[:3]].itertuples(index=False, name=None))
    missing: dict[tuple[str, ...], dict[str, None]] = {}
    for row in results[results["group"] != AVERAGE].itertuples():
        of_errors = row.group == "id" and row.metric.partition("@")[0] in OF_ERRORS
        if of_errors and (row.id, row.network, row.recipe) in faultless:
            continue
        key = row.id, row.network, row.label
        for phrase in Seeds(tuple(pair for pair in row.seeds.values if pair[0] not in whole[key])).gaps:
            missing.setdefault((" / ".join(key), row.score, row.dataset, phrase), {})[row.metric] = None
    sets: dict[tuple[str, ...], list[str]] = {}
    for (where, score, dataset, phrase), names in missing.items():
        sets.setdefault((where, score, phrase, ", ".join(names)), []).append(dataset)
    return lines + [f"{where}, {f'{score} on ' if score else ''}{', '.join(datasets)}: {phrase} ({names})"
                    for (where, score, phrase, names), datasets in sets.items()]
