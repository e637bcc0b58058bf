"""The jobs of a configuration and their files, as Snakemake has them: it is asked in a process of its own.

What all jobs are depends on the configuration and the code alone, so the answer is kept in a cache and given again
until one of them changes. What would run depends on the files that are there, and is asked anew each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from workflow_scripts.core.digest import ROOT
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.wiring import paths
from workflow_scripts.wiring.targets import results_of
from workflow_scripts.work import starts
from workflow_scripts.work.plan import Key, Plan, Trained

KEPT = 20
"""Answers in the cache; older ones go."""


@dataclass(frozen=True, eq=False)
class Job:
    """One job: its rule, files, log, benchmark, and the network that it belongs to."""

    rule: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    log: str
    benchmark: str
    """Its file; downloads, manifests and the page write none: empty."""
    kind: str
    """The folder of its first output: ``data``, ``models``, ``features``, ``scores``, ``figures``, ..."""
    on_gpu: bool
    """Whether it runs a network."""
    wildcards: SimpleNamespace
    run: Trained | None = None
    """Its network; of first epochs that several trainings share, one of theirs."""
    sets: tuple[tuple[str, str], ...] = ()
    """(dataset, split) that it prepares, or whose store it reads."""

    @property
    def trains(self) -> bool:
        """Whether it makes a network or its first epochs: trains it, reads its weights, or chooses among others."""
        return self.kind in ("models", "starts")

    @property
    def name(self) -> str:
        """The score, archive or picture."""
        given = vars(self.wildcards)
        return next((given[key] for key in ("score", "archive", "picture") if key in given), "")


@dataclass(frozen=True)
class Due:
    """What would run: the outputs of those jobs, and for jobs of which some ran before (message, reason) of each."""

    outputs: frozenset[str]
    reasons: tuple[tuple[str, str], ...]


class Jobs:
    """All jobs behind the results page, and which of them files need.

    Args:
        plan: the plan.
        found: the jobs as :func:`workflow_scripts.wiring.snakemake_private.jobs` gives them.
    """

    def __init__(self, plan: Plan, found: Iterable[dict[str, Any]]):
        self.plan = plan
        self._stores = {paths.store(plan, *pair): pair for pair in plan.used_datasets(whole=True)}
        self._producers: dict[str, Job] = {}
        for entry in found:
            if entry["outputs"]:
                self._producers |= dict.fromkeys(entry["outputs"], self._job(entry))

    def _job(self, entry: dict[str, Any]) -> Job:
        given = entry["wildcards"]
        run = None
        if "recipe" in given:
            run = self.plan.runs.get(Key(given["id"], given["network"], given["recipe"], int(given["seed"])))
        elif "start" in given:
            run = starts.named(self.plan, SimpleNamespace(**given)).run
        own = ((given["dataset"], given["split"]),) if "dataset" in given else None
        read = tuple(self._stores[name] for name in entry["inputs"] if name in self._stores)
        return Job(entry["rule"], tuple(entry["outputs"]), tuple(entry["inputs"]), entry["log"], entry["benchmark"],
                   self._kind(entry["outputs"][0]), entry["on_gpu"], SimpleNamespace(**given), run, own or read)

    def _kind(self, output: str) -> str:
        for root in (paths.root(self.plan), self.plan.config.resources):
            if output.startswith(f"{root}/"):
                first, _, rest = output.removeprefix(f"{root}/").partition("/")
                return first if rest else "page"
        return ""

    def all(self) -> list[Job]:
        """Every job."""
        return list(dict.fromkeys(self._producers.values()))

    def page(self) -> list[Job]:
        """The jobs behind the results page, inputs before what reads them."""
        return self.behind([paths.page(self.plan)])

    def paper(self, name: str) -> list[Job]:
        """The jobs behind a paper's results."""
        return self.behind(results_of(self.plan, name))

    def makes(self, name: str) -> bool:
        """Whether one of them makes a file."""
        return name in self._producers

    def behind(self, files: Iterable[str]) -> list[Job]:
        """The jobs that files need, each once, inputs before what reads them."""
        producers = self._producers
        done: dict[Job, None] = {}
        stack = [(producers[name], False) for name in reversed(list(files)) if name in producers]
        seen: set[int] = set()
        while stack:
            job, expanded = stack.pop()
            if expanded:
                done[job] = None
            elif id(job) not in seen:
                seen.add(id(job))
                stack.append((job, True))
                stack += [(producers[name], False) for name in job.inputs if name in producers]
        return list(done)

    @cached_property
    def upstream_of_training(self) -> set[str]:
        """Files that some training, import or choice of a network reads, directly or not."""
        trained = [job for job in self.all() if job.trains]
        return {name for job in self.behind([name for job in trained for name in job.inputs]) for name in job.outputs}


