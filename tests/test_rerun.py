"""The promise: only what changed reruns. Each row: an edit, and exactly the jobs that a dry run then lists."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.checkout import ROOT, copy, pretend_finished, would_run
from workflow_scripts.config.expand import read_plan
from workflow_scripts.config.sections import of_method
from workflow_scripts.digest import digest

PLAN = read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT, {})
RUNS = list(PLAN.runs.values())
PAPERS = len(PLAN.papers)
PAGE = {"make_report": 1}
RELIABLE = [paper.name for paper in PLAN.config.papers if paper.reliability]
SHOWN = {"make_tables": PAPERS, "draw_figures": PAPERS, "draw_reliability": len(RELIABLE), "write_manifest": PAPERS,
         **PAGE}


def shown(runs) -> dict[str, int]:
    """Tables, figures and page of the papers that report any of these networks."""
    keys = {run.key for run in runs}
    papers = sum(any(run.key in keys for run in PLAN.reported(paper)) for paper in PLAN.papers)
    return {"make_tables": papers, "draw_figures": papers, "write_manifest": papers, **PAGE} if keys else {}


def relied_on(runs) -> dict[str, int]:
    """Reliability figures, which show one score and the features of the ID test images."""
    keys = {run.key for run in runs}
    return {"draw_reliability": sum(any(run.key in keys for run in PLAN.reported(paper)) for paper in RELIABLE)}


def measured(runs) -> dict[str, int]:
    return {"compute_metrics": len(runs), **shown(runs)}


def scored(runs, chosen=lambda run, name: True) -> dict[str, int]:
    """Scores of these networks (those that ``chosen`` says), and what follows."""
    named = [(run, name) for run in runs for name in run.scores if chosen(run, name)]
    # a joined score follows the scores it joins
    named = list({(run.key, other): (run, other) for run, name in named for other in (name, *(
        joined for joined, score in run.scores.items() if name in (score.options.get("base"),
                                                                   score.options.get("background"))))}.values())
    network = sum("network" in PLAN.needs(run, name) for run, name in named)
    fused = sum("scores" in PLAN.needs(run, name) for run, name in named)
    return {"score_sets": len(named) - network - fused, "score_network": network, "fuse_scores": fused,
            **measured({run.key: run for run, _ in named}.values())}


def extracted(runs) -> dict[str, int]:
    """Features of these networks, and what follows; scores that run a network see images, not features."""
    jobs = scored(runs)
    return {**jobs, "score_network": 0, **Counter(f"features_{run.id}_all" for run in runs), **relied_on(runs),
            "precompute_statistics": sum(any("statistics" in PLAN.needs(r, n) for n in r.scores)
                                         or of_method(r, "HEAD") == "probe" for r in runs),
            "choose_options": sum(score.choose is not None for r in runs for score in r.scores.values())}


def other_images(runs) -> dict[str, int]:
    return {**extracted(runs), "score_network": scored(runs)["score_network"]}


def trained(runs) -> dict[str, int]:
    return {"train_network": len(runs), **other_images(runs)} if runs else {}


def scored_by(module: str) -> dict[str, int]:
    """Jobs of one score's module and all that follows."""
    return scored(RUNS, lambda run, name: run.scores[name].module == module)


def chooses_by_metrics(run, name: str) -> bool:
    """Scores whose options a sweep chose, or that choose them themselves, by a metric."""
    score = run.scores[name]
    return score.choose is not None or "workflow_scripts/metrics/ood.py" in digest(f"scores.{score.module}")


def with_network(model: str) -> dict[str, int]:
    return trained([run for run in RUNS if run.network.model == model])


