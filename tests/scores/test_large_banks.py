"""A bank that stays in its file gives the scores of the same bank in memory."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from workflow_scripts.core import plugins
from workflow_scripts.scores import arrays, cached, knn
from workflow_scripts.scores.base import Batch, Head, Known, Statistics
from workflow_scripts.stages import precompute_statistics as precompute
from workflow_scripts.stages import score_sets as score

WIDTH, CLASSES = 24, 4


def write(path, rows, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    h = (np.eye(CLASSES, WIDTH)[labels] * 2 + rng.standard_normal((rows, WIDTH))).astype(np.float32)
    h[0] = 0  # a dead image
    with h5py.File(path, "w") as file:
        file["features"], file["labels"] = h, labels
        file["logits"] = (h[:, :CLASSES] * 2).astype(np.float32)
    return path


@pytest.fixture
def files(tmp_path):
    write(tmp_path / "id.train.h5", 900, 0)
    write(tmp_path / "id.test.h5", 70, 1)
    with h5py.File(tmp_path / "head.h5", "w") as file:
        file["weight"] = np.random.default_rng(2).standard_normal((CLASSES, WIDTH)).astype(np.float32)
        file["bias"] = np.ones(CLASSES, np.float32)
    precompute.main(["--train", str(tmp_path / "id.train.h5"), "--out", str(tmp_path / "s.h5")])
    return tmp_path


def scores(files, name, options):
    score.main(["--config", json.dumps({"score": name, "options": options}), "--sets", str(files / "id.test.h5"),
                "--train", str(files / "id.train.h5"), "--head", str(files / "head.h5"), "--statistics",
                str(files / "s.h5"), "--out", str(files / "out.h5")])
    with h5py.File(files / "out.h5") as file:
        return file["id.test"][:]


@pytest.mark.parametrize(("name", "options"), [
    ("knn", {"K": 7}), ("react", {"percentile": 90.0}), ("dice_react", {"p": 30.0}), ("vim", {"dim": 8}),
    ("residual", {"dim": 8}), ("mahalanobis", {}), ("relative_mahalanobis", {}), ("kl_matching", {}),
    ("she", {}), ("nnguide", {"bank": 300}), ("vra", {}), ("vra", {"per_unit": False}), ("mahalanobis", {"unit": True}),
    ("relation", {"bank": 300}), ("pnml", {}), ("neco", {"dim": 5}), ("cf_ood", {"bank": 90}), ("openmax", {}),
    ("kpca", {}), ("combood", {"bank": 300}), ("grood", {"bank": 300}), ("nac", {}), ("gmm", {}),
    ("weiper", {"repeats": 2, "bank": 300})])
def test_a_bank_in_its_file_scores_the_same(files, monkeypatch, name, options):
    for module, constant in ((knn, "BANK"), (knn, "QUERIES"), (knn, "AT_ONCE"), (arrays, "BLOCK_ROWS")):
        monkeypatch.setattr(module, constant, 64 if constant != "QUERIES" else 32)
    expected = scores(files, name, options)
    asked = []
    original = cached.Rows.__getitem__
    monkeypatch.setattr(cached.Rows, "__getitem__", lambda self, rows: asked.append(rows) or original(self, rows))
    monkeypatch.setattr(cached, "LARGE", 0)
    np.testing.assert_array_equal(scores(files, name, options), expected)
    assert asked and np.ptp(expected) > 0


def test_rows_of_a_file_that_are_not_finite_are_refused(files, monkeypatch):
    with h5py.File(files / "id.train.h5", "a") as file:
        file["features"][5, 3] = np.nan
    monkeypatch.setattr(cached, "LARGE", 0)
    with pytest.raises(SystemExit):
        scores(files, "knn", {"K": 7})


@pytest.mark.parametrize("p", [0.0, 0.1, 37.5, 50.0, 90.0, 99.99, 100.0])
def test_percentiles_of_stored_numbers_are_exact(tmp_path, monkeypatch, p):
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 50)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((333, 7)).astype(np.float32) * 10.0 ** rng.integers(-8, 8, (333, 7)).astype(np.float32)
    x[::3] = np.round(x[::3])  # zeros of both signs, ties
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = x
        assert arrays.percentile_of_all(cached.Rows(file["x"]), p) == float(arrays.percentile(x.reshape(-1), p))


def test_memory_of_knn_is_that_of_blocks(tmp_path, monkeypatch):
    import tracemalloc
    monkeypatch.setattr(knn, "BANK", 256)
    queries = np.random.default_rng(1).random((64, 32), dtype=np.float32)
    peaks = {}
    for rows in (2_000, 20_000):
        with h5py.File(tmp_path / f"{rows}.h5", "w") as file:
            file["x"] = np.random.default_rng(0).random((rows, 32), dtype=np.float32)
            tracemalloc.start()
            bank = knn.fit(knn.Options(K=5), Known(train_features=cached.Rows(file["x"])))
            knn.score(knn.Options(K=5), Known(), bank, Batch(queries))
            peaks[rows] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peaks[20_000] < 1.2 * peaks[2_000] < 20_000 * 32 * 4


@pytest.mark.parametrize(("name", "options"), [
    ("nnguide", {"bank": 200}), ("relation", {"bank": 200}), ("combood", {"bank": 200}), ("cf_ood", {"bank": 200}),
    ("grood", {"bank": 200}), ("weiper", {"bank": 200, "repeats": 2}), ("pnml", {}), ("neco", {}), ("nac", {}),
    ("kpca", {"M": 40}), ("she", {}), ("openmax", {}), ("vra", {"per_unit": False}), ("vra", {"bank": 200}),
    ("gmm", {}), ("mahalanobis", {"unit": True})])
def test_memory_does_not_grow_with_a_bank_in_its_file(tmp_path, monkeypatch, name, options):
    import tracemalloc
    monkeypatch.setattr(arrays, "BLOCK_ROWS", 256)
    rng = np.random.default_rng(0)
    weight, module = np.eye(CLASSES, 32, dtype=np.float32), plugins.load("scores", name)
    peaks = {}
    for rows in (2_000, 20_000):
        labels = np.arange(rows) % CLASSES
        h = rng.random((rows, 32), dtype=np.float32) + weight[labels]
        logits = h @ weight.T
        means = np.stack([h[labels == c].astype(float).mean(0) for c in range(CLASSES)])
        with h5py.File(tmp_path / f"{rows}.h5", "w") as file:
            file["h"], file["z"] = h, logits
            known = Known(Head(weight, np.zeros(CLASSES, np.float32)), None,
                          Statistics(means, np.bincount(labels), h.mean(0).astype(float)), cached.Rows(file["h"]),
                          cached.Rows(file["z"]), labels)
            del h, logits
            tracemalloc.start()
            module.fit(module.Options(**options), known)
            peaks[rows] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peaks[20_000] < 1.2 * peaks[2_000] + 20_000 * 8  # the labels' part
