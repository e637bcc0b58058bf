"""Where a paper's numbers come from: configuration, code, packages, machine, inputs with checksums, cost per job.

    python -m workflow_scripts.stages.write_manifest --config JSON --stores a.h5 ... --checkpoints x.pt ... \
        --benchmarks results/small/benchmarks --out posthoc.manifest.json

The manifest stands beside the table. It describes the machine that wrote it; jobs on other nodes of a cluster show in
their own benchmark rows.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import h5py

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic, sha256
from workflow_scripts.core.provenance import git_revision, hardware, packages
from workflow_scripts.core.section import stage_parser
from workflow_scripts.stages.sections.write_manifest import WriteManifest


def arguments() -> argparse.ArgumentParser:
    parser = stage_parser(__spec__, __doc__, WriteManifest)
    parser.add_argument("--stores", nargs="*", default=[], help="stores whose raw sources are listed")
    parser.add_argument("--checkpoints", nargs="*", default=[], help="trained networks behind the table")
    parser.add_argument("--benchmarks", required=True, type=Path, help="folder of Snakemake's benchmark files")
    parser.add_argument("--out", required=True)
    return parser


@stage
def main(argv: list[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    manifest = {
        **dict(args.config),
        "git": git_revision(),
        "packages": packages(),
        "hardware": hardware(),
        "inputs": inputs(args.stores, args.checkpoints),
        "stages": costs(args.benchmarks),
    }
    with atomic(args.out) as partial:
        partial.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def inputs(stores: list[str], checkpoints: list[str]) -> list[dict[str, str]]:
    """Raw sources, as the stores recorded them, and the checkpoints, each with its sha256 (or version)."""
    rows: dict[str, str] = {}
    for store in stores:
        try:
            with h5py.File(store) as file:
                rows.update(json.loads(file.attrs["sources"]))
        except (OSError, KeyError) as error:
            raise OODError(f"store {store} cannot be read ({error}); delete it and run again") from None
    rows.update({path: sha256(path) for path in checkpoints})
    return [{"path": path, "sha256": digest} for path, digest in sorted(rows.items())]


def costs(folder: Path) -> list[dict[str, Any]]:
    """Wall seconds and peak memory (MB, resident) of each job, from Snakemake's benchmark files."""
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                memory = row.get("max_rss", "NA")
                rows.append({"job": path.relative_to(folder).with_suffix("").as_posix(), "seconds": float(row["s"]),
                             "peak_mb": None if memory in ("NA", "-", "") else float(memory)})
    return rows


if __name__ == "__main__":
    main()