def with_recipe(**values: str) -> dict[str, int]:
    return trained([run for run in RUNS if all(getattr(run.recipe, k) == v for k, v in values.items())])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A checkout whose default run counts as finished."""
    folder = copy(tmp_path_factory.mktemp("rerun"))
    pretend_finished(folder)
    assert would_run(folder) == {}
    return folder


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


ONE_MORE_SEED = trained([run for run in RUNS if run.seed == 0]) | SHOWN

# what is done -> jobs that must run, no more and no fewer
MATRIX = {
    "nothing": (lambda folder: None, {}),
    "touch every source": (touch_all, {}),
    "a comment in a score": (append("workflow_scripts/scores/energy.py", "\n# a remark\n"), {}),
    "a docstring of a network": (replace("workflow_scripts/models/resnet_cifar.py", "Basic blocks in", "Blocks"), {}),
    "the text of an error": (replace("workflow_scripts/training/loop.py", "lower training.lr", "less training.lr"), {}),
    "the keys of the configuration in another order": (_config(_reorder), {}),
    "a score": (replace("workflow_scripts/scores/energy.py", r"return options\.", "return 1.0 * options."),
                scored_by("energy")),
    "a network in use": (append("workflow_scripts/models/resnet_cifar.py", "\nNEW = 1\n"),
                         with_network("resnet_cifar")),
    "a network not in use": (append("workflow_scripts/models/densenet_bc.py", "\nNEW = 1\n"),
                             with_network("densenet_bc")),
    "a method": (append("workflow_scripts/methods/cross_entropy.py", "\nNEW = 1\n"),
                 with_recipe(method="cross_entropy")),
    "the metrics": (append("workflow_scripts/metrics/ood.py", "\nNEW = 1\n"),
                    # and what chooses its options by them
                    {**scored(RUNS, chooses_by_metrics), "choose_options": extracted(RUNS)["choose_options"],
                     **measured(RUNS), **relied_on(RUNS)}),
    "the page's template": (append("workflow_scripts/reporting/page/page.css", "\nb { color: inherit }\n"), PAGE),
    "the cards": (append("workflow_scripts/cards.py", "\nNEW = 1\n"), {"make_cards": 1, **PAGE}),
    "a reader": (append("workflow_scripts/data/readers/noise.py", "\nNEW = 1\n"),
                 {"prepare_dataset": 3, "make_cards": 1, **other_images(RUNS)}),
    "the learning rate": (_config(lambda raw: raw["recipes"][0]["training"].update(lr=0.01)),
                          with_recipe(name=PLAN.config.recipes[0].name)),
    "an option of a score": (_config(lambda raw: next(s for s in raw["scores"] if s["name"] == "energy")
                                     .update(options={"temperature": 2.0}), "config/scores.yaml"),
                             scored_by("energy")),
    "the title of a paper": (_set("papers", 0, title="Another title"),
                             {"make_tables": 1, "draw_figures": 1, "write_manifest": PAPERS, **PAGE}),
    "a published number": (replace("config/reference/goe.yaml", r"94\.38", "94.39"),
                           {"make_tables": 1, "write_manifest": 1, **PAGE}),
    "a third seed": (_config(lambda raw: raw.update(seeds=[0, 1, 2])), ONE_MORE_SEED),
    "one seed less": (_config(lambda raw: raw.update(seeds=[0])), SHOWN),
    "threads and device": (_config(lambda raw: raw.update(threads=2, device="auto")),
                           {"write_manifest": PAPERS, **PAGE}),
}


@pytest.mark.parametrize("case", MATRIX)
def test_only_what_changed_reruns(finished, tmp_path, case):
    change, expected = MATRIX[case]
    folder = tmp_path / "moved"  # each case works on a moved copy: a moved checkout reruns nothing either
    shutil.copytree(finished, folder, symlinks=True)
    change(folder)
    assert would_run(folder) == Counter({k: v for k, v in expected.items() if v})


@pytest.mark.parametrize(("package", "expected"), [
    ("torch", trained(RUNS)),
    ("scikit_image", None),  # the readers that import it, and all that follows
    ("matplotlib", {"draw_figures": PAPERS, "draw_reliability": len(RELIABLE), **PAGE}),
    ("h5py", {}),
])
def test_a_new_version_of_a_package_reruns_what_uses_it(finished, tmp_path, package, expected):
    info = tmp_path / f"{package}-99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 99.0\n")
    jobs = would_run(finished, PYTHONPATH=str(tmp_path))
    if expected is None:
        assert 0 < jobs["prepare_dataset"] < len(PLAN.used_datasets())
    else:
        assert jobs == Counter({k: v for k, v in expected.items() if v})


def test_variants_never_mix(finished, tmp_path):
    folder = tmp_path / "variants"
    shutil.copytree(finished, folder, symlinks=True)
    raw = yaml.safe_load((folder / "config.yaml").read_text())
    raw.update(variant="other", seeds=[5])
    (folder / "other.yaml").write_text(yaml.safe_dump(raw))
    assert would_run(folder, "--configfile", "other.yaml")["train_network"] == len(RUNS) // 2
    pretend_finished(folder, "--configfile", "other.yaml")
    assert would_run(folder, "--configfile", "other.yaml") == {}
    assert would_run(folder) == {}
    assert {p.name for p in (folder / "results").iterdir() if p.is_dir()} == {"small", "other"}
