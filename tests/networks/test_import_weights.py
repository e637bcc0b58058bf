"""The stage that imports released and foreign weights: its checkpoint, classes, damage, tensors that are no weights."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch

from tests import typed
from tests.network_data import SECTION, network, saved, write_all
from tests.networks.test_foreign_checkpoints import RELEASED
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import sha256
from workflow_scripts.networks import checkpoint
from workflow_scripts.stages import import_weights as import_checkpoint
from workflow_scripts.stages import score_network


@pytest.fixture
def files(tmp_path):
    saved(tmp_path / "f.pth", {"state_dict": write_all(tmp_path).state_dict()})
    return tmp_path


def run(files, *classes, out="imported.pt", **config):
    config = {"network": SECTION, "key": "state_dict", **config}
    import_checkpoint.main(["--config", json.dumps(config), "--file", str(files / "f.pth"), "--out", str(files / out),
                            *(classes or ("--classes-from", str(files / "rows.train.h5")))])


def test_stage_writes_our_checkpoint(files):
    run(files, sha256=sha256(files / "f.pth"))
    about = checkpoint.read(files / "imported.pt")["about"]
    assert about["classes"] == ["class 0", "class 1", "class 2"] and about["network"] == "tiny"
    assert about["source"] == {"file": "f.pth", "sha256": sha256(files / "f.pth")}
    net = score_network.trained(typed.network(SECTION), str(files / "imported.pt"), torch.device("cpu"))
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(net(x), network()(x))
    run(files, "--classes", "3", out="numbered.pt", key="")
    assert checkpoint.read(files / "numbered.pt")["about"]["classes"] == ["0", "1", "2"]


@pytest.mark.parametrize(("classes", "config", "message"), [
    (("--classes", "4"), {}, "f.pth of network 'tiny' has 3 classes, the ID set has 4"),
    (("--classes", "0"), {}, "--classes: expected at least 1"),
    ((), {"sha256": RELEASED}, "expected ce37894e"),
    ((), {"git_blob": "6475f36f" * 5}, "expected 6475f36f"),
    ((), {"key": "model"}, "no key 'model'; it holds state_dict"),
    ((), {"prefix": "module."}, "--config.prefix: unknown key 'prefix'"),
    ((), {"network": None}, "--config.network: Input should be an object (found None)"),
    ((), {"network": {**SECTION, "options": {"width": 4}}}, "not of network 'tiny': 48 tensors are missing"),
    ((), {"network": {**SECTION, "options": {"blocks": [1, 1, 1, 1], "width": 8}}}, "bn1.bias is (4,), expected (8,)"),
])
def test_stage_refuses(files, capsys, classes, config, message):
    with pytest.raises(SystemExit):
        run(files, *classes, **config)
    assert message in capsys.readouterr().err and not (files / "imported.pt").exists()


def test_a_network_with_a_part_of_that_name_keeps_it(tmp_path):
    """A user's network whose own layer is called `module`."""
    (tmp_path / "net_with_a_module.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, num_classes):\n"
        "        super().__init__()\n        self.module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))\n"
        "        self.last = nn.Linear(4, num_classes)\n\n    def forward(self, x):\n"
        "        return self.last(self.module(x).flatten(1))\n")
    weights = {"module.0.weight": torch.rand(4, 3, 3, 3), "module.0.bias": torch.rand(4),
               "last.weight": torch.rand(3, 4), "last.bias": torch.rand(3)}
    path = saved(tmp_path / "f.pt", weights)
    options = {"factory": f"{tmp_path}/net_with_a_module.py:Net", "arguments": {"num_classes": 3}}
    section = {"name": "mine", "model": "own", "options": options}
    import_checkpoint.main(["--config", json.dumps({"network": section}), "--file", str(path), "--classes", "3",
                            "--out", str(tmp_path / "out.pt")])
    found = checkpoint.read(tmp_path / "out.pt")["state_dict"]
    assert {name.removeprefix("net."): tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in weights.items()}


def test_stage_refuses_a_set_without_classes(files, capsys):
    with pytest.raises(SystemExit):
        run(files, "--classes-from", str(files / "noise.test.h5"))
    assert "noise.test.h5: this set has no classes" in capsys.readouterr().err


