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


def claims() -> list[str]:
    """A row for each paper: its row against its baseline (:mod:`workflow_scripts.reporting.claims`)."""
    from workflow_scripts.planning import setting
    from workflow_scripts.reporting import claims, results

    plan = setting.read([])
    lines = ["| paper | its row against its baseline | near-OOD AUROC | far-OOD AUROC | far-OOD FPR95 (ID+) |",
             "|---|---|--:|--:|--:|"]
    for paper in plan.config.papers:
        found = claims.shown(results.read(RESULTS / "tables" / f"{paper.name}.csv"), paper.claim, plan.names)
        if found is None:
            continue
        numbers = {(line.group, line.metric): f"{line.shown(line.baseline)} → {line.shown(line.ours)}, {line.verdict}"
                   for line in found.lines}
        cells = [numbers.get(place, "") for place in claims.SHOWN]
        lines.append(f"| {paper.title} | {found.ours} against {found.baseline} | {' | '.join(cells)} |")
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


def screenshot(page: Path, images: Path) -> None:
    """The first cards of the page."""
    sys.path.insert(0, str(ROOT))
    from tests.browser import CHROMIUM, Browser

    if not Path(CHROMIUM).is_file():
        print(f"no Chromium at {CHROMIUM}: screenshots stay as they are", file=sys.stderr)
        return
    browser = Browser()
    try:
        browser.open(page.resolve().as_uri(), 1280, 900, "light")
        browser.run("document.querySelector('#story').scrollIntoView({behavior: 'instant'})")
        browser.picture(images / "page.png")
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
    text = "\n".join([
        "", *claims(), "",
        f"Percent, mean ± standard deviation over {len(manifest['seeds'])} seeds, baseline → paper; averages over "
        "sets. ID: digits 0-7; near: digits 8 and 9; far: faces, textures, photographs, text, noise. A difference of "
        "at most twice the larger standard deviation is called seed noise. A small run, not comparable with any paper. "
        f"({machine['cpu']}, {machine['cores']} cores, torch {manifest['packages']['torch']})", "",
        "![The page of a run](docs/images/page.png)", ""])
    terminal(images)
    screenshot(RESULTS / "report.html", images)
    fill(ROOT / "README.md", "default run", text)
    fill(ROOT / "docs" / "goe.md", "small run", "\n".join(["", *goe(), ""]))


if __name__ == "__main__":
    main()
