"""Features of several sets in one file: the same numbers, found by name, and errors that name the set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.network_data import CONFIG, write_all
from workflow_scripts.core.errors import OODError
from workflow_scripts.scores import cached
from workflow_scripts.stages import extract_features as features
from workflow_scripts.stages import score_sets as score

SETS = ["rows.train", "rows.test", "noise.test", "again.test"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Features of four sets, each in a file of its own (`apart`), and those of the last two in one (`joined`)."""
    folder = tmp_path_factory.mktemp("features")
    write_all(folder)
    shutil.copy(folder / "rows.test.h5", folder / "again.test.h5")
    for name, files in (("apart", SETS), ("joined", [*SETS[:2], "ood"])):
        features.main(["--config", json.dumps({**CONFIG, "sets": SETS}), "--checkpoint", str(folder / "seed0.pt"),
                       "--stores", *(str(folder / f"{s}.h5") for s in SETS), "--out",
                       *(str(folder / name / f"{file}.h5") for file in files), "--device", "cpu", "--threads", "1"])
    return folder


def scored(folder: Path, *files: str) -> dict[str, np.ndarray]:
    score.main(["--config", json.dumps({"score": "knn", "options": {"K": 5}}), "--sets",
                *(str(folder / f"{file}.h5") for file in files), "--train", str(folder / "rows.train.h5"), "--out",
                str(folder.parent / "scores.h5")])
    with h5py.File(folder.parent / "scores.h5") as file:
        return {name: file[name][:] for name in file}


def test_sets_in_one_file_are_the_sets_apart(made):
    assert sorted(p.name for p in (made / "joined").glob("*.h5")) == ["ood.h5", "rows.test.h5", "rows.train.h5"]
    assert cached.sets(made / "joined" / "ood.h5") == ["again.test", "noise.test"]
    assert cached.sets(made / "apart" / "noise.test.h5") == ["noise.test"]
    for name in SETS[2:]:
        with (cached.Features(made / "apart" / f"{name}.h5") as apart,
              cached.Features(made / "joined" / "ood.h5", name) as joined):
            assert set(apart.file) == set(joined.file) == {"features", "logits", "labels"}
            assert joined.name == apart.name == name
            for key in apart.file:
                np.testing.assert_array_equal(apart.file[key][:], joined.file[key][:])


def test_scores_of_both_are_equal(made):
    apart, joined = scored(made / "apart", *SETS[1:]), scored(made / "joined", "rows.test", "ood")
    assert list(apart) == list(joined) == sorted(SETS[1:])
    for name in apart:
        np.testing.assert_array_equal(apart[name], joined[name])
    np.testing.assert_array_equal(joined["again.test"], joined["rows.test"])


@pytest.mark.parametrize(("sets", "files", "message"), [
    (["a", "b"], ["a.h5"], r"1 sets without a file of their name \(b\) need one other file, found none"),
    (["a", "b"], ["x.h5", "y.h5"], "2 sets without a file .* found x.h5, y.h5"),
    (["a"], ["a.h5", "x.h5"], "need no other file, found x.h5"),
    (["a", "a"], ["a.h5"], "given twice: a, a, a.h5"),
    (["a", "b"], ["a.h5", "a.h5"], "given twice"),
])
def test_files_that_do_not_fit_the_sets(sets, files, message):
    with pytest.raises(OODError, match=f"--out: .*{message}"):
        features.divided(sets, files)


def test_a_set_that_is_not_there_or_damaged_is_named(made, tmp_path):
    path = tmp_path / "ood.h5"
    shutil.copy(made / "joined" / "ood.h5", path)
    for name, message in (("noise", "it holds the sets again.test, noise.test; expected noise; did you mean"),
                          (None, "it holds the sets again.test, noise.test; expected one alone")):
        with pytest.raises(OODError, match=message):
            cached.Features(path, name)
    with h5py.File(path, "r+") as file:
        file["noise.test/features"][3, 0] = np.nan
        del file["again.test/logits"]
    with cached.Features(path, "noise.test") as noise, pytest.raises(
            OODError, match=r"ood.h5, set noise.test: 'features' is NaN or infinite in row 3"):
        noise.whole("features")
    with cached.Features(path, "again.test") as again, pytest.raises(
            OODError, match=r"ood.h5, set again.test: no dataset 'logits'"):
        again.whole("logits")


def test_a_stopped_job_leaves_no_half_file(made, tmp_path):
    """The second set is damaged: neither it nor the first of the same file is there."""
    with h5py.File(tmp_path / "bad.test.h5", "w") as bad, h5py.File(made / "noise.test.h5") as good:
        good.copy("labels", bad), good.copy("names", bad)
        bad["inputs"] = np.full_like(good["inputs"], np.nan)
        bad.attrs.update(good.attrs)
    with pytest.raises(SystemExit):
        features.main(["--config", json.dumps({**CONFIG, "sets": ["noise.test", "bad.test"]}), "--checkpoint",
                       str(made / "seed0.pt"), "--stores", str(made / "noise.test.h5"), str(tmp_path / "bad.test.h5"),
                       "--out", str(tmp_path / "ood.h5"), "--device", "cpu"])
    assert [p.name for p in tmp_path.iterdir()] == ["bad.test.h5"]
