"""HIMPLoS's curves over p and lambda, from features of made-up networks."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.scores_data import evidence, run
from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.ood import auroc, curve, fpr95
from workflow_scripts.pictures import mask_and_clip
from workflow_scripts.pictures.base import Run
from workflow_scripts.scores import himplos
from workflow_scripts.scores.base import Batch

OPTIONS = mask_and_clip.Options(p=(0, 60, 80), clip=(0.5, 1.6, float("inf")))


def files(folder: Path, seed: int) -> tuple[Run, dict]:
    """A network's files, and what they hold."""
    known, batch = evidence(seed)
    folder.mkdir()
    sets = {"rows": batch.features[:30], "near": batch.features[30:45], "far": batch.features[45:] * 0.5}
    for name, features in sets.items():
        with h5py.File(folder / f"{name}.test.h5", "w") as file:
            file["features"], file["logits"] = features, features[:, :5]
            file["labels"] = np.zeros(len(features), np.int64)
    with h5py.File(folder / "head.h5", "w") as file:
        file["weight"], file["bias"] = known.head.weight, known.head.bias
    with h5py.File(folder / "statistics.h5", "w") as file:
        for key, part in vars(known.statistics).items():
            file[key] = part
    (folder / "scores").mkdir()
    for name, module, options in (("himplos", "himplos", {"p": 60.0, "clip": 1.6}), ("energy", "energy", {})):
        with h5py.File(folder / "scores" / f"{name}.h5", "w") as file:
            file.attrs.update(score=module, options=json.dumps(options))
    given = {"head": str(folder / "head.h5"), "statistics": str(folder / "statistics.h5"),
             "test_features": str(folder / "rows.test.h5"),
             "ood_features": [str(folder / f"{name}.test.h5") for name in ("near", "far")],
             "scores": [str(path) for path in sorted((folder / "scores").iterdir())]}
    return Run("rows", "net", "pretrain", "Cross-entropy", seed, {}, given), {"known": known, **sets}


@pytest.fixture
def two(tmp_path):
    return [files(tmp_path / f"seed{seed}", seed) for seed in (0, 1)]


def test_the_curves_are_the_scores_on_the_test_sets(two):
    drawing = mask_and_clip.draw(OPTIONS, [given for given, _ in two], {"rows": "Rows"})
    facts = drawing.facts["rows/net/pretrain"]
    assert {name: list(values) for name, values in facts.items()} == {
        "p": ["0", "60", "80"], "clip": ["0.5", "1.6", "inf"]}
    for name, value, options in (("p", "80", {"p": 80, "clip": 1.6}), ("clip", "0.5", {"p": 60, "clip": 0.5}),
                                 ("clip", "inf", {"p": 60, "clip": float("inf")}), ("p", "60", {"p": 60, "clip": 1.6})):
        for seed, (_, made) in enumerate(two):
            scores = {key: run(himplos, himplos.Options(**options), made["known"], Batch(features=made[key]))
                      for key in ("rows", "near", "far")}
            curves = [curve(scores["rows"], scores[key]) for key in ("near", "far")]
            for measure, of in (("AUROC", auroc), ("FPR95", fpr95)):
                assert facts[name][value][measure][seed] == pytest.approx(np.mean([of(one) for one in curves]))
    assert facts["p"]["60"] == facts["clip"]["1.6"]  # the two meet where the score is
    assert len({str(one) for one in facts["p"].values()}) == 3
    titles = [axis.get_title(loc) for axis in drawing.figure.axes for loc in ("left", "right")]
    assert titles == ["Rows, net", "lambda = 1.6", "Cross-entropy", "p = 60"]


@pytest.mark.parametrize(("score", "words"), [("energy", "'energy' is of module 'energy', expected himplos"),
                                              ("himplo", "did you mean 'himplos'")])
def test_another_score_is_refused(two, score, words):
    with pytest.raises(OODError, match=words):
        mask_and_clip.draw(mask_and_clip.Options(score=score), [two[0][0]], {})
