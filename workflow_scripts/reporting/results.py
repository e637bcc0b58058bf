"""From one metrics file per trained network to one tidy list of results over seeds, and that list as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.reporting.inputs import need
from workflow_scripts.reporting.statistics import Seeds, average

METRICS_HEADER = ["score", "dataset", "group", "metric", "value", "n_id", "n_ood"]
OF_ERRORS = {"aupr_error", "aupr_correct", "auroc_correct", "fpr95_error"}  # undefined without a misclassified image
AVERAGE = "average"  # the group of rows that average over sets
HEADER = ["id", "network", "recipe", "label", "score", "dataset", "group", "metric", "mean", "std", "n", "n_id",
          "n_ood", "values"]


@dataclass(frozen=True)
class Result:
    """One metric of one score on one set (or an average over sets), over seeds. Values are fractions."""

    id: str
    network: str
    recipe: str
    label: str
    score: str
    dataset: str
    """The set, or ``near``, ``far``, ``all`` where ``group`` is ``average``."""
    group: str
    """``id``, ``near``, ``far`` (the config's groups) or ``average``."""
    metric: str
    seeds: Seeds
    n_id: int | None
    n_ood: int | None

    @property
    def other_sets(self) -> bool:
        """Whether it belongs to test sets taken as a release takes them (``far+2g-1``), beside the corrected ones."""
        return "+" in (self.dataset if self.group == AVERAGE else self.group)

    @property
    def network_key(self) -> tuple[str, str]:
        return self.id, self.network


@dataclass
class Trained:
    """One recipe of one network on one ID set: its config over seeds, and what its metrics files hold."""

    id: str
    network: str
    recipe: str
    label: str
    scores: list[str] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    seeds: dict[int, dict[tuple[str, str, str], tuple[float, int, int]] | None] = field(default_factory=dict)


def read_metrics(path: str | Path) -> dict[tuple[str, str, str], tuple[float, int, int]]:
    """A metrics file as ``(score, dataset, metric) -> (value, n_id, n_ood)``; an empty value is NaN.

    Raises:
        OODError: another header, or a value or count that is not a number.
    """
    rows: dict[tuple[str, str, str], tuple[float, int, int]] = {}
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or not set(METRICS_HEADER) <= set(reader.fieldnames):
            raise OODError(f"{path}: expected the columns {','.join(METRICS_HEADER)}, found {reader.fieldnames}; "
                           "delete the file and run again")
        for row in reader:
            try:
                rows[row["score"], row["dataset"], row["metric"]] = (
                    float(row["value"] or "nan"), int(row["n_id"]), int(row["n_ood"]))
            except (TypeError, ValueError):
                raise OODError(f"{path}, line {reader.line_num}: expected a number in value, n_id and n_ood, found "
                               f"{row['value']!r}, {row['n_id']!r}, {row['n_ood']!r}; delete the file and run again"
                               ) from None
    return rows


def read_runs(config: dict[str, Any]) -> list[Trained]:
    """The config's ``runs``, one :class:`Trained` per (id, network, recipe), with their metrics files read.

    A run whose metrics file is null or not there counts as missing, so that a partial run still gives a table.

    Raises:
        OODError: a key of a run is missing or of another type, or a run is listed twice.
    """
    trained: dict[tuple[str, str, str], Trained] = {}
    for i, run in enumerate(need(config, "runs", list, "config")):
        where = f"config.runs[{i}]"
        names = [need(run, key, str, where) for key in ("id", "network", "recipe", "label")]
        entry = trained.setdefault(tuple(names[:3]), Trained(*names))
        seed = need(run, "seed", int, where)
        if seed in entry.seeds:
            raise OODError(f"{where}: expected each seed once, found seed {seed} of {'/'.join(names[:3])} again; "
                           "take one out")
        for score in need(run, "scores", (dict if isinstance(run.get("scores"), dict) else list), where):
            if score not in entry.scores:
                entry.scores.append(score)
        for group, sets in need(run, "groups", dict, where).items():
            known = entry.groups.setdefault(group, [])
            known.extend(s for s in sets if s not in known)
        path = run.get("metrics")
        entry.seeds[seed] = read_metrics(path) if path and Path(path).is_file() else None
    return list(trained.values())


def _seeds(run: Trained, key: tuple[str, str, str]) -> tuple[Seeds, int | None, int | None]:
    """One quantity of ``run`` over its seeds, and its counts, which must agree between seeds."""
    found = {seed: rows.get(key) if rows is not None else None for seed, rows in run.seeds.items()}
    counts = {row[1:] for row in found.values() if row is not None}
    if len(counts) > 1:
        raise OODError(f"{run.id}/{run.network}/{run.recipe}: expected the same test images for every seed, found "
                       f"(n_id, n_ood) = {sorted(counts)} for score '{key[0]}' on '{key[1]}'; delete the metrics of "
                       "these seeds and run again")
    n_id, n_ood = counts.pop() if counts else (None, None)
    return Seeds(tuple((seed, row[0] if row is not None else None) for seed, row in found.items())), n_id, n_ood


def _results(run: Trained, ood_metrics: list[str], id_metrics: list[str]) -> Iterator[Result]:
    """All results of one trained network: each score on each set, the averages, then the ID task."""
    name = (run.id, run.network, run.recipe, run.label)
    groups = {group: sets for group, sets in run.groups.items() if sets}
    for score in run.scores:
        for metric in ood_metrics:
            per_set: dict[str, Seeds] = {}
            for group, sets in groups.items():
                for dataset in sets:
                    seeds, n_id, n_ood = _seeds(run, (score, dataset, metric))
                    per_set[dataset] = seeds
                    yield Result(*name, score, dataset, group, metric, seeds, n_id, n_ood)
            everything = [name for group, sets in groups.items() if "+" not in group for name in sets]
            for group, sets in {**groups, "all": everything}.items():
                if sets:
                    yield Result(*name, score, group, AVERAGE, metric, average([per_set[s] for s in sets]), None, None)
    there = dict.fromkeys(key for rows in run.seeds.values() for key in rows or () if key[1] == run.id)
    keys = [key for key in there if key[0] in run.scores or key[0] in ("", "-")]
    keys += [("", run.id, m) for m in id_metrics if not any(key[2] == m for key in keys)]
    for score, dataset, metric in keys:
        seeds, n_id, n_ood = _seeds(run, (score, dataset, metric))
        yield Result(*name, "" if score == "-" else score, dataset, "id", metric, seeds, n_id, n_ood)


def collect(config: dict[str, Any]) -> list[Result]:
    """All results of a paper's runs, in the config's order.

    Each score of each run is listed on each set of its groups for each metric that any run has (and those that
    ``config["metrics"]`` asks for), so that what is missing has a row that says so.
    """
    runs = read_runs(config)
    wanted = dict.fromkeys(config.get("metrics", DEFAULT_METRICS))
    for run in runs:
        sets = {s for group in run.groups.values() for s in group}
        wanted |= dict.fromkeys(key[2] for rows in run.seeds.values() for key in rows or () if key[1] in sets)
    id_metrics = config.get("id_metrics", DEFAULT_ID_METRICS)
    return [result for run in runs for result in _results(run, list(wanted), list(id_metrics))]


DEFAULT_METRICS = ("fpr95", "auroc")
DEFAULT_ID_METRICS = ("accuracy",)


def write_csv(path: str | Path, results: Iterable[Result]) -> None:
    """The tidy table. Fractions with all their digits; empty where there is no number; one seed has no std."""
    with atomic(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for r in results:
            numbers = ["" if v is None else repr(v) for v in (r.seeds.mean, r.seeds.std)]
            counts = ["" if v is None else v for v in (r.n_id, r.n_ood)]
            writer.writerow([r.id, r.network, r.recipe, r.label, r.score, r.dataset, r.group, r.metric, *numbers,
                             r.seeds.n, *counts, r.seeds.text()])


def read_csv(path: str | Path) -> list[Result]:
    """The inverse of :func:`write_csv`.

    Raises:
        OODError: another header, or a row that cannot be read.
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != HEADER:
            raise OODError(f"{path}: expected the columns {','.join(HEADER)}, found {reader.fieldnames}; make it with "
                           "python -m workflow_scripts.stages.make_tables")
        try:
            return [Result(r["id"], r["network"], r["recipe"], r["label"], r["score"], r["dataset"], r["group"],
                           r["metric"], Seeds.parse(r["values"]), *(int(r[c]) if r[c] else None for c in HEADER[11:13]))
                    for r in reader]
        except (TypeError, ValueError) as error:
            raise OODError(f"{path}, line {reader.line_num}: cannot be read ({error}); delete the file and run again"
                           ) from None


def gaps(results: Iterable[Result]) -> list[str]:
    """One sentence per score (or ID task) that lacks a number for some seed; sets and metrics joined.

    What only an error of the network defines (:data:`OF_ERRORS`) is no gap where each test image is right. A network
    without any number for a seed is one sentence.
    """
    results = list(results)
    ran: dict[tuple[str, ...], dict[int, bool]] = {}
    for r in results:
        seeds = ran.setdefault((r.id, r.network, r.label), {})
        for seed, value in r.seeds.values:
            seeds[seed] = seeds.get(seed, False) or value is not None
    whole = {key: [seed for seed, there in seeds.items() if not there] for key, seeds in ran.items()}
    lines = [f"{' / '.join(key)}: nothing for seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
             for key, seeds in whole.items() if seeds]
    faultless = {(*r.network_key, r.recipe) for r in results if r.metric == "accuracy" and 1.0 in r.seeds.finite}
    missing: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for r in results:
        of_errors = r.group == "id" and r.metric.partition("@")[0] in OF_ERRORS
        if r.group == AVERAGE or of_errors and (*r.network_key, r.recipe) in faultless:
            continue
        kept = Seeds(tuple(pair for pair in r.seeds.values if pair[0] not in whole[r.id, r.network, r.label]))
        for phrase in kept.gaps:
            where = f"{r.id} / {r.network} / {r.label}"
            missing.setdefault((where, r.score, r.dataset, phrase), {})[r.metric] = None
    sets: dict[tuple[str, str, str, str], list[str]] = {}
    for (where, score, dataset, phrase), names in missing.items():
        sets.setdefault((where, score, phrase, ", ".join(names)), []).append(dataset)
    return lines + [f"{where}, {f'{score} on ' if score else ''}{', '.join(datasets)}: {phrase} ({names})"
                    for (where, score, phrase, names), datasets in sets.items()]
