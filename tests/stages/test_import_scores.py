"""Score files of other tools: the forms that are read, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import own_data
from workflow_scripts.core.errors import OODError
from workflow_scripts.stages import import_scores
from workflow_scripts.stages.sections.import_scores import ImportScores

KNOWN, NOVEL = np.array([0.5, 1.0, 2.0, 3.0]), np.array([0.1, 0.2, 1.5])
BOTH = np.concatenate([KNOWN, NOVEL])


def taken(folder: Path, content: dict | str, **config: object) -> dict[str, np.ndarray]:
    path = folder / ("a.csv" if isinstance(content, str) else "a.npz")
    path.write_text(content) if isinstance(content, str) else np.savez(path, **content)
    section = ImportScores.of(**{"id": "digits", "groups": {}, "files": {"faces": 0}, **config})
    return import_scores.gathered(section, [path])


@pytest.mark.parametrize(("content", "config"), [
    ({"id": KNOWN, "ood": NOVEL}, {}),
    ({"id": -KNOWN, "ood": -NOVEL}, {"higher_is": "ood"}),
    ({"scores": BOTH, "labels": np.array([0, 3, 7, 1, -1, -1, -2])}, {}),
    ({"score": BOTH, "label": np.array([0, 0, 0, 0, 1, 1, 1])}, {"labels": "one_is_ood"}),
    ({"score": BOTH, "label": np.array([1, 1, 1, 1, 0, 0, 0.0])}, {"labels": "one_is_id"}),
    ("score, label\n0.5,0\n1,0\n2,0\n3,0\n0.1,-1\n0.2,-1\n1.5,-1\n", {}),
    ({"digits": KNOWN, "faces": NOVEL}, {"files": {"digits": 0, "faces": 0}}),
    ({"pred": np.zeros(7, int), "conf": BOTH, "label": np.array([0, 3, 7, 1, -1, -1, -1])}, {}),
    ("id,ood\n0.5,0.1\n1,0.2\n2,1.5\n3,\n", {}),
    ("id,ood\n0.5,0.1\n1,0.2\n2,1.5\n3\n\n\n", {}),
    ("ood ; id\n0,1;0,5\n0,2;1\n1,5;2\n;3\n", {}),
    ("\ufeffid\tood\r\n0.5\t0.1\r\n1\t2e-1\r\n2\t1.5\r\n3\t\r\n", {}),
    (",ood,id\n0,0.1,0.5\n1,0.2,1\n2,1.5,2\n3,,3\n", {}),
    ("file,digits,faces\na.png,0.5,0.1\nb.png,1,0.2\nc.png,2,1.5\nd.png,3,\n", {"files": {"digits": 0, "faces": 0}}),
])
def test_forms_of_score_files(tmp_path, content, config):
    found = taken(tmp_path, content, **config)
    assert np.array_equal(found["digits"], KNOWN) and np.array_equal(found["faces"], NOVEL)


@pytest.mark.parametrize(("content", "config", "message"), [
    ({"id": KNOWN, "ood": NOVEL[:, None]}, {}, r"a.npz \(set 'faces'\), ood: .*one score per image.*shape \(3, 1\)"),
    ({"id": KNOWN, "ood": np.array([1.0, np.nan])}, {}, "found 1 NaN or infinite of 2 .first: nan at index 1"),
    ({"id": KNOWN, "ood": np.array(["a", "b"])}, {}, "expected real numbers, found <U1"),
    ({"id": KNOWN[:0], "ood": NOVEL}, {}, "expected at least one image, found an empty set"),
    ({"x": KNOWN}, {}, "it holds x, expected an array named after its set, id and ood, scores .or conf. and labels"),
    ({"scores": BOTH, "labels": np.arange(3)}, {}, r"labels of shape \(3,\) for scores of shape \(7,\)"),
    ({"scores": BOTH, "labels": np.array([0, 0, 0, 0, 1, 1, 1])}, {}, "labels 0, 1 do not tell ID from OOD images by "
     "labels: negative_is_ood; of labels 0 and 1 say which is OOD"),
    ({"scores": BOTH, "labels": np.array([0, 0, 0, 0, 1, 2, 1])}, {"labels": "one_is_ood"}, "labels 0, 1, 2 do not"),
    ({"scores": BOTH, "labels": np.array(list("iiiiooo"))}, {}, "labels should be whole numbers, found <U1"),
    ({"scores": BOTH}, {}, "no scores of the ID set 'digits'; expected them as id beside ood"),
    ({"id": np.array([object()]), "ood": NOVEL}, {}, "cannot be read"),
    ("scores\n1\nx\n", {}, "expected real numbers"),
    ("", {}, "cannot be read .it is empty: fetch or write it again"),
    ("id,ood\n1,1\n,2\n3,\n", {}, "a.csv, line 3: column 'id' has no value there and goes on below"),
    ("id,ood\n1,1\n\n3,3\n", {}, "a.csv, line 3: column 'id' has no value there and goes on below"),
    ("id,ood\n1,1\n2,nan\n", {}, "ood: expected finite values, found 1 NaN or infinite of 2"),
    ("scores,labels\n1,0\n2,-1\n3,\n", {}, r"labels of shape \(2,\) for scores of shape \(3,\)"),
    ("<!DOCTYPE html><html><title>Sign in</title>\n", {}, "it is an HTML page .'Sign in'., which the server sent"),
    ({"id": np.array([{}]), "ood": NOVEL}, {}, r"cannot be read \(it holds Python objects\)"),
    ("id,ood\n0,93,0,12\n0,95,0,11\n", {}, r"a.csv, line 2: more values than the 2 columns.*decimal commas"),
    ("id;ood\n1;2\n1;2;3\n", {}, r"a.csv, line 3: more values than the 2 columns that the first line names$"),
    ("id,ood, ood\n1,2,3\n", {}, "two columns are called 'ood'"),
])
def test_score_files_that_do_not_fit(tmp_path, content, config, message):
    with pytest.raises(OODError, match=message) as error:
        taken(tmp_path, content, **config)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


ONE_SIDED = [
    ("OpenOOD", {"conf": KNOWN, "pred": np.zeros(4, int), "label": np.array([0, 3, 7, 1])},
     {"conf": NOVEL, "pred": np.zeros(3, int), "label": -np.ones(3, int)}, {}),
    ("scores and class labels", {"scores": KNOWN, "labels": np.array([0, 1, 1, 0])},
     {"scores": NOVEL, "labels": np.array([-1, -2, -1])}, {}),
    ("0 and 1", {"scores": KNOWN, "labels": np.zeros(4)}, {"scores": NOVEL, "labels": np.ones(3)},
     {"labels": "one_is_ood"}),
    ("1 and 0", {"scores": KNOWN, "labels": np.ones(4, bool)}, {"scores": NOVEL, "labels": np.zeros(3, bool)},
     {"labels": "one_is_id"}),
    ("id, ood", {"id": KNOWN}, {"ood": NOVEL}, {}),
    ("scores", {"scores": KNOWN}, {"conf": NOVEL}, {}),
]


def one_sided(folder: Path, known: dict, novel: dict, **config: object) -> dict[str, np.ndarray]:
    np.savez(folder / "known.npz", **known)
    np.savez(folder / "novel.npz", **novel)
    section = ImportScores.of(id="digits", groups={}, files={"digits": 0, "faces": 1}, **config)
    return import_scores.gathered(section, [folder / "known.npz", folder / "novel.npz"])


@pytest.mark.parametrize(("known", "novel", "config"), [row[1:] for row in ONE_SIDED], ids=[r[0] for r in ONE_SIDED])
def test_a_file_for_each_set(tmp_path, known, novel, config):
    found = one_sided(tmp_path, known, novel, **config)
    assert np.array_equal(found["digits"], KNOWN) and np.array_equal(found["faces"], NOVEL)


@pytest.mark.parametrize(("known", "novel", "config"), [row[1:] for row in ONE_SIDED[:5]],
                         ids=[row[0] for row in ONE_SIDED[:5]])
def test_files_of_the_wrong_side_are_refused(tmp_path, known, novel, config):
    with pytest.raises(OODError, match=r"known.npz \(set 'digits'\): (labels .* do not tell|it holds ood, expected)"):
        one_sided(tmp_path, novel, known, **config)


def test_files_of_different_detectors_are_told_apart(tmp_path):
    own_data.write_theirs(tmp_path, 4, 3, "a.npz")
    np.savez(tmp_path / "b.npz", id=KNOWN, ood=NOVEL)
    with pytest.raises(OODError, match=r"b.npz \(set 'brick'\): other scores of the ID set than in .*a.npz"):
        import_scores.gathered(ImportScores.of(id="digits", groups={}, files={"faces": 0, "brick": 1}),
                               [tmp_path / "a.npz", tmp_path / "b.npz"])


def test_other_numbers_of_images_are_refused_unless_said(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", id=KNOWN, ood=NOVEL)
    for name, count in (("digits", 4), ("faces", 5)):
        with h5py.File(tmp_path / f"{name}.test.h5", "w") as file:
            file["images"], file["labels"] = np.zeros((count, 2, 2, 3), np.uint8), np.zeros(count, int)
            file["names"] = np.array([b"a"] * count)
            file.attrs.update(dataset=name, split="test", definition="{}", sources="{}", classes="[]")

    def words(**config):
        section = {"id": "digits", "groups": {"far": ["faces"]}, "files": {"faces": 0}, **config}
        return ["--config", json.dumps(section), "--files", tmp_path / "a.npz", "--stores", tmp_path / "digits.test.h5",
                tmp_path / "faces.test.h5", "--scores", tmp_path / "s.h5", "--metrics", tmp_path / "m.csv"]

    with pytest.raises(SystemExit) as error:
        import_scores.main([str(word) for word in words()])
    said = capsys.readouterr().err
    assert error.value.code == 1 and said.count("\n") == 1
    assert "set 'faces': 3 scores, our set has 5 images; if they are of another list of images, say so" in said
    import_scores.main([str(word) for word in words(count="any", compat=["himplos"])])
    rows = (tmp_path / "m.csv").read_text().splitlines()
    assert "score,faces,far,auroc,0.8333333333333334,4,3" in rows  # 10 of 12 pairs in order
    assert any(",fpr95@himplos," in row for row in rows)


def test_a_set_may_be_called_ood(tmp_path):
    found = taken(tmp_path, {"id": KNOWN, "ood": NOVEL}, files={"ood": 0})
    assert np.array_equal(found["digits"], KNOWN) and np.array_equal(found["ood"], NOVEL)


def test_a_single_array_and_an_upper_case_suffix(tmp_path):
    np.save(tmp_path / "a.npy", KNOWN)
    with pytest.raises(OODError, match=r"a.npy: cannot be read \(it is a single array without a name\); expected an"):
        import_scores.read(tmp_path / "a.npy")
    (tmp_path / "A.CSV").write_text("id,ood\n1,2\n")
    assert import_scores.read(tmp_path / "A.CSV")["ood"].tolist() == [2.0]
