"""`ood score`: arrays of any tool -> scores, metrics and a LaTeX table, and one line for each way they can be wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.checkout import ROOT
from workflow_scripts import score
from workflow_scripts.core.errors import OODError
from workflow_scripts.metrics.ood import ood_metrics
from workflow_scripts.scores import foreign

K, D = 4, 6


def made(**changes) -> dict[str, np.ndarray]:
    """Four classes in six dimensions; OOD features lie about the origin."""
    random = np.random.RandomState(0)
    centres = weight = 3 * random.normal(size=(K, D))  # the nearest centre wins
    arrays: dict[str, np.ndarray] = {"head_weight": weight, "head_bias": -(weight ** 2).sum(1) / 2}
    for name, count in (("train", 80), ("id", 40), ("far", 30), ("other_noise", 20)):
        labels = np.arange(count) % K
        spread = random.normal(size=(count, D))
        arrays[f"{name}_features"] = spread + centres[labels] * (name in ("train", "id"))
        if name in ("train", "id"):
            arrays[f"{name}_labels"] = labels
        arrays[f"{name}_logits"] = arrays[f"{name}_features"] @ weight.T + arrays["head_bias"]
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def test_scores_are_those_of_the_formulas_and_metrics_those_of_the_metrics():
    arrays = made()
    found = score.scores(arrays, ["energy", "knn"], {"knn": {"K": 5}})
    assert list(found["energy"]) == ["id", "far", "other_noise"]
    logits = arrays["far_logits"]
    assert np.allclose(found["energy"]["far"], np.log(np.exp(logits).sum(1)))
    unit = [arrays[f"{name}_features"] / np.linalg.norm(arrays[f"{name}_features"], axis=1, keepdims=True)
            for name in ("far", "train")]
    distances = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=-1)
    assert np.allclose(found["knn"]["far"], -np.sort(distances, axis=1)[:, 4])
    table = score.table(arrays, ["energy", "knn"], {"knn": {"K": 5}})
    values = table.set_index(["score", "dataset", "metric"])["value"]
    for name in found:
        for metric, value in ood_metrics(found[name]["id"], found[name]["far"]).items():
            assert values[name, "far", metric] == value
    assert values["energy", "id", "accuracy"] == (arrays["id_logits"].argmax(1) == arrays["id_labels"]).mean()
    assert dict(table.dtypes.astype(str)) == {"score": "str", "dataset": "str", "group": "str", "metric": "str",
                                              "value": "float64", "n_id": "int64", "n_ood": "int64"}


def test_logits_are_computed_of_features_and_head():
    whole = score.scores(made(), ["msp", "vim"])
    without = {f"{name}_logits": None for name in ("train", "id", "far", "other_noise")}
    bare = score.scores(made(**without), ["msp", "vim"])
    for name in whole:
        assert np.allclose(whole[name]["far"], bare[name]["far"])


def test_tensors_and_half_precision_are_taken():
    import torch

    arrays = {name: array.astype(np.float16) if array.dtype.kind == "f" else array for name, array in made().items()}
    single = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in arrays.items()}
    found = score.scores({name: torch.from_numpy(array) for name, array in arrays.items()}, ["knn"], {"knn": {"K": 5}})
    assert (found["knn"]["far"] == score.scores(single, ["knn"], {"knn": {"K": 5}})["knn"]["far"]).all()
    line = r"^far_features: expected an array, found Tensor \(.*give \.detach\(\)\.cpu\(\)$"
    with pytest.raises(OODError, match=line):
        foreign.read(made(far_features=torch.zeros(30, D, requires_grad=True)))


def test_every_score_that_is_said_to_be_allowed_can_be_computed():
    arrays = made()
    names = score.allowed(foreign.read(arrays))
    assert {"msp", "energy", "knn", "vim", "mahalanobis", "dice", "ash"} <= set(names) and "odin" not in names
    for name in names:
        found = score.scores(arrays, [name], {"knn": {"K": 5}} if name == "knn" else {})[name]
        assert all(np.isfinite(values).all() and len(values) for values in found.values()), name
    assert score.allowed(foreign.read(made(**dict.fromkeys(
        ["head_weight", "head_bias", *(key for key in arrays if key.startswith("train") or key.endswith("features"))])))
        ) == [name for name in names if set(score.plugins.spec("scores", name).needs) == {"logits"}]


@pytest.mark.parametrize(("changes", "line"), [
    ({"far_features": np.full((30, D), np.nan)}, "far_features: NaN or infinite in row 0 (180 of 180 numbers)"),
    ({"far_features": np.zeros((30, D, 1))}, "far_features: expected shape (N, D or K), found (30, 6, 1)"),
    ({"far_features": np.zeros((30, D + 1))}, "features: expected the same number of columns everywhere, found "
     "head_weight 6, "),
    ({"far_features": np.zeros((29, D))}, "set far: expected a row for each image in every array, found "),
    ({"far_logits": np.array([["a"] * K] * 30)}, "far_logits: expected real numbers, found <U1"),
    ({"id_labels": np.full(40, K)}, "id_labels: expected classes 0 to 3, found 4 to 4"),
    ({"id_labels": np.zeros(40)}, "id_labels: expected whole numbers, found float64"),
    ({"far_feature": np.zeros((30, D))}, "'far_feature' is no array that a score reads; did you mean 'far_features'?"),
    ({"features": np.zeros((30, D))}, "'features' is no array that a score reads"),
    ({"head_bias": None}, "head_bias is missing; "),
    ({"head_bias": np.zeros(K + 1)}, "head: expected head_weight (K, D) and head_bias (K,), found (4, 6) and (5,)"),
    ({"head_bias": np.full(K, 50.0)}, "train_logits differ from head_weight @ train_features + head_bias by up to "),
    ({"id_features": None, "id_logits": None, "id_labels": None}, "expected arrays of the ID test set (id_...) and of"),
    ({"id_features": None, "id_logits": None}, "set id: expected id_features or id_logits, found labels alone"),
    ({"far_features": None, "far_logits": None, "far_labels": np.zeros(3, int)}, "set far: expected far_features or"),
    ({"far_features": None, "head_weight": None, "head_bias": None}, "set far lacks far_features, which the ID test"),
    ({"far_features": np.zeros((1, D)), "far_logits": None}, "set far: expected at least two images, found 1"),
])
def test_arrays_that_cannot_be_scored_are_told_in_one_line(changes, line):
    with pytest.raises(OODError) as caught:
        foreign.read(made(**changes))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("changes", "names", "options", "line"), [
    ({}, ["knm"], {}, "--scores: 'knm' is not known; did you mean 'knn'?"),
    ({}, ["knn"], {"knn": {"k": 5}}, "--options knn.k: unknown key 'k'. Allowed here: K."),
    ({}, ["msp"], {"knn": {"K": 5}}, "--options: no score 'knn' is asked for; asked for are msp"),
    ({}, ["odin"], {}, "score 'odin' needs network, which arrays cannot give; the workflow computes it"),
    ({"train_features": None, "train_logits": None, "train_labels": None}, ["knn"], {},
     "score 'knn' needs train_features; give train_features"),
    ({"train_labels": None}, ["mahalanobis"], {}, "score 'mahalanobis' needs "),
    ({}, ["knn"], {"knn": {"K": 81}}, ""),
])
def test_scores_that_cannot_be_computed_are_told_in_one_line(changes, names, options, line):
    with pytest.raises(OODError) as caught:
        score.scores(made(**changes), names, options)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def swapped() -> dict[str, np.ndarray]:
    """ID and OOD test images the other way round."""
    arrays = made(other_noise_features=None, other_noise_logits=None, id_labels=None)
    return arrays | {f"{a}_{kind}": arrays[f"{b}_{kind}"] for a, b in (("id", "far"), ("far", "id"))
                     for kind in ("features", "logits")}


def test_swapped_sets_are_said():
    with pytest.warns(UserWarning, match=r"^set far: AUROC \d+\.\d by knn; have ID and OOD been swapped\?"):
        score.table(swapped(), ["knn"], {"knn": {"K": 5}})


def test_the_latex_table_has_a_row_for_each_score():
    text = score.latex(score.table(made(), ["msp", "vim"]), "My network")
    rows = [line for line in text.splitlines() if line.startswith("My network")]
    assert [row.split(" & ")[1] for row in rows] == ["MSP", "ViM"] and all(row.endswith(r"\\") for row in rows)
    assert r"\toprule" in text and r"Images: ID 40; far 30, other\_noise 20. Bold" in text


def ended(*words: str) -> int:
    try:
        score.main([*words])
    except SystemExit as left:
        return left.code or 0
    return 0


def test_the_command_prints_and_writes(tmp_path, capsys):
    np.savez(tmp_path / "f.npz", **made())
    assert ended(str(tmp_path / "f.npz")) == 0 and "--scores can be ash, " in capsys.readouterr().out
    assert ended(str(tmp_path / "f.npz"), "--scores", "energy,knn", "--options", "knn.K=5", "--out",
                 str(tmp_path / "out")) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["OOD", "set", "ID", "images", "OOD", "images", "score", "AUROC", "FPR95", "(ID+)"]
    assert len(said) == 6 and said[1].split()[:4] == ["far", "40", "30", "energy"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.csv", "table.tex", "energy.npz", "knn.npz"}
    with np.load(tmp_path / "out" / "knn.npz") as file:
        assert {name: len(file[name]) for name in file} == {"id": 40, "far": 30, "other_noise": 20}


def test_swapped_sets_end_the_command_with_a_line_and_status_2(tmp_path, capsys):
    np.savez(tmp_path / "f.npz", **swapped())
    assert ended(str(tmp_path / "f.npz"), "--scores", "knn", "--options", "knn.K=5") == 2
    said = capsys.readouterr()
    assert said.err.startswith("warning: set far: AUROC ") and len(said.err.splitlines()) == 1 and "knn" in said.out


@pytest.mark.parametrize(("content", "words", "line"), [
    (None, [], "there is no such file; np.savez("),
    (b"half", [], "cannot be read ("),
    (np.array([{"a": 1}], dtype=object), [], "cannot be read (it holds Python objects)"),
    ("whole", ["--scores", "knn", "--options", "K=5"], "--options: expected SCORE.OPTION=VALUE such as knn.K=10"),
    ("nan", ["--scores", "msp"], "far_logits: NaN or infinite in row 3 (1 of 120 numbers)"),
])
def test_what_the_command_cannot_do_is_told_in_one_line(tmp_path, capsys, content, words, line):
    path = tmp_path / "f.npz"
    arrays = made()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.savez(path, id_features=content)
    elif content:
        arrays["far_logits"][3, 1] = np.nan if content == "nan" else arrays["far_logits"][3, 1]
        np.savez(path, **arrays)
    assert ended(str(path), *words) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and line in said and len(said.splitlines()) == 1


def test_torch_is_not_imported():
    code = "import sys, workflow_scripts.score as s; s.parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
