"""The code digest: what counts as a change, and for whom."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from workflow_scripts.core import digest as own
from workflow_scripts.core.digest import NUMERICAL, PLUMBING, closure, digest


@pytest.fixture
def checkout(tmp_path):
    """A copy of the code whose digests are computed by a fresh process."""
    shutil.copytree(ROOT / "workflow_scripts", tmp_path / "workflow_scripts",
                    ignore=shutil.ignore_patterns("__pycache__"))

    def compute(stage: str, *modules: str) -> dict[str, str]:
        code = f"import json, workflow_scripts.core.digest as d; print(json.dumps(d.digest{(stage, *modules)!r}))"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    compute.root = tmp_path / "workflow_scripts"
    return compute


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_comments_docstrings_formatting_and_messages_do_not_count(checkout):
    before = checkout("stages.train_network", "models.resnet_cifar", "methods.cross_entropy")
    model = checkout.root / "models" / "resnet_cifar.py"
    model.write_text("# a comment\n" + model.read_text().replace('"""Basic blocks in', '"""Blocks, basic, in'))
    edit(checkout.root / "training" / "loop.py", "lower training.lr or look", "lower training.lr, or look")
    edit(checkout.root / "core" / "errors.py", "did you mean", "perhaps you meant")
    assert checkout("stages.train_network", "models.resnet_cifar", "methods.cross_entropy") == before


def test_a_real_edit_counts_for_its_users_only(checkout):
    train, score = "stages.train_network", "stages.score_sets"
    stages = {"pretrain": (train, "models.resnet_cifar"), "dense": (train, "models.densenet_bc"),
              "energy": (score, "scores.energy"), "msp": (score, "scores.msp"), "metrics": ("stages.compute_metrics",)}
    before = {name: checkout(*arguments) for name, arguments in stages.items()}
    edit(checkout.root / "models" / "resnet_cifar.py", "channels_in != channels", "channels != channels_in")
    edit(checkout.root / "scores" / "energy.py", "return options.temperature", "return 1.0 * options.temperature")
    after = {name: checkout(*arguments) for name, arguments in stages.items()}
    assert {name for name in stages if before[name] != after[name]} == {"pretrain", "energy"}
    assert {k for k, v in after["energy"].items() if before["energy"][k] != v} == {"workflow_scripts/scores/energy.py"}


def test_versions_of_the_packages_a_stage_uses_are_part(monkeypatch):
    assert {"torch", "numpy"} <= digest("stages.train_network").keys()
    assert "torch" not in digest("stages.score_sets", "scores.energy")
    monkeypatch.setattr(own, "version", lambda name: "99")
    own._digest.cache_clear()
    try:
        assert digest("stages.train_network")["torch"] == "99"
    finally:
        monkeypatch.undo()
        own._digest.cache_clear()


def test_a_template_counts(checkout):
    before = checkout("stages.make_report")
    templates = [k for k in before if not k.endswith(".py") and "/" in k]
    assert templates
    path = checkout.root.parent / templates[0]
    path.write_text(path.read_text() + "\n<!-- -->")
    assert checkout("stages.make_report") != before


def test_every_package_is_either_numerical_or_plumbing():
    modules = [p.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
               for p in (ROOT / "workflow_scripts").rglob("*.py")]
    _, foreign = closure(*modules)
    assert foreign - NUMERICAL.keys() - PLUMBING == set()


def test_scores_and_metrics_reach_no_torch():
    for stage in (("stages.score_sets",), ("stages.compute_metrics",), ("stages.precompute_statistics",),
                  ("stages.make_tables",), ("stages.make_report",), ("stages.prepare_dataset",)):
        assert "torch" not in digest(*stage), stage
