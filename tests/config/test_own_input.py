"""What users bring that does not fit: one line that names file or key, what was expected, found, and what to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests import own_data
from tests.checkout import ROOT
from workflow_scripts.config.load import load_config, placed
from workflow_scripts.core import own
from workflow_scripts.core.digest import digest, own_code
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.readers import arrays, images
from workflow_scripts.models import own as own_model
from workflow_scripts.networks import checkpoint
from workflow_scripts.stages import import_weights as import_checkpoint
from workflow_scripts.stages import prepare_dataset as prepare
from workflow_scripts.stages import score_sets as score
from workflow_scripts.work.expand import read_plan

RAW = {
    "variant": "mine", "seeds": [0],
    "networks": [{"name": "my-net", "model": "own", "options": {"factory": "net:make", "folder": "./"}}],
    "recipes": [{"name": "mine", "label": "Mine", "checkpoint": {"file": "./weights.pt"},
                 "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}],
    "scores": [{"name": "spread", "score": "./my_score.py"}],
    "experiments": [{"paper": "posthoc", "id": "digits", "networks": ["my-net"], "recipes": ["mine"],
                     "scores": ["spread"], "ood": {"far": ["faces", "brick"]}}],
    "imported": [{"name": "theirs", "label": "Theirs", "paper": "posthoc", "id": "digits", "higher_is": "ood",
                  "files": {"faces": "./theirs.npz"}}],
}
GOOD = ('from workflow_scripts.core.specs import ScoreSpec\nSPEC = ScoreSpec(needs={"logits"})\n'
        'def score(options, known, state, batch):\n    return batch.logits.max(1)\n')


@pytest.fixture
def work(tmp_path) -> Path:
    own_data.write_all(tmp_path)
    (tmp_path / "my_score.py").write_text(GOOD)
    return tmp_path


def refused(capsys, main, words) -> str:
    """The one line that a stage ends with."""
    with pytest.raises(SystemExit) as error:
        main([str(word) for word in words])
    said = capsys.readouterr().err
    assert error.value.code == 1 and said.startswith("error: ") and said.count("\n") == 1, said
    return said


# -- before anything runs -------------------------------------------------------------------------------------------

def changed(path: tuple, value: object) -> dict:
    raw = json.loads(json.dumps(RAW))
    here = raw
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    return raw


OPTIONS, SCORE, TAKEN = ("networks", 0, "options"), ("scores", 0, "score"), ("imported", 0)


def test_a_good_configuration_is_planned_relative_to_its_file(work):
    plan = read_plan(placed(RAW, work), ROOT, {})
    run = plan.runs["digits", "my-net", "mine", 0]
    assert run.network.options["folder"] == str(work) and run.scores["spread"].module == str(work / "my_score.py")
    assert run.recipe.checkpoint.file == str(work / "weights.pt")
    assert plan.imported["digits", "elsewhere", "theirs", 0].files == {"faces": work / "theirs.npz"}


def test_an_included_file_names_its_own_folder(work):
    (work / "sub").mkdir()
    (work / "sub" / "more.yaml").write_text(yaml.safe_dump({"scores": [{"name": "b", "score": "./b.py"}]}))
    config = load_config(placed({**RAW, "include": ["./sub/more.yaml"]}, work), ROOT)
    assert {s.name: s.score for s in config.scores} == {"b": str(work / "sub" / "b.py"),
                                                       "spread": str(work / "my_score.py")}


@pytest.mark.parametrize(("path", "value", "message"), [
    (SCORE, "./another.py", r"scores\[0\].score: there is no file .*another.py"),
    (SCORE, "my_score.py", r"scores\[0\].score: there is no file my_score.py; a path that begins with ./"),
    ((*OPTIONS, "factory"), "net", r"options.factory: expected package.module:function"),
    ((*OPTIONS, "factory"), "nets:make", r"options.factory: there is no module nets in .*; expected nets.py there"),
    ((*OPTIONS, "factory"), "net:mak", r"function in .*net.py: 'mak' is not known; did you mean 'make'\?"),
    ((*OPTIONS, "factory"), "./nets.py:make", "there is no module nets"),
    (OPTIONS, {"factory": "no_such_package:make"}, "no installed package 'no_such_package'; for a file of your own"),
    (OPTIONS, {"factory": "net:make", "folder": "work"}, "folder 'work' should be absolute or begin with ./"),
    (OPTIONS, {"factory": "net:make", "fodler": "./"}, "unknown key 'fodler'; did you mean 'folder'"),
    ((*TAKEN, "paper"), "posthok", r"imported\[0\].paper: 'posthok' is not known; did you mean 'posthoc'"),
    ((*TAKEN, "id"), "faces", r"imported\[0\].id .*'faces' is not known.*Allowed: digits"),
    ((*TAKEN, "files"), {"face": "./theirs.npz"}, "files: set: 'face' is not known; did you mean 'faces'"),
    ((*TAKEN, "files"), {"faces": "./none.npz"}, r"imported\[0\].files.faces: there is no file .*none.npz"),
    ((*TAKEN, "files"), {"faces": "theirs.npz"}, "expected an absolute path, or one beside the configuration file"),
    ((*TAKEN, "files"), {"faces": "./weights.pt"}, "expected a file .npz or .csv, found weights.pt; a pickle can run"),
    ((*TAKEN, "files"), "./theirs.npz", "files: set: 'id' is not known.* Allowed: brick, digits, faces"),
    ((*TAKEN, "files"), {"digits": "./theirs.npz"}, "no OOD set; expected at least one of faces, brick"),
    ((*TAKEN, "higher_is"), "OOD", r"imported\[0\].higher_is: Input should be 'id' or 'ood'"),
    (("imported",), [RAW["imported"][0], {**RAW["imported"][0], "label": "Others"}],
     r"imported\[1\].name: digits/elsewhere/theirs/0 exists already"),
    (("seeds",), 2, r"experiments\[0\]: recipe 'mine' reads one file of weights, so seeds \[0, 1\] would count one "
     r"network 2 times; give this experiment seeds: \[0\]"),
    (("include",), ["./more.yaml"], "include: there is no file .*more.yaml"),
])
def test_a_wrong_entry_is_refused_before_anything_runs(work, path, value, message):
    with pytest.raises(OODError, match=message) as error:
        read_plan(placed(changed(path, value), work), ROOT, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "message"), [
    ("SPEC = ScoreSpec(needs={'logits'})\n", "defines no score; a score file has a line such as def score"),
    ("def score(o, k, s, b): return b.logits\n", "it defines no SPEC; expected a line such as SPEC = ScoreSpec"),
    ("NEEDS = frozenset({'features', 'head'})\ndef score(o, k, s, b): return b.logits\n",
     r"NEEDS is a field .* write SPEC = ScoreSpec\(needs=\{'features', 'head'\}\) and above from \S+ import ScoreSpec"),
    (GOOD.replace("logits\"", "logit\""), r"ScoreSpec.needs: 'logit' is not known; did you mean 'logits'"),
    (GOOD.replace('{"logits"}', "{KIND}"), "ScoreSpec.needs must be written out as a literal"),
    (GOOD.replace("return", "return return"), "line 4: no valid Python"),
])
def test_a_score_file_is_checked_without_running_it(work, text, message):
    (work / "my_score.py").write_text(text)
    with pytest.raises(OODError, match=message) as error:
        read_plan(placed(RAW, work), ROOT, {})
    assert "\n" not in str(error.value) and "my_score.py" in str(error.value)


# -- scores ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("body", "message"), [
    ("return batch.logits.max(1)[:-1]", r"score gave shape \(9,\) for 10 images; return an array of shape \(10,\)"),
    ("return batch.logits", r"score gave shape \(10, 3\) for 10 images"),
    ("return batch.logits.mean()", r"score gave shape \(\) for 10 images"),
    ("pass", "score gave NoneType for 10 images"),
    ("return batch.logits.max(1) * float('nan')", "NaN or infinite values for 10 of 10 images, first in row 0"),
    ("return 1 / (batch.logits.max(1) - batch.logits.max())", "values for 1 of 10 images, first in row 7"),
    ("return batch.logit", r"AttributeError: .*'logit' \(.*my_score.py, line 4\)"),
    ("raise ValueError('a\\nb')", r"ValueError: a \(.*my_score.py, line 4\)"),
])
def test_a_score_that_gives_no_number_for_each_image(work, capsys, body, message):
    import re
    path = work / "my_score.py"
    path.write_text(GOOD.replace("return batch.logits.max(1)", body))
    logits = np.random.default_rng(0).normal(0, 1, (10, 3))
    logits[7] = 5
    with h5py.File(work / "faces.test.h5", "w") as file:
        file["logits"], file["features"], file["labels"] = logits, np.ones((10, 2)), np.zeros(10, int)
    said = refused(capsys, score.main, ["--config", json.dumps({"score": str(path), "name": "mine"}), "--sets",
                                        work / "faces.test.h5", "--out", work / "out.h5"])
    assert re.search(message, said) and str(path) in said, said
    assert not (work / "out.h5").exists()


def test_a_score_file_may_have_options_and_state(work):
    path = work / "more.py"
    path.write_text('from __future__ import annotations\n\nfrom dataclasses import dataclass\n\n'
                    'from blocks import squeeze  # noqa\n\nfrom workflow_scripts.core import specs\n\n'
                    'SPEC = specs.ScoreSpec(needs={"logits", "train_logits"})\n\n\n'
                    '@dataclass(frozen=True)\n'
                    'class Options:\n    times: float = 2.0\n    """Factor."""\n\n\ndef fit(options, known):\n'
                    '    return known.train_logits.mean()\n\n\ndef score(options, known, state, batch):\n'
                    '    return options.times * (batch.logits.max(1) - state)\n')
    logits = np.arange(30.0).reshape(10, 3)
    for name in ("faces.test", "digits.train"):
        with h5py.File(work / f"{name}.h5", "w") as file:
            file["logits"], file["features"], file["labels"] = logits, np.ones((10, 2)), np.zeros(10, int)
    score.main(["--config", json.dumps({"score": str(path), "name": "more", "options": {"times": 3}}), "--sets",
                str(work / "faces.test.h5"), "--train", str(work / "digits.train.h5"), "--out", str(work / "out.h5")])
    with h5py.File(work / "out.h5") as file:
        assert np.array_equal(file["faces.test"][()], 3 * (logits[:, 2] - logits.mean()))
    more = set(digest("stages.score_sets", own.script(path))) - set(digest("stages.score_sets"))
    assert more >= {"own/more.py", "own/blocks.py", "torch"}


# -- networks -------------------------------------------------------------------------------------------------------

HEAD = "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
BODY = HEAD + "        self.a, self.b = nn.Linear(48, 5), nn.Linear(5, 3)\n\n    def forward(self, x):\n        "
OFFERS = HEAD + "        self.a, self.head = nn.Linear(48, 5), nn.Linear(5, 3)\n\n    def forward(self, x):\n        " \
    "return self.head(self.a(x.flatten(1)))\n\n    def features(self, x):\n        "


def built(folder: Path, text: str, **options: object) -> own_model.Own:
    name = f"net_{abs(hash((text, str(options), str(folder))))}"
    (folder / f"{name}.py").write_text(text)
    return own_model.build(own_model.Options(f"{name}:Net", str(folder), **options), 3)


@pytest.mark.parametrize(("text", "options", "message"), [
    (HEAD + "        self.a = nn.Conv2d(3, 3, 4)\n", {}, "no linear layer .* to take penultimate features from"),
    (BODY + "return self.b(self.a(x.flatten(1)))", {"head": "c"}, "options.head names 'c', which is no linear layer of "
     "it.* it has a, b"),
    (BODY + "return self.b(self.a(x.flatten(1)))", {"head": "a"}, "last linear layer 'a' has 5 outputs, expected 3"),
    (BODY + "return self.b(self.a(x.flatten(1))).softmax(1)", {}, "forward does not end with 'b' .a softmax behind it"),
    (BODY + "return self.a(x.flatten(1))[:, :3]", {}, "'b' runs 0 times in a forward pass, expected once"),
    (BODY + "return self.b(self.a(x.flatten(1)))[0]", {}, r"forward gave \(3,\), expected logits \(2, 3\)"),
    (BODY + "return self.b(self.a(x.flatten(1))), x", {}, r"forward gave tuple, expected logits \(2, 3\)"),
    (BODY + "return self.b(self.a(x.flatten(1))[:, None])", {}, r"enters 'b' has \(2, 1, 5\), expected penultimate"),
    (BODY + "return self.b(self.a(x.flatten(2)))", {}, r"on images of 4x4: RuntimeError: .*net_\d+.py, line 10\)"),
    (OFFERS + "pass", {}, r"features\(x\) gave NoneType, expected penultimate features \(2, 5\) for 2 images; mend it"),
    (OFFERS + "return self.a(x.flatten(1))[:, :4]", {}, r"features\(x\) gave \(2, 4\), expected"),
    (OFFERS + "return self.a(x.flatten(1)) + 1", {}, "forward does not end with 'head'"),
    (OFFERS.replace("head", "last") + "return x", {}, r"it offers features\(x\), so expected head, an nn.Linear"),
    ("import nothing_of_this_name\nNet = 1\n", {}, r"ModuleNotFoundError: .*nothing_of_this_name.*line 1\)"),
    ("def Net():\n    return 3\n", {}, "expected an nn.Module, it gave int"),
    ("def Net(width):\n    return 3\n", {}, "TypeError: .*missing 1 required positional argument: 'width'"),
])
def test_a_module_that_does_not_fit(tmp_path, text, options, message):
    with pytest.raises(OODError, match=message) as error:
        built(tmp_path, text, **options).eval().features(torch.rand(2, 3, 4, 4))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [BODY + "return self.b(self.a(x.flatten(1)))", OFFERS + "return self.a(x.flatten(1))",
                                  BODY.replace("(5, 3)", "(5, 3, bias=False)") + "return self.b(self.a(x.flatten(1)))"],
                         ids=["found", "offered", "no bias"])
def test_features_and_head_give_the_logits(tmp_path, text):
    net = built(tmp_path, text).eval()
    x = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    h = net.features(x)
    assert h.shape == (2, 5) and torch.equal(h, net.net.a(x.flatten(1)))
    assert torch.allclose(net.head(h), net(x))


@pytest.mark.parametrize(("factory", "options"), [
    ("torchvision:mobilenet_v2", {"size": 32}),
    ("timm:resnet10t", {"size": 32}),
    ("timm:vit_tiny_patch16_224", {"arguments": {"img_size": 32, "depth": 2}}),
    ("torchvision.models:resnet18", {"arguments": {"num_classes": 3}}),
])
def test_models_of_libraries(factory, options):
    torch.manual_seed(0)
    net = own_model.build(own_model.Options(factory, **options), 3).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        h = net.features(x)
        if factory.startswith("timm"):
            expected = net.net.forward_head(net.net.forward_features(x), pre_logits=True)
            assert torch.allclose(h, expected, atol=1e-5)
        assert torch.allclose(net.head(h), net.net(x), atol=1e-5)


def test_a_model_that_a_library_does_not_have():
    with pytest.raises(OODError, match="torchvision has no model 'resnet81'; did you mean 'resnet18'"):
        own_model.build(own_model.Options("torchvision:resnet81"), 3)


def test_the_head_is_put_into_the_order_of_the_id_sets_classes(tmp_path, capsys):
    (tmp_path / "net.py").write_text(BODY + "return self.b(self.a(x.flatten(1)))")
    with h5py.File(tmp_path / "pets.train.h5", "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
        file["labels"], file["names"] = np.arange(6) % 3, np.array([b"a"] * 6)
        file.attrs.update(dataset="pets", split="train", definition="{}", sources="{}",
                          classes=json.dumps(["ape", "cat", "owl"]))
    theirs = built(tmp_path, BODY + "return self.b(self.a(x.flatten(1)))").net
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    options = asdict(own_model.Options("net:Net", str(tmp_path), classes=("owl", "ape", "cat")))
    section = {"name": "my-net", "model": "own", "options": options}

    def words(section):
        return ["--config", json.dumps({"network": section}), "--file", tmp_path / "weights.pt", "--classes-from",
                tmp_path / "pets.train.h5", "--device", "cpu", "--out", tmp_path / "seed0.pt"]

    import_checkpoint.main([str(word) for word in words(section)])
    content = checkpoint.read(tmp_path / "seed0.pt")
    assert content["about"]["classes"] == ["ape", "cat", "owl"]
    assert torch.equal(content["state_dict"]["net.b.weight"], theirs.b.weight[[1, 2, 0]])
    assert torch.equal(content["state_dict"]["net.b.bias"], theirs.b.bias[[1, 2, 0]])
    said = refused(capsys, import_checkpoint.main, words({**section, "options": {**options, "classes": ["owl", "ape",
                                                                                                       "dog"]}}))
    assert "options.classes of the network should be the 3 classes of the ID set" in said and "cat, dog" in said
    (tmp_path / "net.py").write_text(BODY + "return self.b(self.a(x.flatten(1))).softmax(1)")
    import sys
    del sys.modules["net"]
    assert "a softmax behind it" in refused(capsys, import_checkpoint.main, words(section))


def test_what_a_package_imports_of_its_folder_counts(tmp_path):
    (tmp_path / "pkg" / "parts").mkdir(parents=True)
    for name, text in {"pkg/__init__.py": "",
                       "pkg/net.py": "from .parts.block import B\nfrom . import more\nimport top\n",
                       "pkg/parts/__init__.py": "", "pkg/parts/block.py": "import torch\nfrom ..other import x\n",
                       "pkg/other.py": "x = 1\n", "pkg/more.py": "", "top.py": "", "unused.py": ""}.items():
        (tmp_path / name).write_text(text)
    files, ours, packages = own_code(own.Code(str(tmp_path), "pkg.net"))
    assert set(files) == {f"own/{name}" for name in ("pkg/__init__.py", "pkg/net.py", "pkg/parts/__init__.py",
                                                     "pkg/parts/block.py", "pkg/other.py", "pkg/more.py", "top.py")}
    assert not ours and packages == {"torch"}


# -- images ---------------------------------------------------------------------------------------------------------

def section(**row: object) -> str:
    return json.dumps({"dataset": "mine", "split": "test", "options": {}, "classes": 0, "geometry": "native",
                       "limit_per_class": None, "sample": None, "count": None, "raw": [], "limit": None, **row})


def test_images_of_several_sizes_need_a_geometry(tmp_path, capsys):
    own_data.write_images(tmp_path / "photos")
    said = refused(capsys, prepare.main, ["--config", section(reader="images", options={
        "files": str(tmp_path / "photos")}), "--out", tmp_path / "mine.test.h5"])
    assert "dataset 'mine' (test): ape/1.png: 32x28 pixels where the images before have 24x20; give the dataset a " \
        "geometry" in said
    prepare.main(["--config", section(reader="images", options={"files": str(tmp_path / "photos")}, geometry="crop16"),
                  "--out", str(tmp_path / "mine.test.h5")])
    with h5py.File(tmp_path / "mine.test.h5") as file:
        assert file["images"].shape == (12, 16, 16, 3)


def test_class_folders_in_another_order(tmp_path):
    own_data.write_images(tmp_path / "photos", count=2)
    read = images.read(images.Options(str(tmp_path / "photos"), labels="folders", order=("owl", "ape")), None)
    assert read.classes == ("owl", "ape") and read.labels.tolist() == [1, 1, 0, 0]
    assert [name.split("/")[0] for name in read.names] == ["ape", "ape", "owl", "owl"]
    with pytest.raises(OODError, match="order: expected the 2 classes .* by name, each once; without images: cat"):
        images.read(images.Options(str(tmp_path / "photos"), labels="folders", order=("owl", "ape", "cat")), None)


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 1), (5, 4, 6, 3), (5, 3, 4, 6)])
def test_arrays_of_every_shape(tmp_path, form, shape):
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = tmp_path / f"a.{form}"
    if form == "npz":
        np.savez(path, x=values, y=np.array([0, 1, 1, 0, 2]))
    else:
        with h5py.File(path, "w") as file:
            file["x"], file["y"] = values, np.array([0, 1, 1, 0, 2])
    read = arrays.read(arrays.Options(str(path), images="x", labels="y"), None)
    colour = values.transpose(0, 2, 3, 1) if shape[1] == 3 else values.reshape(5, 4, 6, -1)
    start, block = next(read.blocks(np.array([1, 3])))
    assert start == 0 and block.dtype == np.uint8 and block.flags.c_contiguous
    assert np.array_equal(block, np.broadcast_to(colour, (5, 4, 6, 3))[[1, 3]])
    assert read.classes == ("0", "1", "2") and read.labels.tolist() == [0, 1, 1, 0, 2]
    assert arrays.read(arrays.Options(str(path), images="x"), None).classes == ()


@pytest.mark.parametrize(("content", "options", "message"), [
    ({"images": np.zeros((2, 4, 4, 3), complex)}, {}, r"'images' is complex128, expected pixels as uint8 \(N, H, W\)"),
    ({"images": np.zeros((2, 4), np.uint8)}, {}, r"has shape \(2, 4\), expected \(N, H, W\)"),
    ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, {}, r"has shape \(2, 4, 4, 2\)"),
    ({"images": np.array([np.zeros((2, 2)), np.zeros((3, 3))], object)}, {}, "cannot be read .*images of one size"),
    ({"image": np.zeros((2, 4, 4), np.uint8)}, {}, "no array 'images'; did you mean 'image'.*it holds image"),
    ({"images": np.zeros((2, 4, 4), np.uint8), "y": np.zeros(3, int)}, {"labels": "y"}, r"labels 'y' are int64 \(3,\), "
     r"expected whole numbers \(2,\)"),
    ({"images": np.zeros((2, 4, 4), np.uint8), "y": np.array([0, 2])}, {"labels": "y", "classes": ("a", "b")},
     "labels 'y' reach from 0 to 2, expected 0 to 1"),
])
def test_arrays_that_are_no_images(tmp_path, content, options, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(OODError, match=message) as error:
        arrays.read(arrays.Options(str(tmp_path / "a.npz"), **options), None)
    assert "a.npz" in str(error.value) and "\n" not in str(error.value)


def test_arrays_of_no_such_file(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "a.h5").write_bytes(b"nothing")
    for name in ("a.npz", "a.h5"):
        with pytest.raises(OODError, match=f"{name}: not a whole .npz, .npy or HDF5 file"):
            arrays.read(arrays.Options(str(tmp_path / name)), None)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
