"""Put the default run's table, figure and screenshots into the README, and the small run of G-OE into its page.

    uv run snakemake --cores all && uv run python docs/refresh.py

Screenshots of the page need Chromium; where there is none, those that are there stay. That of the terminal is drawn
from the dates of the run's files: what it showed when half of its jobs were done.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "small"
BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"


def cells(paper: str) -> dict[tuple[str, str, str, str], dict[str, str]]:
    """(training, score, set or average, metric) -> row of a paper's table."""
    with open(RESULTS / "tables" / f"{paper}.csv", newline="", encoding="utf-8") as file:
        return {(r["label"], r["score"], r["dataset"], r["metric"]): r for r in csv.DictReader(file)}


def shown(row: dict[str, str], scale: int = 100, digits: int = 1) -> str:
    """``97.1 ± 0.2``; no ± for one seed."""
    spread = f" ± {scale * float(row['std']):.{digits}f}" if row["std"] else ""
    return f"{scale * float(row['mean']):.{digits}f}{spread}"


def table(paper: str) -> list[str]:
    """The averages of a paper's table: a row per recipe and score."""
    rows = cells(paper)
    lines = ["| training | score | near-OOD AUROC | far-OOD AUROC | far-OOD FPR95 (ID+) |", "|---|---|--:|--:|--:|"]
    for label, score in dict.fromkeys(key[:2] for key in rows):
        values = [shown(rows[label, score, group, metric]) for group, metric in
                  (("near", "auroc"), ("far", "auroc"), ("far", "fpr95"))]
        lines.append(f"| {label} | {score} | {' | '.join(values)} |")
    return lines


def goe() -> list[str]:
    """G-OE's family by its own confidence."""
    rows = cells("goe")
    lines = ["| training | ACC | AURC | ECE | near-OOD AUROC | far-OOD AUROC | far-OOD FPR95 (ID+) |",
             "|---|--:|--:|--:|--:|--:|--:|"]
    for label in dict.fromkeys(key[0] for key in rows):
        task = [shown(rows[label, "msp", "digits", metric], *unit) for metric, unit in
                (("accuracy", (100,)), ("aurc", (1000, 2)), ("ece", (100,)))]
        task += [shown(rows[label, "msp", group, metric]) for group, metric in
                 (("near", "auroc"), ("far", "auroc"), ("far", "fpr95"))]
        lines.append(f"| {label} | {' | '.join(task)} |")
    return lines


def fill(path: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks of a page."""
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = path.read_text(encoding="utf-8").split(begin)
    path.write_text(before + begin + text + end + rest.split(end)[1], encoding="utf-8")


def screenshots(page: Path, images: Path) -> None:
    """The top of the page in a wide and a narrow window, and in the dark."""
    sys.path.insert(0, str(ROOT))
    from tests.browser import CHROMIUM, Browser

    if not Path(CHROMIUM).is_file():
        print(f"no Chromium at {CHROMIUM}: screenshots stay as they are", file=sys.stderr)
        return
    browser = Browser()
    try:
        for name, width, height, scheme in (("page", 1280, 900, "light"), ("page-narrow", 390, 900, "dark")):
            browser.open(page.resolve().as_uri(), width, height, scheme)
            browser.run("document.querySelector('#overview').scrollIntoView({behavior: 'instant'})")
            browser.picture(images / f"{name}.png")
    finally:
        browser.close()


def terminal(images: Path) -> None:
    """The progress of the run on a terminal, in the middle of it."""
    from rich.console import Console

    from workflow_scripts.planning import dag, screen, setting
    from workflow_scripts.planning.snapshot import Snapshot, stamp

    plan = setting.read([])
    jobs = dag.read(plan, setting.words([]))
    written = {output: stamp(ROOT / output) for job in jobs.page() for output in job.outputs}
    middle = median(written.values())
    due = {output: at if at > middle else None for output, at in written.items()}
    console = Console(record=True, width=90, file=io.StringIO())
    console.print(screen.bars(Snapshot(jobs, ROOT, due), plan.config.variant))
    picture = console.export_svg(title="uv run snakemake --cores all", unique_id="progress")
    picture = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", picture, flags=re.DOTALL)  # fonts from elsewhere
    (images / "progress.svg").write_text(picture, encoding="utf-8")


def main() -> None:
    manifest = json.loads((RESULTS / "tables" / "posthoc.manifest.json").read_text(encoding="utf-8"))
    machine = manifest["hardware"]
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    shutil.copy(RESULTS / "figures" / "posthoc" / "histograms.png", images / "histograms.png")
    text = "\n".join([
        "", *table("posthoc"), "",
        f"Percent, mean ± standard deviation over {len(manifest['seeds'])} seeds; averages over sets. ID: digits 0-7; "
        "near: digits 8 and 9; far: faces, textures, photographs, text, noise. A small run, not comparable with any "
        f"paper. ({machine['cpu']}, {machine['cores']} cores, torch {manifest['packages']['torch']})", "",
        "![Energy of ID test images against each OOD set](docs/images/histograms.png)", "",
        "![The page's overview](docs/images/page.png) ![in a narrow window, dark](docs/images/page-narrow.png)", ""])
    terminal(images)
    screenshots(RESULTS / "report.html", images)
    fill(ROOT / "README.md", "default run", text)
    fill(ROOT / "docs" / "goe.md", "small run", "\n".join(["", *goe(), ""]))


if __name__ == "__main__":
    main()
