"""Post-hoc scores of features and logits that any tool has computed, without a configuration.

    uv run ood score FEATURES.npz                                      which scores these arrays allow
    uv run ood score FEATURES.npz --scores knn,vim,./my_score.py       AUROC and FPR95 of each OOD set, in percent
    uv run ood score FEATURES.npz --scores knn --options knn.K=10 --out scored

The file holds arrays called {set}_features (N, D), {set}_logits (N, K) and {set}_labels (N,), where the set is `train`
(ID train images), `id` (ID test images) or any other name, which is an OOD set; and the last linear layer, head_weight
(K, D) and head_bias (K,). A score needs some of them, and what is missing is named. --out writes metrics.csv, table.tex
and one .npz for each score, with an array for each set. The same in Python, where the arrays are a mapping of names:

    from workflow_scripts import score
    table = score.table(arrays, ["msp", "knn", "vim"])    # a pandas frame: score, dataset, metric, value, n_id, n_ood
    print(score.latex(table))

Scores: higher = more in-distribution. Exit status: 0; 1 the arrays cannot be scored; 2 an AUROC is below 20, so that ID
and OOD sets may have been swapped (the numbers are printed all the same).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from workflow_scripts.core import own, plugins
from workflow_scripts.core.commands import described
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.metrics.confidence import id_metrics, predict
from workflow_scripts.metrics.ood import ood_metrics
from workflow_scripts.metrics.rows import Row, write
from workflow_scripts.reporting import layout, printing, results
from workflow_scripts.reporting.inputs import Run
from workflow_scripts.reporting.statistics import metric
from workflow_scripts.scores import base
from workflow_scripts.scores.foreign import Given, read
from workflow_scripts.scores.run import mover, run_on, score_set
from workflow_scripts.stages.import_scores import read as read_file
from workflow_scripts.stages.precompute_statistics import statistics

SHOWN = ("auroc", "fpr95")
OOD_GROUP = "ood"
SWAPPED = 0.2
"""AUROC below which ID and OOD sets may have been swapped."""
GIVE = {"head": "head_weight and head_bias", "statistics": "train_features and train_labels",
        "features": "features of every test set", "logits": "logits of every test set",
        **{f"train_{kind}": f"train_{kind}" for kind in ("features", "logits", "labels")}}
"""What a score may need -> the arrays that give it."""


class Chosen(NamedTuple):
    """A score with its options."""

    name: str
    module: Any
    options: Any
    needs: frozenset[str]


def choose(given: Given, name: str, options: Mapping[str, Any]) -> Chosen:
    """A score by the name of its module, or a file of your own.

    Raises:
        OODError: no such score, wrong options, or arrays that it needs and that are not given.
    """
    plugins.find("scores", name, "--scores")
    parsed = plugins.parse_options("scores", name, options, f"--options {name}")
    module = plugins.load("scores", name)
    needs = base.needs(module, parsed)
    lacking = sorted(needs - given.needs)
    if never := [need for need in lacking if need not in GIVE]:
        raise OODError(f"score '{name}' needs {', '.join(never)}, which arrays cannot give; the workflow computes it: "
                       "docs/own.md")
    if lacking:
        raise OODError(f"score '{name}' needs {', '.join(lacking)}; give {', '.join(GIVE[need] for need in lacking)}")
    return Chosen(Path(name).stem if own.is_file(name) else name, module, parsed, needs)


def allowed(given: Given) -> list[str]:
    """Names of the scores that these arrays allow, by what they declare."""
    return [name for name in plugins.names("scores") if plugins.spec("scores", name).needs <= given.needs]


def known(given: Given, needs: frozenset[str]) -> base.Known:
    """What is known before a test image is seen, as far as a score needs it."""
    members: dict[str, Any] = {}
    if "statistics" in needs:
        classes = given.head.weight.shape[0] if given.head else int(given.train.labels.max()) + 1
        members["statistics"] = base.Statistics(*statistics(given.train, classes))
    if "head" in needs:
        members["head"] = given.head
    members |= {need: given.train.file[need.removeprefix("train_")] for need in needs if need.startswith("train_")}
    return base.Known(**members)


def _scored(given: Given, names: Sequence[str],
            options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    if unused := options.keys() - set(names):
        raise OODError(f"--options: no score '{sorted(unused)[0]}' is asked for; asked for are {', '.join(names)}")
    chosen = [choose(given, name, options.get(name, {})) for name in names]
    found = {}
    for name, module, parsed, needs in chosen:
        run = run_on(module, parsed, known(given, needs))
        found[name] = {one.name: score_set(run, needs, one, name, mover("cpu")) for one in given.tests}
    return found


def scores(arrays: Mapping[str, Any], names: Sequence[str],
           options: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Scores of all test sets.

    Args:
        arrays: by name, as :mod:`workflow_scripts.scores.foreign` says.
        names: modules of ``workflow_scripts/scores``, or paths of files of your own.
        options: of a score, by its name in ``names``; what is left out has the default of docs/config.md.

    Returns:
        score -> set -> (N,) float64, higher = more in-distribution. The ID test set is called ``id``.

    Raises:
        OODError: arrays, a name or options that are not in order; one line.
    """
    return _scored(read(arrays), names, options or {})


