"""Write docs/openood.md: OpenOOD v1.5's protocol as its lists state it, and near-OOD numbers measured by them.

    python -m workflow_scripts.openood_page --tables results/openood-near/tables
                                                       keep the numbers of a finished run, and write the page
    python -m workflow_scripts.openood_page            write the page
    python -m workflow_scripts.openood_page --check    exit 1 if it differs from what would be written
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from workflow_scripts.config import catalogue, image_lists
from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.core import generated
from workflow_scripts.core.commands import described
from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.planning import setting
from workflow_scripts.reporting import layout, printing, results

NEAR, WHOLE = ROOT / "config" / "openood_near.yaml", ROOT / "config" / "openood.yaml"
PAGE, RECORD = ROOT / "docs" / "openood.md", ROOT / "docs" / "openood.csv"
METRICS, ID_METRICS = ["auroc", "fpr95_ood@openood"], ["accuracy"]
COMMAND = "<!-- generated: uv run python -m workflow_scripts.openood_page -->"

ABOUT = """\
# OpenOOD v1.5

[`config/openood.yaml`](../config/openood.yaml) holds its four benchmarks, the full spectrum, its networks and
trainings, and what was never reported on it: HIMPLoS, background resampling, G-OE and DFB.

Its first lines hold the command. The numbers at the end of this page come from released networks:

```sh
OOD_DATA=/folder/of/the/archives uv run snakemake openood_near --cores all --configfile config/openood_near.yaml
```

## Protocol

Each set is a list of images ([`config/imglists.yaml`](../config/imglists.yaml)): none is in this repository. A list
below the data root is read there; else it is fetched from public copies at pinned commits. Either way the number of its
lines and the sha256 of its sorted paths and lines must be those stated, and the images are read in its order, out of
the official archives or OpenOOD's own folders `images_classic` and `images_largescale`.
"""

CHECKED = """\
## What is known of the images

- **Copies agree.** All lists of the table have the same sorted lines in every public copy that was found, but one:
  `imagenet200/val_imagenet200`. One copy of it is the test list over again. The other copy, the list that pytorch-ood
  ships and the first copy's own list for MOS have the same 1,000 images, none of them a test image: these are taken.
- **MNIST and SVHN.** File names hold number and label. All 10,000 test labels of MNIST are those of the official file
  by number from 0; SVHN's numbers count from 1, and the number of images of each digit is the published one. The reader
  compares every label and refuses another order. OpenOOD's own copies are JPEG files, so their pixels are not the
  official ones; how much that moves a number was not measured, since those copies could not be fetched.
- **CIFAR.** Each class has the numbers 1 to 1000 (CIFAR-100: 1 to 100). The usual converter to PNG, cifar2png, counts
  a class in the order of the official file; that OpenOOD's folder does so could not be checked, since it could not be
  fetched. For CIFAR-10 as OOD set of CIFAR-100 nothing depends on it: the list names all 10,000.
- **Places365.** The list names validation images; in which size OpenOOD copied them is not stated. Here: 256x256.
"""


def protocol(datasets: Mapping[str, Dataset]) -> str:
    """A table of all sets that lists choose: list, images, hash, copies."""
    lists = image_lists.read()
    lines = ["| dataset | split | list | images | sha256 of the sorted lines | copies |", "|---|---|---|--:|---|---|"]
    for name, row in datasets.items():
        for split, listed in row.lists.items():
            known = lists.lists[listed.list]
            lines.append(f"| `{name}` | {split} | `{listed.list}` | {known.count:,} | `{known.lines[:16]}...` | "
                         f"{', '.join(known.mirrors)} |")
    return "\n".join(lines)


def taken(folder: Path) -> pd.DataFrame:
    """Of the tables of a finished run, the metrics that the page shows.

    Raises:
        OODError: there is no table; a set lacks images of its list, or there are others.
    """
    plan = setting.read(NEAR)
    files = [folder / f"{paper}.csv" for paper in plan.papers if (folder / f"{paper}.csv").is_file()]
    if not files:
        raise OODError(f"{folder}: none of {', '.join(f'{paper}.csv' for paper in plan.papers)} is there; run "
                       f"{NEAR.relative_to(ROOT)} first")
    found = pd.concat(map(results.read, files), ignore_index=True)
    found = found[found["metric"].isin([*METRICS, *ID_METRICS])].drop_duplicates(
        [*results.NETWORK, *results.QUANTITY, "group"], ignore_index=True)
    for row in found[found["group"] != results.AVERAGE].itertuples():
        name, count = (row.dataset, row.n_id) if row.group == "id" else (row.dataset, row.n_ood)
        listed = plan.datasets[name].list_of("test")
        expected = listed.used().count if listed else None
        if expected != count:
            raise OODError(f"{folder}: {count:,} images of '{name}', its list names {expected:,}; the page holds the "
                           "whole protocol alone: run without limit, on complete raw files")
    return found


def near(record: pd.DataFrame) -> str:
    """The measured numbers as tables, one for each ID set."""
    plan = setting.read(NEAR)
    head = ["## Near-OOD, measured", "", " ".join(plan.config.about.split()), "",
            f"Made by [`{NEAR.relative_to(ROOT).as_posix()}`](../config/{NEAR.name}). FPR95 counts OOD as positive, as "
            "OpenOOD does. One network each, so there is no spread over seeds.", ""]
    return "\n".join([*head, *map(printing.markdown, layout.tables(record, METRICS, ID_METRICS, plan.names))])


def text(datasets: Mapping[str, Dataset], record: pd.DataFrame | None) -> str:
    """The whole page.

    Args:
        record: measured numbers; none: the page does without.
    """
    title, rest = ABOUT.split("\n", 1)
    parts = [f"{title}\n\n{COMMAND}\n{rest}", protocol(datasets), "", CHECKED]
    return "\n".join([*parts, *([near(record)] if record is not None else [])]).rstrip() + "\n"


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("--check", action="store_true", help="compare instead of writing; exit with 1 if it differs")
    words.add_argument("--tables", type=Path, help="folder of tables of a finished run, whose numbers are kept")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    if args.tables and not args.check:
        results.write(RECORD, taken(args.tables))
    record = results.read(RECORD) if RECORD.is_file() else None
    datasets = catalogue.load(ROOT / "config" / "datasets.yaml")
    generated.keep(PAGE, text(datasets, record), __spec__, args.check)


if __name__ == "__main__":
    main()