def read(plan: Plan, words: Sequence[str], targets: Sequence[str] = ()) -> Jobs:
    """All jobs of a configuration, or those behind targets, whatever is there of them.

    Args:
        plan: its plan.
        words: ``--configfile`` and ``--config`` as for snakemake (:func:`workflow_scripts.planning.setting.words`).
        targets: files; left out: the results page.

    Raises:
        OODError: Snakemake cannot build them.
    """
    cache = _cache() / f"{_key(plan, [*words, *targets])}.json"
    try:
        return Jobs(plan, json.loads(cache.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    with tempfile.TemporaryDirectory() as empty:
        found = _ask(plan, [*targets, *words, "--directory", empty], compare=False)["jobs"]
    _keep(cache, found)
    return Jobs(plan, found)


def due(plan: Plan, words: Sequence[str], folder: Path, targets: Sequence[str] = ()) -> tuple[Jobs, Due]:
    """The jobs behind targets, and which of them would run in a folder.

    Raises:
        OODError: Snakemake cannot say it.
    """
    said = _ask(plan, [*targets, *words, "--directory", str(folder)])
    if not targets:
        _keep(_cache() / f"{_key(plan, words)}.json", said["jobs"])
    return Jobs(plan, said["jobs"]), Due(frozenset(said["due"]), tuple(map(tuple, said["reasons"])))


def _ask(plan: Plan, words: Sequence[str], compare: bool = True) -> dict[str, Any]:
    """What Snakemake says in a process of its own, which is not ours since it changes its folder and its loggers.

    ``compare``: whether there may be results, whose raw files are then compared with those of today.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    if plan.data_root:
        environment["OOD_DATA"] = str(plan.data_root.resolve())
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place) / "answer.json"
        done = subprocess.run([sys.executable, "-m", "workflow_scripts.wiring.snakemake_private", str(answer),
                               "compare" if compare else "list", *words],
                              env=environment, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode or not answer.is_file():
            last = [line.strip() for line in done.stdout.splitlines() if line.strip()][-1:]
            raise OODError(f"snakemake cannot say what would run: {''.join(last)}")
        return json.loads(answer.read_text(encoding="utf-8"))


def _key(plan: Plan, words: Sequence[str]) -> str:
    """What the jobs of a configuration depend on: it, the raw files that are there, what scores need (a user's own file
    says that), and the code."""
    raw = [[*pair, plan.packed(*pair), plan.archives(*pair)] for pair in plan.used_datasets(whole=True)]
    raw += [plan.checkpoint_archive(run.recipe) for run in plan.runs.values() if run.recipe.checkpoint]
    raw.append([str(one) for one in plan.left_out])
    needs = sorted({(name, *sorted(plan.needs(run, name))) for run in plan.runs.values() for name in run.scores})
    found = hashlib.sha256(json.dumps([sys.version, list(words), plan.config.model_dump_json(), raw, needs],
                                      default=str).encode())
    for path in [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk")),
                 *sorted((ROOT / "workflow_scripts").rglob("*.py")), *sorted((ROOT / "config").glob("*.yaml")),
                 ROOT / "pyproject.toml"]:
        found.update(path.read_bytes())
    return found.hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ood-reproduction" / "jobs"


def _keep(path: Path, found: list[dict[str, Any]]) -> None:
    """Write an answer, where the cache can be written, and let the oldest go."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as unfinished:
            Path(unfinished).write_text(json.dumps(found), encoding="utf-8")
        for old in sorted(path.parent.glob("*.json"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            old.unlink()
    except (OSError, OODError):
        pass  # then the next command asks again