def _rows(given: Given, found: Mapping[str, Mapping[str, np.ndarray]]) -> Iterator[Row]:
    """The metrics as in a metrics file of the workflow; those of the ID task where the labels are given."""
    task = predict(given.id.file["logits"]) if {"logits", "labels"} <= given.id.file.keys() else None
    for name, sets in found.items():
        if task is not None:
            for key, value in id_metrics(sets[given.id.name], task[0] == given.id.labels, task[1]).items():
                yield Row(name, given.id.name, "id", key, value, given.id.size, 0)
        for one in given.ood.values():
            for key, value in ood_metrics(sets[given.id.name], sets[one.name]).items():
                yield Row(name, one.name, OOD_GROUP, key, value, given.id.size, one.size)


def _table(given: Given, found: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    return pd.DataFrame(list(_rows(given, found)), columns=Row._fields)


def table(arrays: Mapping[str, Any], names: Sequence[str],
          options: Mapping[str, Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """Every metric of every score and OOD set, and those of the ID task where ``id_labels`` is given.

    Args: as of :func:`scores`.

    Returns:
        A frame with the columns of a metrics file: score, dataset, group, metric (str), value (float64, a fraction; ID
        is positive unless the metric's name says otherwise), n_id, n_ood (int64).

    Raises:
        OODError: as :func:`scores`.

    Warns:
        UserWarning: an AUROC is below 20 %.
    """
    given = read(arrays)
    made = _table(given, _scored(given, names, options or {}))
    for line in suspicions(made):
        warnings.warn(line, stacklevel=2)
    return made


def suspicions(made: pd.DataFrame) -> list[str]:
    """A sentence for each OOD set on which a score is so far below chance that ID and OOD may have been swapped."""
    low = made[(made["metric"] == "auroc") & (made["value"] < SWAPPED)]
    return [f"set {name}: AUROC {100 * rows['value'].min():.1f} by {rows.loc[rows['value'].idxmin(), 'score']}; have "
            f"ID and OOD been swapped? id_... are the ID test images, {name}_... OOD images"
            for name, rows in low.groupby("dataset", sort=False)]


def latex(made: pd.DataFrame, label: str = "Network") -> str:
    """A frame of :func:`table` as a LaTeX table like those of the workflow: a row per score, called ``label``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.csv"
        write(map(Row._make, made.itertuples(index=False, name=None)), path)
        sets = made.loc[made["group"] == OOD_GROUP, "dataset"].drop_duplicates().tolist()
        run = Run(id="id", network=label, recipe="", label=label, seed=0, metrics=str(path),
                  scores=made["score"].drop_duplicates().tolist(), groups={OOD_GROUP: sets})
        has_task = (made["metric"] == "accuracy").any()
        found = results.collect([run], id_metrics=["accuracy"] if has_task else [])
    laid_out, = layout.tables(found, id_metrics=["accuracy"] if has_task else [], names=labels())
    counts = made[made["group"] == OOD_GROUP].drop_duplicates("dataset")
    images = ", ".join(f"{row.dataset} {row.n_ood}" for row in counts.itertuples())
    said = f"In percent. Images: ID {counts['n_id'].iloc[0]}; {images}. Bold: the best number of its column."
    return printing.latex(replace(laid_out, caption=said))


def labels() -> dict[str, str]:
    """Printed names of scores, as the shipped configuration has them."""
    entries = yaml.safe_load((ROOT / "config" / "scores.yaml").read_text(encoding="utf-8"))["scores"]
    return {entry["name"]: entry["label"] for entry in entries if "label" in entry}


def text(made: pd.DataFrame) -> str:
    """The table for a terminal, in percent."""
    chosen = made[made["metric"].isin(SHOWN)]
    heads = {"dataset": "OOD set", "n_id": "ID images", "n_ood": "OOD images", "score": "score"}
    wide = chosen.pivot(index=list(heads), columns="metric", values="value").loc[:, list(SHOWN)] * 100
    wide = wide.loc[pd.MultiIndex.from_frame(chosen[list(heads)].drop_duplicates())].reset_index()
    heads |= {name: metric(name).label for name in SHOWN}
    return wide.rename(columns=heads).to_string(index=False, float_format="%.2f")


def given_options(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``knn.K=10`` -> ``{"knn": {"K": 10}}``. Raises OODError where a word is none of this form."""
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        place, equals, value = word.partition("=")
        name, dot, option = place.rpartition(".")
        if not (equals and dot and name and option):
            raise OODError(f"--options: expected SCORE.OPTION=VALUE such as knn.K=10, found '{word}'")
        found.setdefault(name, {})[option] = yaml.safe_load(value)
    return found


def save(folder: Path, made: pd.DataFrame, found: Mapping[str, Mapping[str, np.ndarray]], label: str) -> None:
    """Write metrics.csv, table.tex and the scores."""
    folder.mkdir(parents=True, exist_ok=True)
    results.write_csv(folder / "metrics.csv", made)
    with atomic(folder / "table.tex") as partial:
        partial.write_text(latex(made, label), encoding="utf-8")
    for name, sets in found.items():
        with atomic(folder / f"{name}.npz") as partial, partial.open("wb") as file:
            np.savez(file, **sets)


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("arrays", type=Path, metavar="FEATURES.npz", help="arrays by name; nothing of it is unpickled")
    words.add_argument("--scores", type=lambda text: [name for name in text.split(",") if name], default=[],
                       metavar="NAME,...", help="scores of docs/scores.md, or files of your own")
    words.add_argument("--options", nargs="+", default=[], metavar="SCORE.OPTION=VALUE", help="e.g. knn.K=10")
    words.add_argument("--label", default="Network", help="what table.tex calls the rows")
    words.add_argument("--out", type=Path, metavar="FOLDER", help="where metrics.csv, table.tex and scores are written")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point; leaves with the exit status above."""
    args = parser().parse_args(argv)
    if not args.arrays.is_file():
        raise OODError(f"{args.arrays}: there is no such file; np.savez(file, id_logits=..., ...) makes one")
    try:
        given = read(read_file(args.arrays))
    except OODError as error:
        raise OODError(str(error) if str(args.arrays) in str(error) else f"{args.arrays}: {error}") from None
    if not args.scores:
        print(f"{', '.join(one.name for one in given.tests)}: --scores can be {', '.join(allowed(given))}")
        return
    found = _scored(given, args.scores, given_options(args.options))
    made = _table(given, found)
    print(text(made))
    if args.out:
        save(args.out, made, found, args.label)
        print(f"written: {args.out}/metrics.csv, table.tex, {', '.join(f'{name}.npz' for name in found)}")
    if lines := suspicions(made):
        print(*(f"warning: {line}" for line in lines), sep="\n", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
