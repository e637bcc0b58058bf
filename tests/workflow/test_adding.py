"""Adding a score, method, network, reader, picture, metric rule or check is one file and one entry."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT, copy, would_run
from workflow_scripts.config import published_checks
from workflow_scripts.core import specs

HEAD = '"""Added by a test."""\n\nfrom __future__ import annotations\n\nfrom dataclasses import dataclass\n\n'
OPTIONS = '@dataclass(frozen=True)\nclass Options:\n    size: int = 8\n    """A size."""\n\n\n'

FILES = {
    "scores": HEAD + '''from workflow_scripts.core.specs import ScoreSpec
from workflow_scripts.scores.arrays import float64

SPEC = ScoreSpec(needs={"logits"})


''' + OPTIONS + '''def score(options, known, state, batch):
    """The first logit. (N, K) -> (N,)."""
    return options.size * float64(batch.logits)[:, 0]
''',
    "methods": HEAD + '''from torch.nn import functional

from workflow_scripts.core.specs import MethodSpec
from workflow_scripts.methods.base import Method

SPEC = MethodSpec(defects={"bare.1": "a defect that this test makes up"})


''' + OPTIONS + '''class Bare(Method):
    def loss(self, network, batch):
        logits = network(batch.images)
        return functional.cross_entropy(logits, batch.labels), logits


def build(options, released):
    return Bare()
''',
    "models": HEAD + '''from torch import nn

from workflow_scripts.core.specs import ModelSpec
from workflow_scripts.models.base import Classifier, relu

SPEC = ModelSpec()


''' + OPTIONS + '''class Bare(Classifier):
    def __init__(self, width, classes):
        super().__init__()
        self.convolution, self.fc = nn.Conv2d(3, width, 3, 4), nn.Linear(width, classes)

    def maps(self, x):
        return relu(self.convolution(x))


def build(options, classes):
    return Bare(options.size, classes)
''',
    "data.readers": HEAD + '''import numpy as np

from workflow_scripts.core.specs import ReaderSpec
from workflow_scripts.data.reading import Images, array_blocks, unlabelled

SPEC = ReaderSpec()


''' + OPTIONS + '''def read(options, root):
    pixels = np.zeros((20, options.size, options.size, 3), np.uint8)
    return Images(unlabelled(20), [str(i) for i in range(20)], (), {}, array_blocks(pixels))
''',
    "pictures": HEAD + '''from matplotlib.figure import Figure

from workflow_scripts.core.specs import PictureSpec
from workflow_scripts.pictures.base import Drawing

SPEC = PictureSpec(needs={"metrics"}, scope="one")


''' + OPTIONS + '''def draw(options, runs, names):
    return Drawing(Figure(), "Nothing", "Nothing.")
''',
    "metrics.rules": '''"""Added by a test."""

from workflow_scripts.core.specs import RuleSpec
from workflow_scripts.metrics.ood import auroc, curve

SPEC = RuleSpec()


def ood(id_scores, ood_scores):
    """The AUROC alone."""
    return {"auroc": auroc(curve(id_scores, ood_scores))}
''',
    "agreement": '''"""Added by a test."""

from workflow_scripts.core.specs import CheckSpec

SPEC = CheckSpec(files={"scores"})


def compute(given):
    """The number of lines of a released file."""
    return {"lines": float(len(given.file("scores").read_text().splitlines()))}
''',
}

CHECK = """
  - name: bare_plugin
    title: Bare
    source: nobody
    files: {scores: {find: [bare.txt], archive: odin-confidence_Base_In.txt}}
    printed: {lines: "9000"}
    proves: Nothing.
    leaves_open: Everything.
"""

ROW = """
bare_rows:
  label: Bare
  about: Black images.
  licence: MIT
  url: https://example.org/bare
  reader: bare_plugin
  splits: {test: {}}
  counts: {test: 20}
  geometry: squash32
"""
CONFIGURATION = """
variant: bare
include: [config/scores.yaml]
seeds: [0]
device: cpu
networks: [{name: bare-net, model: bare_plugin}]
recipes:
  - name: bare-recipe
    label: Bare
    method: bare_plugin
    normalise: {mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
    training: {epochs: 1, batch_size: 64, lr: 0.1, schedule: {name: constant}}
papers: [{name: bare, title: Bare, pictures: [{picture: bare_plugin, recipes: [bare-recipe]}]}]
experiments:
  - {paper: bare, id: digits, networks: [bare-net], recipes: [bare-recipe], scores: [bare_plugin, msp],
     ood: {far: [bare_rows]}, compat: [bare-plugin]}
"""
PAGES = ("config.reference", "config.scores_page", "config.datasets_page",
         "planning.count --configfile bare.yaml --write")
LISTING = [  # tests that go through all plugins, all configurations or all rows
    "tests/core/test_specs.py", "tests/config/test_config.py", "tests/core/test_digest.py",
    "tests/config/test_catalogue.py", "tests/config/test_datasets_page.py", "tests/config/test_scores_page.py",
    "tests/metrics/test_metrics.py",
    "tests/stages/test_evaluate.py", "tests/models/test_models.py",
    "tests/scores/test_contract.py", "tests/scores/test_stages.py", "tests/scores/test_network.py",
    "tests/papers/test_dfb_config.py", "tests/planning/test_plan.py",
]
ALL_OF_THEM = ("read_is or described_once or reference_page or option_is_documented or declare or page or row or rule "
               "or offers_head or equals_numpy or every_score or three_columns or table or configuration")


def run(folder: Path, *words: str) -> str:
    """A module of the scratch copy, which ends well."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, text=True, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.slow
def test_one_of_each_kind_is_one_file_and_one_entry(tmp_path):
    assert FILES.keys() == specs.KINDS.keys()
    folder = copy(tmp_path / "checkout")
    for package, text in FILES.items():
        (folder / "workflow_scripts").joinpath(*package.split("."), "bare_plugin.py").write_text(text)
    (folder / "bare.yaml").write_text(CONFIGURATION)
    for name, entry in (("datasets", ROW), ("scores", "  - {name: bare_plugin, label: Bare}\n"),
                        ("published_checks", CHECK)):
        with open(folder / "config" / f"{name}.yaml", "a") as file:
            file.write(entry)
    for page in PAGES:
        run(folder, *f"workflow_scripts.{page}".split())
    assert "`bare.1`" in (folder / "docs/config.md").read_text()
    jobs = would_run(folder, "--configfile", "bare.yaml")
    assert jobs["train_network"] == 1 and jobs["score_sets"] == 2 and jobs["draw_picture"] == 1, jobs
    checks = len(published_checks.load(ROOT / "config" / "published_checks.yaml", ROOT / "config" / "sources.yaml")[0])
    assert would_run(folder, "published_checks")["check_published"] == checks + 1
    said = run(folder, "pytest", "-p", "no:cacheprovider", "-m", "not slow", "-k", ALL_OF_THEM, *LISTING)
    assert re.search(r"\b[1-9]\d\d passed", said), said
