"""The promise: only what changed reruns. Each row: an edit, and exactly the jobs that a dry run then lists."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.checkout import ROOT, copy, pretend_finished, snakemake, would_run
from workflow_scripts.config.models import Score
from workflow_scripts.core.digest import digest
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.plan import Trained
from workflow_scripts.work.starts import named

PLAN = read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT, {})
PAPERS = len(PLAN.papers)
ON_NETWORKS = ("train_start|train_network|" r"extract_\w*features|score_network|tune_options|make_masks|make_panels|"
               "measure_distances")


@dataclass(frozen=True)
class Job:
    """One job of the default run, as Snakemake lists it."""

    rule: str
    outputs: frozenset[str]
    inputs: frozenset[str]

    @property
    def run(self) -> Trained | None:
        """The network that its files are of; of first epochs that several share, one of theirs."""
        found = re.search(r"results/small/(\w+)/([^/]+)/([^/]+)/([^/]+)/seed(\d+)", min(self.outputs))
        if found and found[1] == "starts":
            id, network, start = found.groups()[1:4]
            return named(PLAN, SimpleNamespace(id=id, network=network, start=start, seed=found[5])).run
        return PLAN.runs[*found.groups()[1:4], int(found[5])] if found else None

    @property
    def name(self) -> str:
        """Last part of its first output without suffix: score, paper, dataset and split."""
        return Path(min(self.outputs)).name.rpartition(".")[0]

    @property
    def score(self) -> Score | None:
        return self.run.scores.get(self.name) if self.run else None


def listed(folder: Path) -> list[Job]:
    """All jobs of a finished default run."""
    done = snakemake(folder, "--detailed-summary", "--cores", "1")
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    titles = next(line for line in lines if line[0] == "output_file")
    for line in lines[lines.index(titles) + 1:]:
        if len(line) == len(titles):
            row = dict(zip(titles, line, strict=True))
            found[row["log-file(s)"]].append(row)
    return [Job(rows[0]["rule"], frozenset(row["output_file"] for row in rows),
                frozenset(rows[0]["input-file(s)"].split(",")) - {"-", ""}) for rows in found.values()]


def following(jobs: list[Job], changed: Callable[[Job], bool]) -> Counter[str]:
    """Rule -> number of the jobs that ``changed`` says and of all that read what they write, and so on."""
    reruns = {job for job in jobs if changed(job)}
    while True:
        files = frozenset().union(*(job.outputs for job in reruns))
        more = {job for job in jobs if job not in reruns and job.inputs & files}
        if not more:
            return Counter(job.rule for job in reruns)
        reruns |= more


# Which jobs an edit concerns directly; all that follows from them is found along the files.

def rules(pattern: str, also: Callable[[Job], bool] = lambda job: True) -> Callable[[Job], bool]:
    return lambda job: bool(re.fullmatch(pattern, job.rule)) and also(job)


def of_score(module: str) -> Callable[[Job], bool]:
    return rules("score_sets|score_network", lambda job: job.score is not None and job.score.module == module)


def of_network(model: str) -> Callable[[Job], bool]:
    return rules(ON_NETWORKS, lambda job: job.run.network.model == model)


def of_recipe(**values: str) -> Callable[[Job], bool]:
    return rules("train_network", lambda job: all(getattr(job.run.recipe, k) == v for k, v in values.items()))


def uses_metrics(job: Job) -> bool:
    """Metrics, intervals, what is chosen by a metric, and reliability figures."""
    if job.rule == "score_sets":
        return job.score.tune is not None or "workflow_scripts/metrics/ood.py" in digest(f"scores.{job.score.module}")
    return job.rule in ("compute_metrics", "compare_scores", "tune_options", "draw_reliability", "score_network") and (
        job.rule != "score_network" or "workflow_scripts/metrics/ood.py" in digest(f"scores.{job.score.module}"))


def of_paper(pattern: str, paper: str) -> Callable[[Job], bool]:
    return rules(pattern, lambda job: any(f"/{paper}/" in out or f"/{paper}." in out for out in job.outputs))


def either(*changed: Callable[[Job], bool]) -> Callable[[Job], bool]:
    return lambda job: any(one(job) for one in changed)


def nothing(job: Job) -> bool:
    return False


PAGE = rules("make_report")
MANIFESTS = rules("write_manifest")  # they hold the whole configuration
SHOWN = either(rules("compare_scores|make_tables|draw_figures|draw_reliability|write_manifest"), rules(
    "draw_picture", lambda job: any("/seed1" in file for file in job.inputs)), PAGE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A checkout whose default run counts as finished."""
    folder = copy(tmp_path_factory.mktemp("rerun"))
    pretend_finished(folder)
    assert would_run(folder) == {}
    return folder


@pytest.fixture(scope="module")
def jobs(finished) -> list[Job]:
    return listed(finished)


