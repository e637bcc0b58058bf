"""The stages ``precompute`` and ``score``: files in, files out, and what they refuse."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tests.scores_data import CLASSES, WIDTH, evidence, run
from workflow_scripts.core import plugins
from workflow_scripts.scores import cached
from workflow_scripts.stages import precompute_statistics as precompute
from workflow_scripts.stages import score_sets as score


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


@pytest.fixture
def files(tmp_path):
    """Two test sets, train set, head with batch norm and statistics of the made-up network, in float32."""
    known, batch = evidence(dtype=np.float32)
    write(tmp_path / "train.h5", features=known.train_features, logits=known.train_logits, labels=known.train_labels,
          background=known.train_background, **{f"shuffled/{key}": getattr(known.shuffled, key)
                                                for key in ("logits", "background")})
    for name, rows in (("digits.test", slice(0, 40)), ("faces.test", slice(40, 60))):
        write(tmp_path / f"{name}.h5", features=batch.features[rows], logits=batch.logits[rows],
              background=batch.background[rows], labels=np.zeros(rows.stop - rows.start, int))
    write(tmp_path / "head.h5", weight=known.head.weight, bias=known.head.bias, bn_weight=known.batchnorm.weight,
          bn_bias=known.batchnorm.bias)
    precompute.main(["--train", str(tmp_path / "train.h5"), "--out", str(tmp_path / "statistics.h5")])
    return tmp_path


def arguments(files, config, *sets, without=()):
    sets = sets or ("digits.test", "faces.test")
    known = [part for name in ("train", "head", "statistics") if name not in without
             for part in (f"--{name}", str(files / f"{name}.h5"))]
    return ["--config", json.dumps(config), "--sets", *(str(files / f"{name}.h5") for name in sets), *known, "--out",
            str(files / "out.h5")]


def refused(capsys, main, given, out):
    """The one-line error; nothing is written."""
    with pytest.raises(SystemExit) as error:
        main(given)
    assert error.value.code == 1 and not out.exists() and not list(out.parent.glob(".*.partial"))
    return capsys.readouterr().err


def small_set(path, features):
    write(path, features=features, logits=np.ones((len(features), CLASSES)), labels=np.zeros(len(features), int))


def spoil(path, key, row, value):
    with h5py.File(path, "r+") as file:
        file[key][row] = value


ON_FILES = [n for n in plugins.names("scores")
            if not {"network", "scores"} & plugins.spec("scores", n).needs]


@pytest.mark.parametrize("name", ON_FILES)
def test_every_score_from_files(files, name, monkeypatch):
    """Streamed in blocks of 7 rows, equal to the whole set at once."""
    monkeypatch.setattr(cached, "ROWS", 7)
    score.main(arguments(files, {"score": name, "name": f"{name}-row", "network": "net"}))
    known, batch = evidence(dtype=np.float32)
    module = plugins.load("scores", name)
    expected = run(module, module.Options(), known, batch)
    with h5py.File(files / "out.h5") as out:
        assert set(out) == {"digits.test", "faces.test"} and out["faces.test"].dtype == np.float64
        found = np.concatenate([out["digits.test"], out["faces.test"]])
        assert (out.attrs["score"], out.attrs["name"]) == (name, f"{name}-row")
        assert set(json.loads(out.attrs["options"])) == {row[0] for row in plugins.fields("scores", name)}
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6 if name == "knn" else 1e-9)


def test_only_what_is_needed_is_asked_for(files):
    """Energy needs no train set; nor does ReAct with a given level, which it does otherwise."""
    for config in ({"score": "energy"}, {"score": "react", "options": {"clip": 1.0}}):
        score.main(arguments(files, config, without=("train", "statistics")))


def test_a_score_process_imports_no_torch(files):
    code = ("import sys; from workflow_scripts.stages import score_sets; score_sets.main(sys.argv[1:]); "
            "bad = {'torch', 'scipy', 'pandas', 'sklearn'} & set(sys.modules); assert not bad, bad")
    for name in ("knn", "vim", "mahalanobis"):
        options = {"K": 3} if name == "knn" else {}
        subprocess.run([sys.executable, "-c", code, *arguments(files, {"score": name, "options": options})], check=True)


@pytest.mark.parametrize(("config", "message"), [
    ({"score": "knnn"}, "did you mean 'knn'"), ({"score": "dice", "options": {"p": 101}}, "scores.dice.p"),
    ({"score": "dice", "name": "dice90", "options": {"q": 1}}, "scores.dice90.q: unknown key 'q'"),
    ({"score": "knn", "options": {"K": 201}}, "only 200 ID train features"),
    ({"scores": "knn"}, "did you mean 'score'"), ({}, "--config.score: required but missing"),
    ({"score": "msp", "sets": ["digits.test"]}, "asks for digits.test, the files hold digits.test, faces.test")])
def test_configuration_refused(files, capsys, config, message):
    assert message in refused(capsys, score.main, arguments(files, config), files / "out.h5")


def test_missing_file_and_missing_argument(files, capsys):
    out = files / "out.h5"
    assert "--train: this score needs train_features" in refused(
        capsys, score.main, arguments(files, {"score": "knn"}, without=("train",)), out)
    assert "places.test.h5: no such file" in refused(
        capsys, score.main, arguments(files, {"score": "msp"}, "digits.test", "places.test"), out)


def test_score_without_its_network(files, capsys):
    """A network without batch norm has no BATS; the refusal names both."""
    write(files / "head.h5", weight=np.ones((CLASSES, WIDTH)), bias=np.ones(CLASSES))
    error = refused(capsys, score.main, arguments(files, {"score": "bats", "network": "wrn"}), files / "out.h5")
    assert "score 'bats' needs batchnorm, which network 'wrn' does not have" in error


@pytest.mark.parametrize(("value", "key"), [(np.nan, "features"), (np.inf, "logits"), (-np.inf, "features")])
def test_not_finite_input_names_file_key_and_row(files, capsys, value, key):
    spoil(files / "faces.test.h5", key, 13, value)
    error = refused(capsys, score.main, arguments(files, {"score": "gradnorm"}), files / "out.h5")
    assert "faces.test.h5" in error and f"'{key}' is NaN or infinite in row 13" in error


def test_not_finite_score_names_set_and_score(files, capsys):
    """Finite features that overflow in the head."""
    spoil(files / "head.h5", "weight", 0, 1e30)
    small_set(files / "faces.test.h5", np.full((9, WIDTH), 1e300))
    given = arguments(files, {"score": "react", "options": {"clip": 1e300}})
    error = refused(capsys, score.main, given, files / "out.h5")
    assert "score 'react' of set 'faces.test' is NaN or infinite in row 0" in error


@pytest.mark.parametrize(("size", "words"), [(0, "holds no images"), (1, "holds 1 image;")])
def test_tiny_set_is_refused(files, capsys, size, words):
    small_set(files / "faces.test.h5", np.ones((size, WIDTH)))
    error = refused(capsys, score.main, arguments(files, {"score": "msp"}), files / "out.h5")
    assert "'faces.test'" in error and words in error


def test_features_of_another_network(files, capsys):
    small_set(files / "faces.test.h5", np.ones((9, WIDTH + 1)))
    error = refused(capsys, score.main, arguments(files, {"score": "react"}), files / "out.h5")
    assert "faces.test.h5" in error and "25 columns, expected 24" in error


def test_a_failed_run_keeps_the_old_scores(files):
    score.main(arguments(files, {"score": "msp"}))
    before = (files / "out.h5").read_bytes()
    with pytest.raises(SystemExit):
        score.main(arguments(files, {"score": "knn", "options": {"K": 999}}))
    assert (files / "out.h5").read_bytes() == before


# Statistics
def test_statistics_in_blocks_equal_the_plain_means(files, monkeypatch):
    monkeypatch.setattr(cached, "ROWS", 7)
    known, _ = evidence(dtype=np.float32)
    precompute.main(["--train", str(files / "train.h5"), "--classes", str(CLASSES), "--out", str(files / "again.h5")])
    found = cached.statistics(files / "again.h5")
    for name in ("class_means", "counts", "mean"):
        np.testing.assert_allclose(getattr(found, name), getattr(known.statistics, name), rtol=1e-12, atol=1e-15)
    assert found.class_means.dtype == np.float64 and found.counts.dtype == np.int64


def test_large_features_lose_no_digits(tmp_path):
    """2e5 images of 1e4 + 0.125 in float32: a float32 sum would be off by far more than 1e-9."""
    features = np.full((200_000, 1), 10_000.125, np.float32)
    write(tmp_path / "train.h5", features=features, labels=np.zeros(len(features), int))
    precompute.main(["--train", str(tmp_path / "train.h5"), "--classes", "1", "--out", str(tmp_path / "out.h5")])
    assert cached.statistics(tmp_path / "out.h5").class_means[0, 0] == pytest.approx(10_000.125, abs=1e-9)


@pytest.mark.parametrize(("key", "row", "value", "message"), [
    ("features", 11, np.nan, "'features' is NaN or infinite in row 11"),
    ("labels", slice(None), 0, "class 1 has no train image (4 of 5"),
    ("labels", 3, -1, "in 0..4, found -1"), ("labels", 3, 5, "in 0..4, found 5")])
def test_statistics_refused_naming_the_file(files, capsys, key, row, value, message):
    spoil(files / "train.h5", key, row, value)
    out = files / "no.h5"
    error = refused(capsys, precompute.main, ["--train", str(files / "train.h5"), "--out", str(out)], out)
    assert "train.h5" in error and message in error
