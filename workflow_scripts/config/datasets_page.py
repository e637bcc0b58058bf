"""The page on all datasets, ``docs/datasets.md``, from ``config/datasets.yaml`` and ``config/sources.yaml``.

Command: ``python -m workflow_scripts.config.datasets_page [--check]``; with ``--check`` it only says whether the
page is current.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow_scripts.config.catalogue import Dataset, load, readers
from workflow_scripts.config.raw import Source, load_sources
from workflow_scripts.core.errors import stage
from workflow_scripts.core.generated import asked_to_check, keep
from workflow_scripts.core.sources import alternatives

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/datasets.md"

INTRODUCTION = """\
# Datasets

Written by `python -m workflow_scripts.config.datasets_page` from `config/datasets.yaml` and `config/sources.yaml`;
do not edit.

A dataset is prepared from raw files, which lie below the data root (`data_root` of the configuration, or the
environment variable `OOD_DATA`) or are downloaded and verified. Alternatives are tried in the order given here. Images
per split are those of the complete set; a smaller one is used and reported.
"""

RAW = """\
## Raw files

All published checksums of a file must hold. Where nobody publishes one, the first download is recorded in
`resources/checksums.json`, and later ones are compared with it.
"""

BY_HAND = """\
## Brought by hand

These are downloaded from nowhere. Place each below the data root under one of the names that its datasets list, or in
`resources/archives`.
"""

RECIPES = """\
## Recipes

- **A sample drawn by seed, as a list others can use**: the papers draw 10,000 images of Places365 and publish no list.
  Here the seed fixes the draw and the store holds the names. Where the raw files are,
  `python -m workflow_scripts.publish_list --store results/V/data/places365.test.h5 --out config/lists/places365.txt`
  writes them down; a row with `keep: config/lists/places365.txt` in the place of `sample` then takes exactly those.
- **Large sets** (reader `lmdb_images`) are packed by the workflow from folders or the official archives into
  `resources/lmdb`, an LMDB of the published bytes: once for all rows that read the same files (key `archive`), whole
  whatever the rows take of it, and a killed run goes on where it was. Rows with `pixels: decoded` store no pixels:
  training and features decode the archive's images each time. To do without the raw files afterwards, move the LMDB
  file to the first place its row names, e.g. `imagenet/train.lmdb` below the data root.
- **A run with `limit: {images: k}`** packs nothing, since an archive is the whole set (150 GB for ImageNet): its few
  images are read from the raw files and stored at the row's geometry, also where the row says `pixels: decoded`; random
  resized crops are then cut out of those. Only of a compressed tar archive, in which no image can be reached directly,
  an LMDB is made first.
