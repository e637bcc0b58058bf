"""The jobs of a plan as files, and what Snakemake's own files say of them: for whoever looks at a run from outside."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

from workflow_scripts.config.expand import Trained
from workflow_scripts.config.wiring import Wiring

GROUPS = ("data", "networks", "features", "scores", "results")
_EPOCH = re.compile(rb"^epoch (\d+)/(\d+) ", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """One job: its outputs, as Snakemake names them, and the place of its log below ``logs/``, without suffix."""

    outputs: tuple[str, ...]
    log: str
    group: str = field(compare=False)
    alike: tuple[tuple[str, ...], ...] = field(compare=False)
    """Keys of jobs that take as long, the closest first."""
    papers: tuple[str, ...] = field(default=(), compare=False)


def jobs_of(wire: Wiring) -> list[Job]:
    """All jobs of a plan but downloads, each once, in the order of the papers."""
    found: dict[Job, Job] = {}
    for paper in wire.plan.papers:
        for job in _of_paper(wire, paper):
            known = found.get(job, job)
            found[job] = Job(job.outputs, job.log, job.group, job.alike, tuple(dict.fromkeys([*known.papers, paper])))
    last = [Job((f"{wire.root}/{name}",), log, "results", ((log,),)) for name, log in
            (("cards.json", "cards"), ("report.html", "report"))]
    return [*found.values(), *last]


def _of_paper(wire: Wiring, paper: str) -> Iterator[Job]:
    plan = wire.plan
    reported = plan.reported(paper)
    trained = list({run.key: run for one in reported for run in _with_parents(wire, one)}.values())
    stores = [pair for run in reported for pair in plan.sets(run.id)]
    stores += [(plan.outliers(run), "train") for run in trained if plan.outliers(run)]
    stores += [(run.recipe.images, "train") for run in trained if run.recipe.images]
    stores += [(plan.held_out(run), "val") for run in trained if run.among]
    for pair in dict.fromkeys(stores):
        yield from (_job(wire, path, "data") for path in wire.lmdbs([pair]))
        yield _job(wire, wire.store(*pair), "data")
    for run in trained:
        yield from _network(wire, run)
    for run in reported:
        for id, group, sets in plan.feature_groups():
            if id == run.id:
                log = f"features/{run.id}/{run.network.name}/{run.path_name}/seed{run.seed}/{group}"
                yield Job(tuple(wire.file("features", run, f"/{d}.{s}.h5") for d, s in sets), log, "features",
                          _alike("features", run, group))
        if wire.metrics_statistics(_wildcards(run)) or any("statistics" in plan.needs(run, s) for s in run.scores):
            yield _job(wire, wire.file("precompute", run, ".h5"), "scores", run)
        for name, score in run.scores.items():
            if score.choose is not None:
                yield _job(wire, wire.file("sweep", run, f"/{name}.json"), "scores", run, name)
            yield _job(wire, wire.file("scores", run, f"/{name}.h5"), "scores", run, name)
        yield _job(wire, wire.file("metrics", run, ".csv"), "results", run)
    yield _job(wire, wire.of_paper(paper, "csv"), "results")
    yield Job((wire.of_paper(paper, "manifest"),), f"manifest/{paper}", "results", (("manifest",),))
    for path in wire.figures(paper):
        name = PurePosixPath(path).stem
        if any(name == picture.file for picture in wire.pictures.of(paper)):
            yield _job(wire, path, "results")
            inputs = wire.pictures.inputs(SimpleNamespace(paper=paper, picture=name))
            yield from (_job(wire, one, "results") for one in inputs if f"{wire.root}/distances/" in one
                        or f"{wire.root}/panels/" in one)
        elif name == "histograms":
            yield Job((path,), f"figures/{paper}", "results", (("figures",),))
        elif name == "reliability":
            yield Job((path,), f"figures/{paper}.reliability", "results", (("reliability",),))


def _network(wire: Wiring, run: Trained) -> Iterator[Job]:
    """A network, and what is made for its training."""
    path = wire.file("models", run, ".pt")
    if run.recipe.masks:
        yield _job(wire, wire.file("masks", run, ".h5"), "networks", run)
    if wire.selection(_wildcards(run)):
        yield _job(wire, wire.file("selection", run, ".h5"), "networks", run)
    if tokens := wire.tokens(_wildcards(run)):
        yield _job(wire, tokens, "networks", run)
    if run.among:
        log = _place(wire, wire.file("choice", run, ".csv"))
        yield Job((path,), log, "networks", _alike("choice", run))
    else:
        yield _job(wire, path, "networks", run, run.recipe.method or "")


def _with_parents(wire: Wiring, run: Trained) -> list[Trained]:
    """A network and all that it is made from, first things first."""
    names = [run.parent, run.weights, run.classifier, *run.among]
    before = [wire.plan.runs[run.id, run.network.name, name, run.seed] for name in names if name]
    return [*(one for other in before for one in _with_parents(wire, other)), run]


def _wildcards(run: Trained) -> SimpleNamespace:
    return SimpleNamespace(id=run.id, network=run.network.name, recipe=run.path_name, seed=run.seed)


def _place(wire: Wiring, path: str) -> str:
    below = path.removeprefix(f"{wire.root}/").removeprefix(f"{wire.plan.config.resources}/")
    return re.sub(r"\.(pt|h5|csv|json|svg|lmdb)$", "", below)


def _job(wire: Wiring, path: str, group: str, run: Trained | None = None, what: str = "") -> Job:
    log = _place(wire, path)
    kind = log.split("/", 1)[0]
    return Job((path,), log, group, _alike(kind, run, what) if run else ((kind,),))


def _alike(kind: str, run: Trained, what: str = "") -> tuple[tuple[str, ...], ...]:
    return ((kind, what, run.id, run.network.name, run.path_name), (kind, what, run.id, run.network.name),
            (kind, what), (kind,))


# ---- what Snakemake and the jobs leave on the disk ------------------------------------------------------------------

def markers(folder: Path) -> dict[str, float]:
    """Outputs of jobs that were started (or handed to a scheduler) and have not ended, and when, in Unix time."""
    top, found = folder / ".snakemake" / "incomplete", {}
    for path in top.rglob("*") if top.is_dir() else ():
        try:
            if path.is_file():
                # a name longer than a file's may be is divided into folders, which begin with @
                coded = "".join(part.removeprefix("@") for part in path.relative_to(top).parts)
                found[base64.urlsafe_b64decode(coded).decode()] = path.stat().st_mtime
        except (OSError, binascii.Error, UnicodeDecodeError):
            continue  # ended while we looked, or not a marker
    return found


def locked(folder: Path) -> bool:
    """Whether a Snakemake that runs jobs has this folder."""
    return any((folder / ".snakemake" / "locks").glob("*.lock"))


def failed(folder: Path) -> set[str]:
    """Outputs of the failed jobs of the last run (not of dry runs)."""
    from workflow_scripts.ending import failures

    for path in sorted((folder / ".snakemake" / "log").glob("*.snakemake.log"), reverse=True):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "Select jobs to execute" in text:
            return {name.strip() for failure in failures(text) for name in failure.output.split(", ")}
    return set()


def epochs(log: Path) -> tuple[int, int, int]:
    """The first and the last epoch that a training's log tells of, and how many there are; zeros where none."""
    try:
        found = _EPOCH.findall(log.read_bytes())
    except OSError:
        return 0, 0, 0
    return (int(found[0][0]), int(found[-1][0]), int(found[-1][1])) if found else (0, 0, 0)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
