"""Sets that do not go together are refused when the plan is made, before the first job."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.checkout import ROOT
from tests.everyday_data import TINY
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.class_names import check_numbers, same_classes
from workflow_scripts.work.expand import read_plan
from workflow_scripts.work.together import least

CLASSES = ("ape", "bee", "cat")


def photos(root: Path, train: tuple[str, ...] = CLASSES, test: tuple[str, ...] = CLASSES) -> Path:
    for split, names in (("train", train), ("test", test)):
        for name in names:
            (root / split / name / "below").mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(root / split / name / "below" / "1.PNG")
    return root


def planned(root: Path, row: dict[str, Any] | None = None, sets: dict[str, Any] | None = None, **changes: Any):
    """The plan of one network for an ID set of class folders."""
    mine = {"reader": "images", "options": {"labels": "folders"}, "classes": 3, "geometry": "crop32",
            "splits": {"train": {"files": str(root / "train")}, "test": {"files": str(root / "test")}}, **(row or {})}
    experiment = {**TINY["experiments"][0], "id": "mine", "ood": {"far": ["faces", *(sets or {})]}}
    raw = {**copy.deepcopy(TINY), "limit": {}, "datasets": {"mine": mine, **(sets or {})}, "experiments": [experiment],
           "recipes": TINY["recipes"][:1], **changes}
    return read_plan(raw, ROOT, {})


def test_sets_that_go_together(tmp_path):
    photos(tmp_path)
    for name in (".ipynb_checkpoints", "@eaDir"):  # no classes
        (tmp_path / "test" / name).mkdir()
        shutil.copy(tmp_path / "test" / "ape" / "below" / "1.PNG", tmp_path / "test" / name)
    (tmp_path / "test" / "empty").mkdir()
    assert planned(tmp_path).runs


@pytest.mark.parametrize(("train", "test", "row", "words"), [
    (CLASSES, ("bee", "cat", "dog"), {}, r"classes of dataset 'mine' \(train\) \(3\) and of dataset 'mine' \(test\) "
     r"\(3\) differ; only in dataset 'mine' \(train\): ape; only in dataset 'mine' \(test\): dog"),
    (("1", "2", "10"), ("1", "2", "10"), {}, r"'mine' \(train\): classes: the folders are numbers, and label 1 would"),
    (("ape",), ("ape",), {"classes": 1}, "key classes: one class")])
def test_classes_are_compared_by_name(tmp_path, train, test, row, words):
    with pytest.raises(OODError, match=words):
        planned(photos(tmp_path, train, test), row)


def test_an_order_of_numbers_may_be_stated(tmp_path):
    photos(tmp_path, ("1", "2", "10"), ("1", "2", "10"))
    assert planned(tmp_path, {"classes": ["1", "2", "10"]}).runs
    assert planned(tmp_path, {"options": {"labels": "folders", "order": ["1", "2", "10"]}}).runs


def test_a_linked_class_folder_is_one(tmp_path):
    photos(tmp_path, test=CLASSES[1:])
    (tmp_path / "test" / "ape").symlink_to(tmp_path / "train" / "ape")
    assert planned(tmp_path).runs


def test_the_train_images_are_no_test_set(tmp_path):
    photos(tmp_path)
    both = {"train": {"files": str(tmp_path / "train")}, "test": {"files": str(tmp_path / "train")}}
    with pytest.raises(OODError, match=r"'mine' \(test\): the very images of 'mine' \(train\)"):
        planned(tmp_path, {"splits": both})
    again = {"again": {"reader": "images", "options": {"labels": "folders"}, "geometry": "squash32",
                       "splits": {"test": {"files": str(tmp_path / "train")}}}}
    with pytest.raises(OODError, match=r"'again' \(test\): the very images of 'mine' \(train\)"):
        planned(tmp_path, sets=again)


def test_a_score_that_needs_more_images_than_there_are(tmp_path):
    photos(tmp_path)
    scores = {"scores": [{"name": "msp"}, {"name": "energy"}, {"name": "knn", "options": {"K": 50}}]}
    experiment = {**TINY["experiments"][0], "id": "mine", "scores": ["msp", "knn"]}
    plan = planned(tmp_path, **scores, experiments=[experiment])
    assert least(plan, "mine") == {"knn": 50}
    with pytest.raises(OODError, match="score 'knn' needs 50 ID train images, dataset 'mine' has 3; change"):
        planned(tmp_path, {"counts": {"train": 3}}, **scores, experiments=[experiment])


@pytest.mark.parametrize(("names", "label"), [(("0", "1", "10", "2", "other"), 2), (("-1", "-10", "-2"), 0),
                                              (("0.5", "1.0", "10.0", "2.0"), 2)])
def test_numbers_of_any_kind_and_among_names_need_their_order(names, label):
    with pytest.raises(OODError, match=f"the folders are numbers, and label {label} would be folder"):
        check_numbers(names)


def test_folders_whose_order_is_clear():
    for names in (("0", "1", "2"), ("n01440764", "n10"), ("2008", "2010", "x2"), ("00", "01", "10")):
        check_numbers(names)


def test_letters_that_look_the_same():
    with pytest.raises(OODError, match="accents are written in two ways .Unicode NFC and NFD"):
        same_classes(["caf\u00e9", "b"], ["cafe\u0301", "b"], "one", "other")


@pytest.mark.parametrize("reader", ["images", "lmdb_images"])
def test_an_ood_set_of_one_image_is_refused_before_the_first_job(tmp_path, reader):
    photos(tmp_path)
    far = tmp_path / "far" / "below"
    (far / ".ipynb_checkpoints").mkdir(parents=True)
    for place in (far, far / ".ipynb_checkpoints"):
        Image.new("RGB", (4, 4)).save(place / "1.png")
    (far / "notes.txt").write_text("none")
    sets = {"single": {"reader": reader, "geometry": "squash32", "splits": {"test": {"files": str(tmp_path / "far")}}}}
    with pytest.raises(OODError, match=r"dataset 'single' \(test\) has one image; a share of it can be 0 or 1 alone"):
        planned(tmp_path, sets=sets)
    Image.new("RGB", (4, 4)).save(far / "2.png")
    assert planned(tmp_path, sets=sets).runs