- **CIFAR as class folders of images** (DFB's form):
  `uv run snakemake --cores all results/paper/folders/cifar10.train --configfile config/goe.yaml`.
- **SVHN**: dfb and bgresample evaluate on all of test (`svhn`, `svhn_full`), himplos and npos on the first 1,000 of
  each digit (`svhn_10k`), goe on SC-OOD's list. The release of himplos takes all (`fidelity.released:
  [himplos.1h-3]`), that of npos 10,000 drawn at random (`svhn_random_10k`).
"""


SPEED = """\
## Speed

Medians of three runs of `benchmarks/data.py` on two cores of an AMD EPYC that others used as well; each a ratio within
one run. It prints them with their targets and keeps them in `results/benchmarks/data.json`.

| what | against | n | ratio | target |
|---|---|--:|--:|--:|
| packing an LMDB, files of 110 KB | copying them with two processes | 4,000 | 1.21 | 0.8 |
| packing an LMDB, files of 2.5 KB | copying them with two processes | 20,000 | 1.68 | 0.8 |
| reading an LMDB, Tiny ImageNet 64x64 | ImageFolder, the same decoder: PIL, torchvision.io | 5,000 | 1.29, 1.59 | 1.2 |
| reading an LMDB, 500x375, from memory | ImageFolder with PIL, two runs | 500 | 1.05, 1.21 | 1.2, reached in one |
| the same | ImageFolder with torchvision.io, two runs | 500 | 1.04, 1.03 | 1.2, not reached |
| the same, from the disk | ImageFolder with PIL, two runs | 500 | 1.24, 1.06 | 1.2, reached in one |
| batches of CIFAR-10: crop, flip, normalise | torchvision's CIFAR10 and DataLoader, CPU seconds | 50,000 | 19.3 | 10 |

At 500x375 the decoder takes nearly all of the time of either side: on bytes that are in memory already, without any
reading, it reaches 1.07 and 1.21 (PIL) and 1.05 and 1.05 (torchvision.io) times ImageFolder's rate. Peak memory,
whatever the set's size: packing 75 MB and 42 MB for each worker, preparing 352 MB, of which up to 256 MB are the
archive's pages (10,000 images of 115 KB).
"""


def role(row: Dataset) -> str:
    """What a dataset is for, by its splits."""
    if "train" in row.splits and "test" in row.splits:
        return "ID (train, test), near-OOD test"
    return "outliers to train with" if "train" in row.splits else "OOD test"


def cell(*parts: str) -> str:
    """Text for one cell of a table."""
    return "<br>".join(" ".join(part.split()).replace("|", "\\|") for part in parts if part)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]) + "\n"


def dataset_row(name: str, row: Dataset, files: Mapping[str, list[str]]) -> list[str]:
    """Dataset, what and role, images, stored as, where from, terms."""
    counts = [f"{split}: {row.counts[split]:,}" if split in row.counts else f"{split}: not known here"
              for split in row.splits]
    taken = ", ".join([row.geometry] + ([f"{row.sample.n:,} drawn with seed {row.sample.seed}"] if row.sample else [])
                      + ([f"first {row.limit_per_class:,} per class"] if row.limit_per_class else [])
                      + ([f"those of {row.keep}"] if row.keep else []))
    patterns = dict.fromkeys(pattern for split in row.splits
                             for pattern in alternatives(row.options_of(split).get("files", ())))
    urls = [row.url] if isinstance(row.url, str) else row.url
    return [f"`{name}`", cell(f"**{row.label or name}**", row.about, f"*{role(row)}*"), cell(*counts), cell(taken),
            cell(", ".join(f"`{pattern}`" for pattern in patterns) or "bundled or made",
                 ", ".join(f"[{file}](#{anchor(file)})" for file in files.get(name, ())), ", ".join(urls)),
            cell(row.licence, row.citation)]


def anchor(file: str) -> str:
    """The place of a raw file on the page."""
    return f"file-{file.lower().replace('.', '-').replace('_', '-')}"


def source_row(name: str, source: Source) -> list[str]:
    """File, size, checksums and whose, where from, terms."""
    size = f"{source.size:,}" if source.size else "not known"
    sums = cell(*(f"`{checksum}`" for checksum in source.checksum), f"published by {source.checksum_from}"
                ) if source.checksum else "none published; recorded by the first download"
    origin = "by hand" if source.by_hand else cell(*source.urls)
    return [f'<a id="{anchor(name)}"></a>`{name}`', cell(source.about), size, sums, origin,
            cell(source.licence, source.citation)]


def by_hand(source: Source, datasets: Sequence[str]) -> str:
    """How to bring one file, which these datasets read."""
    facts = ", ".join(([f"{source.size:,} bytes"] if source.size else []) + source.checksum)
    lines = [f"**`{source.name}`**{f' ({facts})' if facts else ''}: {source.about}.", f"- from: {source.where}",
             f"- why by hand: {source.reason}"]
    lines += [f"- instead of it: {substitute}" for substitute in source.substitutes]
    lines += [f"- for: {', '.join(f'`{name}`' for name in datasets)}"] if datasets else []
    return "\n".join(" ".join(line.split()) for line in lines) + "\n"


def page(datasets: Mapping[str, Dataset], sources: Mapping[str, Source]) -> str:
    """The whole page, Markdown."""
    read_by = {name: readers(datasets, name) for name in sources}
    files = {dataset: [name for name in sources if dataset in read_by[name]] for dataset in datasets}
    to_bring = [by_hand(source, read_by[name]) for name, source in sources.items() if source.by_hand]
    parts = [
        INTRODUCTION,
        table(["dataset", "what", "images", "stored as", "raw files", "terms, citation"],
              [dataset_row(name, row, files) for name, row in datasets.items()]),
        RAW,
        table(["file", "what", "bytes", "checksum", "from", "terms, citation"],
              [source_row(name, source) for name, source in sources.items()]),
        BY_HAND, *to_bring, RECIPES, SPEED]
    return "\n".join(parts)


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    check = asked_to_check(__spec__, __doc__, argv)
    text = page(load(ROOT / "config" / "datasets.yaml"), load_sources(ROOT / "config" / "sources.yaml"))
    keep(ROOT / PAGE, text, __spec__, check)


if __name__ == "__main__":
    main()
