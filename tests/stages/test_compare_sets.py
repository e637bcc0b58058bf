"""The sets that networks are trained and tested with: classes by name, identical images, counts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import typed
from tests.lmdb_data import folder as write_files
from tests.lmdb_data import jpeg, packed
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.geometry import resize
from workflow_scripts.data.images.store import load_store, write_store
from workflow_scripts.data.reading import Images, array_blocks
from workflow_scripts.stages import make_cards
from workflow_scripts.stages.compare_sets import compare, main
from workflow_scripts.stages.extract_features import check_classes
from workflow_scripts.stages.prepare_dataset import prepare
from workflow_scripts.stages.sections.compare_sets import CompareSets
from workflow_scripts.stages.sections.make_cards import OUTLIERS


def store(folder: Path, name: str, numbers: list[int], classes: tuple[str, ...] = ()) -> str:
    """A set of images that their numbers tell apart; labels take turns."""
    pixels = np.zeros((len(numbers), 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 3, 3, 2] = numbers, 200
    dataset, split = name.split(".")
    labels = np.arange(len(numbers)) % max(1, len(classes))
    write_store(folder / f"{name}.h5", Images(labels, [f"{name}:{i}" for i in numbers], classes, {},
                                              array_blocks(pixels, 2)), np.arange(len(numbers)), classes,
                {"dataset": dataset, "split": split}, partial(resize, geometry="native"))
    return str(folder / f"{name}.h5")


USES = {"id.train": "train", "id.test": "test"}


def compared(folder: Path, least: dict[str, int] | None = None, **sets: tuple) -> list[dict]:
    """What is found among sets by name (``id_train``): numbers of the images, and class names where there are some."""
    named = {name[::-1].replace("_", ".", 1)[::-1]: of for name, of in sets.items()}
    paths = [store(folder, name, *of) for name, of in named.items()]
    section = CompareSets.of(sets=[{"name": name, "use": USES.get(name, "ood")} for name in named], least=least or {})
    return compare(section, paths)


A, B = ("a", "b"), ("b", "a")


def test_identical_images_are_found_and_shown(tmp_path):
    found = compared(tmp_path, id_train=([1, 2, 3, 3], A), id_test=([3, 4], A), far_test=([4, 5, 8, 8],))
    some = {(pair["set"], pair["of"]): (pair["identical"], pair["count"]) for pair in found if pair["identical"]}
    assert some == {("id.train", "id.train"): (1, 4), ("id.test", "id.train"): (1, 2),
                    ("far.test", "far.test"): (1, 4), ("far.test", "id.test"): (1, 4)}
    (tmp_path / "c.json").write_text(json.dumps({"pairs": found}))
    sets = [{"name": "far", "path": str(tmp_path / "far.test.h5"), "role": "OOD test (far)"},
            {"name": "pool", "path": store(tmp_path, "pool.train", [7, 8, 9]), "role": OUTLIERS}]
    make_cards.main(["--config", json.dumps({"sets": sets}), "--compared", str(tmp_path / "c.json"), "--out",
                     str(tmp_path / "cards.json")])
    card = json.loads((tmp_path / "cards.json").read_text())["cards"][0]
    assert card["identical"] == ["1 of 4 (25.0%) also in id.test", "1 of 4 (25.0%) there more than once",
                                 "2 of 4 (50.0%) also in pool.train"]


@pytest.mark.parametrize(("sets", "least", "words"), [
    ({"id_train": ([1, 2], ("a", "b")), "id_test": ([3, 4], ("b", "c"))}, {},
     r"differ; only in dataset 'id' \(train\): a; only in dataset 'id' \(test\): c\. Classes are compared by name"),
    ({"id_train": ([1, 2], A), "id_test": ([3, 4], B)}, {}, r"another order: label 0 is 'a' there and 'b' here; "),
    ({"id_train": ([1, 2], ("a",)), "id_test": ([3, 4], ("a",))}, {}, r"'id' \(train\) has one class, a;"),
    ({"id_train": ([1, 2], A), "id_test": ([2, 1], A)}, {}, r"'id' \(test\): all 2 images are also in dataset 'id'"),
    ({"id_train": ([1, 2, 5], A), "id_test": ([3, 4], A), "far_test": ([5, 1],)}, {},
     r"'far' \(test\): all 2 images are also in dataset 'id' \(train\), which networks are trained on"),
    ({"id_train": ([1, 2], A), "id_test": ([3, 4], A), "far_test": ([9],)}, {}, r"'far' \(test\) has one image"),
    ({"id_train": ([1, 2], A), "id_test": ([3, 4], A)}, {"knn": 50, "vim": 2},
     r"score 'knn' needs 50 ID train images, dataset 'id' \(train\) has 2"),
])
def test_what_would_mean_nothing_is_refused(tmp_path, sets, least, words):
    with pytest.raises(OODError, match=words):
        compared(tmp_path, least, **sets)


def test_an_ood_set_may_have_classes_of_its_own_and_share_some_images(tmp_path):
    found = compared(tmp_path, id_train=([1, 2], A), id_test=([3, 4], A), near_test=([1, 9, 3], ("x", "y", "z")))
    assert [pair["identical"] for pair in found if pair["set"] == "near.test"] == [1, 1]


def test_stores_of_an_earlier_version_have_no_hashes(tmp_path):
    paths = [store(tmp_path, "id.train", [1, 2], A), store(tmp_path, "id.test", [1, 2], A)]
    for path in paths:
        with h5py.File(path, "a") as file:
            del file["hashes"]
    section = CompareSets.of(sets=[{"name": name, "use": USES[name]} for name in ("id.train", "id.test")])
    assert compare(section, paths) == []


def decoded(root: Path, name: str, numbers: list[int], folder: str) -> str:
    """A set whose pixels are decoded when they are read, of files that their numbers tell apart."""
    write_files(root / folder / "x", {f"{'ab'[i % 2]}/{i}.jpg": jpeg(number) for i, number in enumerate(numbers)})
    packed(root / folder, labels="folders")
    dataset, split = name.split(".")
    section = typed.dataset({"dataset": dataset, "split": split, "reader": "lmdb_images", "classes": 2,
                             "options": {"files": "x", "labels": "folders"}, "geometry": "crop16", "pixels": "decoded",
                             "sample": None, "limit_per_class": None, "count": None, "raw": []})
    prepare(section, root / f"{name}.h5", root, [str(root / folder / "x.lmdb")])
    return str(root / f"{name}.h5")


def test_sets_that_are_decoded_when_read_are_compared_by_their_files(tmp_path):
    paths = [decoded(tmp_path, "id.train", [1, 2, 3, 4], "one"), decoded(tmp_path, "id.test", [4, 5], "two")]
    sets = [{"name": name, "use": USES[name]} for name in ("id.train", "id.test")]
    assert compare(CompareSets.of(sets=sets), paths) == [
        {"set": "id.test", "of": "id.train", "identical": 1, "count": 2}]
    same = decoded(tmp_path, "far.test", [2, 1], "three")
    with pytest.raises(OODError, match=r"'far' \(test\): all 2 images are also in dataset 'id' \(train\)"):
        compare(CompareSets.of(sets=[*sets, {"name": "far.test", "use": "ood"}]), [*paths, same])
    stored = store(tmp_path, "near.test", [2, 1])  # files and pixels cannot be compared
    found = compare(CompareSets.of(sets=[*sets, {"name": "near.test", "use": "ood"}]), [*paths, stored])
    assert [pair["set"] for pair in found] == ["id.test"]


@pytest.mark.parametrize(("numbers", "other"), [([5, 6], "id"), ([7, 8], "far")])
def test_options_are_not_chosen_on_test_images_under_another_name(tmp_path, numbers, other):
    sets = {"id.train": [1, 2, 3], "id.test": [4, 5, 6], "far.test": [7, 8, 9], "val.test": numbers}
    paths = [store(tmp_path, name, found, *([A] if name.startswith("id") else [])) for name, found in sets.items()]
    uses = {**USES, "far.test": "ood", "val.test": "validation"}
    entries = [{"name": name, "use": uses[name]} for name in sets]
    with pytest.raises(OODError, match=rf"'val' .test.: all 2 images are also in dataset '{other}' .test.; options"):
        compare(CompareSets.of(sets=entries), paths)


def test_hashes_tell_images_and_sizes_apart(tmp_path):
    grey = np.full((2, 4, 4, 3), 9, np.uint8)
    for name, pixels in (("flat", grey), ("long", grey.reshape(2, 2, 8, 3))):
        images = Images(np.zeros(2, np.int64), ["0", "1"], (), {}, array_blocks(pixels))
        write_store(tmp_path / f"{name}.h5", images, np.arange(2), (), {"dataset": name, "split": "test"},
                    partial(resize, geometry="native"))
    with h5py.File(tmp_path / "flat.h5") as flat, h5py.File(tmp_path / "long.h5") as long:
        assert flat["hashes"][0] == flat["hashes"][1] != long["hashes"][0]
    assert load_store(tmp_path / "flat.h5").attrs["remarks"][0]["reason"] == "images of one colour"


def test_the_command_names_what_it_found(tmp_path, capsys):
    paths = [store(tmp_path, "id.train", [1, 2, 3], A), store(tmp_path, "id.test", [3, 4], A)]
    config = json.dumps({"sets": [{"name": "id.train", "use": "train"}, {"name": "id.test", "use": "test"}]})
    main(["--config", config, "--stores", *paths, "--out", str(tmp_path / "o.json")])
    assert "id.test: 1 of 2 images are also in id.train" in capsys.readouterr().out
    assert json.loads((tmp_path / "o.json").read_text())["pairs"][0]["identical"] == 1


def test_features_are_refused_of_an_id_set_with_other_classes(tmp_path):
    """A test set that was prepared anew after the training."""
    import torch
    torch.save({"state_dict": {}, "about": {"classes": ["a", "b"]}}, tmp_path / "x.pt")
    stores = {"id.train": store(tmp_path, "id.train", [1, 2], A), "id.test": store(tmp_path, "id.test", [3, 4], A),
              "far.test": store(tmp_path, "far.test", [5, 6], ("x", "y"))}
    check_classes(str(tmp_path / "x.pt"), stores)
    stores["id.test"] = store(tmp_path, "id.test", [3, 4], B)
    with pytest.raises(OODError, match=r"checkpoint .*x.pt and set 'id.test' have the same classes in another order"):
        check_classes(str(tmp_path / "x.pt"), stores)
