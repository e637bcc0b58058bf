"""Put the default run's table and figure into the README.

    uv run snakemake --cores all && uv run python docs/refresh.py
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "small"
BEGIN, END = "<!-- default run: begin -->", "<!-- default run: end -->"


def table(paper: str) -> list[str]:
    """The averages of a paper's table: a row per recipe and score."""
    with open(RESULTS / "tables" / f"{paper}.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells = {(r["label"], r["score"], r["dataset"], r["metric"]): r for r in rows}
    lines = ["| training | score | near-OOD AUROC | far-OOD AUROC | far-OOD FPR95 (ID+) |", "|---|---|--:|--:|--:|"]
    for label, score in dict.fromkeys((r["label"], r["score"]) for r in rows):
        values = [cells[label, score, group, metric] for group, metric in
                  (("near", "auroc"), ("far", "auroc"), ("far", "fpr95"))]
        shown = [f"{100 * float(v['mean']):.1f} ± {100 * float(v['std']):.1f}" for v in values]
        lines.append(f"| {label} | {score} | {' | '.join(shown)} |")
    return lines


def main() -> None:
    manifest = json.loads((RESULTS / "tables" / "house.manifest.json").read_text(encoding="utf-8"))
    machine = manifest["hardware"]
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    shutil.copy(RESULTS / "figures" / "house" / "histograms.png", images / "histograms.png")
    text = "\n".join([
        "", *table("house"), "",
        f"Percent, mean ± standard deviation over {len(manifest['seeds'])} seeds; averages over sets. ID: digits 0-7; "
        "near: digits 8 and 9; far: faces, textures, photographs, text, noise. A small run, not comparable with any "
        f"paper. ({machine['cpu']}, {machine['cores']} cores, torch {manifest['packages']['torch']})", "",
        "![Energy of ID test images against each OOD set](docs/images/histograms.png)", ""])
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    readme.write_text(before + BEGIN + text + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
