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

PLAN = read_plan(yaml.safe_load((ROOT / "config.yaml").read_text()), ROOT, {})
PAPERS = len(PLAN.papers)
NETWORKS = len(PLAN.runs)
ALL_SCORES = [(run, name) for run in PLAN.runs.values() for name in run.scores]
WITH_NETWORK = sum("network" in PLAN.needs(run, name) for run, name in ALL_SCORES)
SWEEPS = sum(run.scores[name].choose is not None for run, name in ALL_SCORES)

PAGE = {"make_report": 1}
SHOWN = {"make_tables": PAPERS, "draw_figures": PAPERS, "write_manifest": PAPERS, **PAGE}
MEASURED = {"compute_metrics": NETWORKS, **SHOWN}
STATISTICS = sum(any("statistics" in PLAN.needs(run, s) for s in run.scores) for run in PLAN.runs.values())
SCORED = {"score_sets": len(ALL_SCORES) - WITH_NETWORK, "precompute_statistics": STATISTICS, "choose_options": SWEEPS,
          **MEASURED}
EXTRACTED = {"features_digits_all": NETWORKS, **SCORED}
SEEN_BY_NETWORK = {"score_network": WITH_NETWORK, **EXTRACTED}  # other test images
TRAINED = {"train_network": NETWORKS, **SEEN_BY_NETWORK}


def scored_by(module: str) -> dict[str, int]:
    """Jobs of one score's module and all that follows."""
    runs = [run for run in PLAN.runs.values() if any(s.module == module for s in run.scores.values())]
    return {"score_sets": sum(s.module == module for run in runs for s in run.scores.values()),
            "compute_metrics": len(runs), **SHOWN}


def with_network(model: str) -> dict[str, int]:
    return TRAINED if any(run.network.model == model for run in PLAN.runs.values()) else {}


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


ONE_MORE_SEED = {kind: count // 2 for kind, count in TRAINED.items() if kind not in SHOWN} | SHOWN

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
    "a method": (append("workflow_scripts/methods/cross_entropy.py", "\nNEW = 1\n"), TRAINED),
    "the metrics": (append("workflow_scripts/metrics/ood.py", "\nNEW = 1\n"), MEASURED),
    "the page's template": (append("workflow_scripts/reporting/page/page.css", "\nb { color: inherit }\n"), PAGE),
    "the cards": (append("workflow_scripts/cards.py", "\nNEW = 1\n"), {"make_cards": 1, **PAGE}),
    "a reader": (append("workflow_scripts/data/readers/noise.py", "\nNEW = 1\n"),
                 {"prepare_dataset": 3, "make_cards": 1, **SEEN_BY_NETWORK}),
    "the learning rate": (_config(lambda raw: raw["recipes"][0]["training"].update(lr=0.01)), TRAINED),
    "an option of a score": (_config(lambda raw: next(s for s in raw["scores"] if s["name"] == "energy")
                                     .update(options={"temperature": 2.0}), "config/scores.yaml"),
                             scored_by("energy")),
    "the title of a paper": (_set("papers", 0, title="Another title"),
                             {"make_tables": 1, "draw_figures": 1, "write_manifest": PAPERS, **PAGE}),
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
    ("torch", TRAINED),
    ("scikit_image", None),  # the readers that import it, and all that follows
    ("matplotlib", {"draw_figures": PAPERS, **PAGE}),
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
    assert would_run(folder, "--configfile", "other.yaml")["train_network"] == NETWORKS // 2
    pretend_finished(folder, "--configfile", "other.yaml")
    assert would_run(folder, "--configfile", "other.yaml") == {}
    assert would_run(folder) == {}
    assert {p.name for p in (folder / "results").iterdir() if p.is_dir()} == {"small", "other"}
