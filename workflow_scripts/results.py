"""All numbers of a run as one long table, a row for each value: for pandas, R, or a plot of your own.

    uv run ood results results/small                     prints the table and writes results/small/results.csv
    uv run ood results results/small --out numbers.csv   elsewhere
    uv run ood results results/small --out - | head      the whole table on the terminal

The same in Python:

    from workflow_scripts import results
    numbers = results.load("results/small")

Columns: paper, id (ID set), network, recipe, score (empty where a metric of the ID task does not depend on it), group
(`near`, `far`, ... of the configuration; `id`: the ID task; `far+2g-1`: test sets as a release takes them), set,
metric, seed, value, n_id and n_ood (the images behind it). Values are fractions; NaN is a metric that is not defined.
Averages over sets are left out, since they can be computed of these rows. So are the values of jobs that have not run;
their number is printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from workflow_scripts.core.commands import described
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.reporting import results

KEYS = ["paper", "id", "network", "recipe", "score", "group", "set", "metric"]
DTYPES = {**dict.fromkeys(KEYS, "str"), "seed": "int64", "value": "float64", "n_id": "int64", "n_ood": "int64"}
"""Columns in their order, and the dtype of each."""
FILE = "results.csv"


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a result folder by paper.

    Raises:
        OODError: there is none, or one cannot be read.
    """
    found = {path.stem: results.read(path) for path in sorted((folder / "tables").glob("*.csv"))}
    if not found:
        raise OODError(f"{folder}: expected tables in {folder / 'tables'}/*.csv, found none; name the folder of a "
                       "variant, e.g. results/small")
    return found


def load(folder: str | Path) -> pd.DataFrame:
    """The long table of a run.

    Args:
        folder: of a variant, e.g. ``results/small``.

    Returns:
        A frame of the columns and dtypes of :data:`DTYPES`. ``frame.attrs["missing"]`` counts values that have not been
        computed yet.

    Raises:
        OODError: there is no table in it, or one cannot be read.
    """
    papers = [rows.assign(paper=paper) for paper, rows in tables(Path(folder)).items()]
    found = pd.concat(papers, ignore_index=True).rename(columns={"dataset": "set"})
    found = found[found["group"] != results.AVERAGE]
    each = found.assign(seeds=[seeds.values for seeds in found["seeds"]]).explode("seeds", ignore_index=True)
    each[["seed", "value"]] = pd.DataFrame(each["seeds"].tolist(), index=each.index, dtype=object)
    there = each["value"].map(lambda value: value is not None)
    frame = each.loc[there, list(DTYPES)].astype(DTYPES).reset_index(drop=True)
    frame.attrs["missing"] = int((~there).sum())
    return frame


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("folder", type=Path, metavar="FOLDER", help="of a variant, e.g. results/small")
    words.add_argument("--out", type=Path, metavar="FILE", help=f"CSV to write; left out: FOLDER/{FILE}; -: print it")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    found = load(args.folder)
    if args.out == Path("-"):
        found.to_csv(sys.stdout, index=False, lineterminator="\n")
        return
    out = args.out or args.folder / FILE
    results.write_csv(out, found)
    print(found.to_string(max_rows=20, show_dimensions=False))
    missing = f", {found.attrs['missing']:,} more are missing" if found.attrs["missing"] else ""
    print(f"{out}: {len(found):,} values of {found['paper'].nunique()} papers{missing}")


if __name__ == "__main__":
    main()
