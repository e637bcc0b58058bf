"""Every stage's section at both ends: what does not fit is one line that names key, found, expected and the nearest."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.section import Section

ROOT = Path(__file__).resolve().parents[2]
RULES = ("datasets", "training", "evaluate", "tuning")
NETWORK = {"name": "small", "model": "resnet_cifar", "options": {}}
PASS = {"network": NETWORK, "normalise": "per_image", "batch_size": 16}
ROW = {"dataset": "x", "split": "train", "options": {"files": "x"}, "raw": []}
RECIPE = {"method": "cross_entropy", "normalise": "per_image", "training": {
    "epochs": 1, "batch_size": 4, "lr": 0.1, "schedule": {"name": "cosine"}}}
# stage -> (a section that fits, one of its required keys, which is then misspelt, left out and given another type)
SECTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "cache_frozen_blocks": (PASS, "network"),
    "choose_network_options": ({**PASS, "score": "odin"}, "score"),
    "choose_options": ({"score": "knn"}, "score"),
    "extract_pseudo_ood": (PASS, "batch_size"),
    "tune_options": (PASS, "normalise"),
    "select_best_recipe": ({**PASS, "candidates": ["a", "b"], "by": "auroc", "validation": {"count": 4}}, "candidates"),
    "compare_sets": ({"sets": [{"name": "x.train", "use": "train"}]}, "sets"),
    "compute_metrics": ({"id": "x.test", "groups": {"far": ["y.test"]}}, "groups"),
    "extract_features": ({**PASS, "sets": ["x.test"]}, "sets"),
    "fetch_archive": ({"name": "x.tar", "urls": ["https://example.org/x.tar"]}, "name"),
    "fuse_scores": ({"train": "x.train"}, "train"),
    "import_scores": ({"id": "x", "groups": {"far": ["y"]}, "files": {"y": 0}}, "files"),
    "import_weights": ({"network": NETWORK}, "network"),
    "make_masks": ({"network": NETWORK, "normalise": "per_image"}, "network"),
    "make_panels": ({"network": NETWORK, "normalise": "per_image", "classifier_normalise": "per_image", "options": {},
                     "images": 6}, "images"),
    "measure_distances": (PASS, "batch_size"),
    "pack_dataset": (ROW, "dataset"),
    "prepare_dataset": ({**ROW, "reader": "images", "classes": 0, "geometry": "crop8", "limit_per_class": None,
                         "sample": None, "count": None}, "geometry"),
    "score_network": ({**PASS, "score": "odin", "sets": ["x.test"]}, "score"),
    "score_sets": ({"score": "energy"}, "score"),
    "select_outliers": ({"rule": "random", "ratio": 0.5, "size": "exact", "seed": 0}, "ratio"),
    "train_start": ({"network": NETWORK, "recipe": RECIPE, "released": [], "epochs": 3}, "recipe"),
    "train_network": ({"network": NETWORK, "recipe": RECIPE, "released": [], "steps": None}, "recipe"),
}


def section_of(stage: str) -> type[Section]:
    """The last section that a stage's module of sections defines."""
    module = importlib.import_module(f"workflow_scripts.stages.sections.{stage}")
    return next(kind for kind in reversed(list(vars(module).values()))
                if isinstance(kind, type) and issubclass(kind, Section) and kind.__module__ == module.__name__)


def wrong(stage: str) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Sections that do not fit, and what their line names."""
    good, key = SECTIONS[stage]
    rest = {name: value for name, value in good.items() if name != key}
    misspelt = f"{key[:-2]}{key[-1]}{key[-2]}"
    return {"unknown": ({**rest, misspelt: good[key]}, [f".{misspelt}: unknown key", f"did you mean '{key}'?"]),
            "missing": (rest, [f".{key}: required but missing", "; expected ", "found "]),
            "ill-typed": ({**good, key: [[3]] if key != "candidates" else 3}, [f".{key}", "found "])}


CASES = [(stage, case) for stage in SECTIONS for case in ("unknown", "missing", "ill-typed")]


def test_every_stage_with_a_config_has_its_section():
    text = "".join((ROOT / "rules" / f"{name}.smk").read_text() for name in RULES)
    configured = set(re.findall(r"workflow_scripts\.stages\.(\w+) --config", text))
    assert configured == SECTIONS.keys()
    modules = {path.stem for path in (ROOT / "workflow_scripts" / "stages" / "sections").glob("*.py")}
    assert configured <= modules


def test_stages_import_no_other_stage():
    stages = {path.stem for path in (ROOT / "workflow_scripts" / "stages").glob("*.py")} - {"__init__"}
    for stage in SECTIONS:
        tree = ast.parse((ROOT / "workflow_scripts" / "stages" / f"{stage}.py").read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {f"workflow_scripts.stages.{other}" for other in stages}, stage


@pytest.mark.parametrize("stage", SECTIONS)
def test_what_fits_is_the_same_at_both_ends(stage):
    kind = section_of(stage)
    built = kind.of(**SECTIONS[stage][0])
    assert kind.load(built.dump()) == built


@pytest.mark.parametrize(("stage", "case"), CASES)
def test_the_wiring_refuses(stage, case):
    section, parts = wrong(stage)[case]
    with pytest.raises(OODError) as error:
        section_of(stage).of(**section)
    message = str(error.value)
    assert message.startswith(f"section {stage}.") and "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(("stage", "case"), CASES)
def test_the_stage_refuses(stage, case, capsys):
    section, parts = wrong(stage)[case]
    module = importlib.import_module(f"workflow_scripts.stages.{stage}")
    with pytest.raises(SystemExit) as end:
        module.main(["--config", json.dumps(section)])
    message = capsys.readouterr().err
    assert end.value.code == 1 and message.startswith("error: --config.") and message.count("\n") == 1
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("stage", SECTIONS)
def test_help_lists_every_key_with_what_it_means(stage, capsys):
    module = importlib.import_module(f"workflow_scripts.stages.{stage}")
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    for key in section_of(stage).model_fields:
        assert re.search(rf"^  {key} +\S", text, re.M), key


def test_sections_are_light():
    """The Snakefile imports them."""
    code = ("import importlib, sys\n"
            f"for stage in {sorted(SECTIONS)}: importlib.import_module(f'workflow_scripts.stages.sections.{{stage}}')\n"
            "print(sorted({'torch', 'numpy', 'h5py'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
