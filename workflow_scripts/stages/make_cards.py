"""Dataset cards: image stores -> one JSON with counts, classes, sources, licences and a sample grid per set.

Command: ``python -m workflow_scripts.stages.make_cards --config JSON --out cards.json``

Grids are PNG in base64, so that the page stays one file.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from PIL import Image

from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import atomic
from workflow_scripts.core.section import stage_parser
from workflow_scripts.data import tally
from workflow_scripts.data.images.store import KINDS, pixel_rows
from workflow_scripts.data.images.together import hashes, identical
from workflow_scripts.stages.sections.make_cards import OUTLIERS, CardOf, MakeCards

COLUMNS, ROWS = 6, 2
TILE = 64  # pixels; larger images are shrunk to this, smaller ones keep their size
GAP = 2


def sample(file: h5py.File, k: int) -> np.ndarray:
    """``k`` images (fewer where there are fewer), evenly spaced from the first to the last: uint8 (k, H, W, 3).

    ``inputs`` (already in network-input space) are mapped from [-1, 1] to 0..255; values beyond are clipped.
    """
    rows = pixel_rows(file)
    picked = rows[np.unique(np.linspace(0, len(rows) - 1, min(k, len(rows))).round().astype(int))]
    if "inputs" not in file:
        return picked
    grey = ((np.asarray(picked, dtype=np.float64) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    return grey.transpose(0, 2, 3, 1)  # (k, C, H, W) -> (k, H, W, C)


def grid(images: np.ndarray) -> bytes:
    """Images (k, H, W, C), C = 1 or 3, on a transparent grid as PNG bytes."""
    height, width = images.shape[1:3]
    scale = min(1.0, TILE / max(height, width))
    height, width = max(round(height * scale), 1), max(round(width * scale), 1)
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * (width + GAP) - GAP, rows * (height + GAP) - GAP), (0, 0, 0, 0))
    for i, pixels in enumerate(images):
        tile = Image.fromarray(pixels.repeat(3 // pixels.shape[-1], axis=-1))
        if scale < 1:
            tile = tile.resize((width, height), Image.Resampling.BOX)
        sheet.paste(tile, (i % COLUMNS * (width + GAP), i // COLUMNS * (height + GAP)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def attribute(file: h5py.File, key: str, default: Any) -> Any:
    """An attribute of the store, from JSON where it is JSON."""
    value = file.attrs.get(key, default)
    try:
        return json.loads(value) if isinstance(value, (str, bytes)) else value
    except json.JSONDecodeError:
        return value


def shared(files: Sequence[Path]) -> dict[str, list[str]]:
    """{dataset}.{split} -> a line for each set that it shares identical images with.

    Args:
        files: what the stage ``compare_sets`` wrote.
    """
    lines: dict[str, list[str]] = {}
    for path in files:
        for pair in json.loads(path.read_text(encoding="utf-8"))["pairs"]:
            if pair["identical"]:
                where = "there more than once" if pair["set"] == pair["of"] else f"also in {pair['of']}"
                lines.setdefault(pair["set"], []).append(shown(pair["identical"], pair["count"], where))
    return {name: list(dict.fromkeys(found)) for name, found in lines.items()}


def with_outliers(sets: Sequence[CardOf]) -> dict[str, list[str]]:
    """{dataset}.{split} of test sets -> a line for each set of outliers to train against that shares images with it."""
    lines: dict[str, list[str]] = {}
    for pool in (entry for entry in sets if entry.role == OUTLIERS):
        for entry in (entry for entry in sets if entry.role != OUTLIERS and entry.path.endswith(".test.h5")):
            with h5py.File(pool.path) as known, h5py.File(entry.path) as file:
                found = hashes(file)
                same = identical(found, hashes(known))
                if found is not None and same:
                    lines.setdefault(Path(entry.path).stem, []).append(
                        shown(same, len(found), f"also in {Path(pool.path).stem}"))
    return lines


def shown(part: int, count: int, where: str) -> str:
    return f"{part:,} of {count:,} ({part / count:.1%}) {where}"


def card(entry: CardOf, shares: Mapping[str, list[str]] = MappingProxyType({})) -> dict[str, Any]:
    """One set's card.

    Args:
        shares: see :func:`shared`.

    Raises:
        OODError: the store is missing, no store, or empty.
    """
    name, path = entry.name, entry.path
    try:
        with h5py.File(path, "r") as file:
            if not set(KINDS) & set(file):
                raise OODError(f"{path}: expected a store with {', '.join(KINDS)}, found {sorted(file)}; "
                               "delete it and run again")
            key = "inputs" if "inputs" in file else "images"
            count = len(file["offsets"]) if "flat" in file else len(pixel_rows(file))
            if not count:
                raise OODError(f"{path}: expected at least one image, found none; check the definition of '{name}'")
            labels = file["labels"][:] if "labels" in file else np.empty(0, dtype=np.int64)
            pictures = sample(file, COLUMNS * ROWS)
            return {
                "name": name, "role": entry.role, "kind": key, "count": count,
                "shape": [int(n) for n in pictures.shape[1:3]],
                "classes": [str(c) for c in attribute(file, "classes", [])],
                "per_class": {str(c): int(n) for c, n in zip(*np.unique(labels[labels >= 0], return_counts=True),
                                                             strict=True)},
                "definition": attribute(file, "definition", {}), "sources": attribute(file, "sources", {}),
                **{key: [tally.line(record) for record in attribute(file, key, [])] for key in ("left_out", "remarks")},
                "identical": shares.get(Path(path).stem, []),
                "licence": str(entry.licence or attribute(file, "licence", "")),
                "about": str(entry.about or attribute(file, "about", "")),
                "png": base64.b64encode(grid(pictures)).decode("ascii"),
            }
    except OSError as error:
        raise OODError(f"{path}: expected the image store of '{name}', cannot read it ({error}); run again to make it"
                       ) from None


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point of the stage."""
    parser = stage_parser(__spec__, __doc__, MakeCards)
    parser.add_argument("--compared", nargs="*", default=[], type=Path, help="JSON of the stage compare_sets")
    parser.add_argument("--out", required=True, type=Path, help="JSON to write")
    args = parser.parse_args(argv)
    lines, more = shared(args.compared), with_outliers(args.config.sets)
    lines |= {name: [*lines.get(name, []), *found] for name, found in more.items()}
    made = [card(entry, lines) for entry in args.config.sets]
    with atomic(args.out) as partial:
        partial.write_text(json.dumps({"cards": made}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