def replace(file: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert len(re.findall(old, text)), f"{old} is not in {file}"
        (folder / file).write_text(re.sub(old, new, text, count=1))
    return change


def append(file: str, text: str):
    def change(folder: Path) -> None:
        with open(folder / file, "a") as out:
            out.write(text)
    return change


def touch_all(folder: Path) -> None:
    later = time.time() + 5
    for path in [*folder.glob("*.*"), *folder.glob("workflow_scripts/**/*.py"), *folder.glob("rules/*")]:
        if path.is_file():
            os.utime(path, (later, later))


def _config(change, file: str = "config.yaml"):
    def apply(folder: Path) -> None:
        raw = yaml.safe_load((folder / file).read_text())
        change(raw)
        (folder / file).write_text(yaml.safe_dump(raw, sort_keys=False))
    return apply


def _set(key: str, index: int, **values):
    return _config(lambda raw: raw[key][index].update(values))


def _reorder(raw: dict) -> None:
    raw["recipes"][0]["training"] = dict(reversed(raw["recipes"][0]["training"].items()))
    for key in list(reversed(raw)):
        raw[key] = raw.pop(key)


# what is done -> jobs that it concerns; these and all that follow must run, no more and no fewer
MATRIX = {
    "nothing": (lambda folder: None, nothing),
    "touch every source": (touch_all, nothing),
    "a comment in a score": (append("workflow_scripts/scores/energy.py", "\n# a remark\n"), nothing),
    "a docstring of a network": (replace("workflow_scripts/models/resnet_cifar.py", "Basic blocks in", "Blocks"),
                                 nothing),
    "the text of an error": (replace("workflow_scripts/training/loop.py", "lower training.lr", "less training.lr"),
                             nothing),
    "the keys of the configuration in another order": (_config(_reorder), nothing),
    "a score": (replace("workflow_scripts/scores/energy.py", r"return options\.", "return 1.0 * options."),
                of_score("energy")),
    "a network in use": (append("workflow_scripts/models/resnet_cifar.py", "\nNEW = 1\n"), of_network("resnet_cifar")),
    "a network not in use": (append("workflow_scripts/models/densenet_bc.py", "\nNEW = 1\n"),
                             of_network("densenet_bc")),
    "a method": (append("workflow_scripts/methods/goe.py", "\nNEW = 1\n"), of_recipe(method="goe")),
    "the metrics": (append("workflow_scripts/metrics/ood.py", "\nNEW = 1\n"), uses_metrics),
    "the page's template": (append("workflow_scripts/reporting/page/page.css", "\nb { color: inherit }\n"), PAGE),
    "the cards": (append("workflow_scripts/stages/make_cards.py", "\nNEW = 1\n"), rules("make_cards")),
    "a picture": (append("workflow_scripts/pictures/background_weights.py", "\nNEW = 1\n"),
                  rules("draw_picture", lambda job: job.name == "background_weights")),
    "a reader": (append("workflow_scripts/data/readers/noise.py", "\nNEW = 1\n"),
                 rules("prepare_dataset", lambda job: PLAN.datasets[job.name.split(".")[0]].reader == "noise")),
    "the learning rate": (_config(lambda raw: raw["recipes"][0]["training"].update(lr=0.01)),
                          either(of_recipe(name=PLAN.config.recipes[0].name), MANIFESTS)),
    "an option of a score": (_config(lambda raw: next(s for s in raw["scores"] if s["name"] == "energy")
                                     .update(options={"temperature": 2.0}), "config/scores.yaml"), of_score("energy")),
    "the share that a selection keeps": (_config(lambda raw: next(
        r for r in raw["recipes"] if r["name"] == "random-10")["outliers"]["select"].update(ratio=0.2)),
        either(rules("select_outliers", lambda job: job.run.recipe.name == "random-10"),
               rules("draw_picture", lambda job: job.name == "detection_by_ratio"), MANIFESTS)),
    "the title of a paper": (_set("papers", 0, title="Another title"), either(
        of_paper("make_tables|draw_figures", PLAN.config.papers[0].name), MANIFESTS)),
    "a published number": (replace("config/reference/goe.yaml", r"94\.38", "94.39"), of_paper("make_tables", "goe")),
    "one seed less": (_config(lambda raw: raw.update(seeds=[0])), SHOWN),
    "threads and device": (_config(lambda raw: raw.update(threads=2, device="auto")),
                           MANIFESTS),
}


@pytest.mark.parametrize("case", MATRIX)
def test_only_what_changed_reruns(finished, jobs, tmp_path, case):
    change, concerned = MATRIX[case]
    folder = tmp_path / "moved"  # each case works on a moved copy: a moved checkout reruns nothing either
    shutil.copytree(finished, folder, symlinks=True)
    change(folder)
    assert would_run(folder) == following(jobs, concerned)


def test_a_third_seed_trains_just_its_own_networks(finished, jobs, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder, symlinks=True)
    _config(lambda raw: raw.update(seeds=[0, 1, 2]))(folder)
    of_a_seed = Counter(job.rule for job in jobs if job.run and job.run.seed == 1)
    assert would_run(folder) == of_a_seed + following(jobs, SHOWN)


@pytest.mark.parametrize(("package", "concerned"), [
    ("torch", rules(ON_NETWORKS)),
    ("scikit_image", None),  # the readers that import it, and all that follows
    ("matplotlib", rules("draw_figures|draw_reliability|draw_picture")),
    ("h5py", nothing),
])
def test_a_new_version_of_a_package_reruns_what_uses_it(finished, jobs, tmp_path, package, concerned):
    info = tmp_path / f"{package}-99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 99.0\n")
    found = would_run(finished, PYTHONPATH=str(tmp_path))
    if concerned is None:
        assert 0 < found["prepare_dataset"] < len(PLAN.used_datasets())
    else:
        assert found == following(jobs, concerned)


def test_variants_never_mix(finished, tmp_path):
    folder = tmp_path / "variants"
    shutil.copytree(finished, folder, symlinks=True)
    raw = yaml.safe_load((folder / "config.yaml").read_text())
    raw.update(variant="other", seeds=[5])
    (folder / "other.yaml").write_text(yaml.safe_dump(raw))
    assert would_run(folder, "--configfile", "other.yaml")["train_network"] == len(PLAN.runs) // 2
    pretend_finished(folder, "--configfile", "other.yaml")
    assert would_run(folder, "--configfile", "other.yaml") == {}
    assert would_run(folder) == {}
    assert {p.name for p in (folder / "results").iterdir() if p.is_dir()} == {"small", "other"}
