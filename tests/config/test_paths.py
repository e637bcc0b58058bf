"""Where raw files are named and found: whatever the folders are called, from wherever the command is typed."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.checkout import ROOT
from tests.everyday_data import TINY
from workflow_scripts.config.load import given as read_given
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.sources import printable
from workflow_scripts.data.images.store import load_store
from workflow_scripts.stages.prepare_dataset import prepare
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset
from workflow_scripts.work.expand import read_plan

NAMES = st.text("ab #[]!*?{}()'\"\\$&;,:%é~+=-漢", min_size=1, max_size=8)
LISTED = st.text("ab #[]!*?'\\é\udce9", min_size=1, max_size=6)  # bytes that are no UTF-8 too: nobody writes these


@settings(max_examples=60, deadline=None)
@given(folder=NAMES, inner=NAMES, name=LISTED,
       form=st.sampled_from(["./", "absolute", "root", "glob", "file://", "relative root"]))
def test_images_are_found_whatever_their_folders_are_called(folder, inner, name, form):
    with TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        place = Path(temporary, "x" + folder)
        images = place / "x" / ("i" + inner)
        images.mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (8, 8)).save(images / f"{number}{name}.png")
        (Path(temporary) / "there").mkdir()
        patch.chdir(temporary if form == "relative root" else Path(temporary, "there"))
        files = {"./": f"./x/i{inner}", "absolute": str(images), "root": f"x/i{inner}", "glob": f"{place}/x/i*",
                 "file://": f"file://{quote(os.fsencode(images))}", "relative root": f"x/i{inner}"}[form]
        row = {"reader": "images", "options": {"files": files}, "splits": {"test": {}}}
        config = {**TINY, "datasets": {"mine": row}}
        config["experiments"] = [{**TINY["experiments"][0], "ood": {"far": ["mine"]}}]
        (place / "c.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        root = {"root": str(place), "relative root": place.name}.get(form, "")
        plan = read_plan(read_given([place / "c.yaml"], [], Path.cwd()), ROOT, {"OOD_DATA": root})
        section = PrepareDataset.of(**plan.datasets["mine"].section("test", plan.data_root, plan.fingerprints))
        prepare(PrepareDataset.load(section.dump()), Path(temporary, "a.h5"), plan.data_root)
        assert load_store(Path(temporary, "a.h5")).names == [printable(f"{number}{name}.png") for number in (1, 2)]


def test_a_data_root_that_is_not_there_is_refused_and_the_nearest_is_named(tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "file").touch()
    for name, words in (("archive", "there is no folder .*/archive; did you mean 'archives'"),
                        ("no/such", "there is no folder .*/no/such$"),
                        ("file", ".*/file is a file, expected the folder")):
        with pytest.raises(OODError, match=f"^the environment variable OOD_DATA: {words}"):
            read_plan(TINY, ROOT, {"OOD_DATA": name}, here=tmp_path)
        with pytest.raises(OODError, match=f"^data_root: {words}"):
            read_plan({**TINY, "data_root": name}, ROOT, {"OOD_DATA": str(tmp_path)}, here=tmp_path)
    for name in ("archives", str(tmp_path / "archives"), "./archives", "archives/"):
        assert read_plan(TINY, ROOT, {"OOD_DATA": name}, here=tmp_path).data_root == tmp_path / "archives"
    assert read_plan(TINY, ROOT, {"OOD_DATA": ""}).data_root is None


def test_resources_may_be_below_the_home_but_not_have_braces(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_plan({**TINY, "resources": "~/down loads"}, ROOT, {}).config.resources == f"{tmp_path}/down loads"
    with pytest.raises(OODError, match="^resources: .*without { and }"):
        read_plan({**TINY, "resources": "a{b}"}, ROOT, {})