# -- classes of a checkpoint ------------------------------------------------------------------------------------------

NAMES = [f"class {i}" for i in range(3)]
TURNED = NAMES[::-1]


@pytest.mark.parametrize("place", [{"about": {"classes": TURNED}}, {"classes": TURNED}, {"class_names": tuple(TURNED)},
                                   {"class_to_idx": {name: i for i, name in enumerate(TURNED)}},
                                   {"meta": {"classes": TURNED}}])
def test_classes_in_another_order_are_refused(files, capsys, place):
    saved(files / "f.pth", {"state_dict": write_all(files).state_dict(), **place})
    with pytest.raises(SystemExit):
        run(files)
    said = capsys.readouterr().err
    assert "the same classes in another order: label 0 is 'class 2' there and 'class 0' here" in said
    assert "f.pth" in said and not (files / "imported.pt").exists()


@pytest.mark.parametrize(("classes", "note"), [
    (NAMES, ""), (["x", "y", "z"], "it calls its classes otherwise (x, y, z")])
def test_classes_in_the_same_order_or_called_otherwise_are_taken(files, capsys, classes, note):
    saved(files / "f.pth", {"state_dict": write_all(files).state_dict(), "classes": classes})
    run(files)
    assert note in capsys.readouterr().out and checkpoint.read(files / "imported.pt")["about"]["classes"] == NAMES


def test_classes_that_are_partly_others_are_refused(files, capsys):
    saved(files / "f.pth", {"state_dict": write_all(files).state_dict(), "classes": [*NAMES[:2], "class 7"]})
    with pytest.raises(SystemExit):
        run(files)
    assert "only in checkpoint" in capsys.readouterr().err


# -- damage, and tensors that are no weights --------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "message"), [
    (lambda v: (10 * v).to(torch.int8), "is of int8, expected floating-point weights; it is quantised"),
    (lambda v: v.to_sparse(), "is sparse_coo; expected plain numbers"),
    (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "is quantised; expected plain numbers"),
    (lambda v: v.to("meta"), "is meta; expected plain numbers"),
    (lambda v: v.to(torch.complex64), "is complex; expected plain numbers"),
    (lambda v: v.double() * 1e300, "has NaN or infinite values in single precision"),
], ids=["int8", "sparse", "quantised", "meta", "complex", "too large"])
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights_are_refused(files, capsys, change, message):
    state = {name: change(tensor) if tensor.is_floating_point() else tensor
             for name, tensor in write_all(files).state_dict().items()}
    saved(files / "f.pth", {"state_dict": state})
    with pytest.raises(SystemExit):
        run(files)
    assert message in capsys.readouterr().err


def test_a_damaged_tensor_is_noticed_without_a_hash(files, capsys):
    content = bytearray((files / "f.pth").read_bytes())
    with zipfile.ZipFile(files / "f.pth") as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + 30 + len(largest.filename) + 200] ^= 1
    (files / "f.pth").write_bytes(content)
    with pytest.raises(SystemExit):
        run(files)
    assert "is damaged: its part" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [200, 2000, 6000])
def test_a_checkpoint_that_is_cut_off_is_one_line(files, capsys, cut):
    """PyTorch fails in another way (OSError) on files of some sizes."""
    run(files)
    for name in ("f.pth", "imported.pt"):
        content = (files / name).read_bytes()
        (files / name).write_bytes(content[:-cut])
    with pytest.raises(OODError, match=r"imported\.pt cannot be read"):
        checkpoint.read(files / "imported.pt")
    with pytest.raises(SystemExit):
        run(files)
    said = capsys.readouterr().err
    assert "f.pth cannot be read" in said and "Traceback" not in said


def test_averaged_weights_beside_the_last_ones_must_be_chosen(files, capsys):
    state = write_all(files).state_dict()
    saved(files / "f.pth", {"state_dict": state, "state_dict_ema": state, "queue": {"x": torch.zeros(1)}})
    with pytest.raises(SystemExit):
        run(files, key="")
    assert "the same network below state_dict and state_dict_ema" in capsys.readouterr().err
    run(files, key="state_dict_ema")
