"""Released files that hold more than tensors: read by name and never run, or called what they are."""

from __future__ import annotations

import argparse
import collections
import enum
import io
import os
import pickle
import random
import re
import struct
import zipfile
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from workflow_scripts.core.errors import OODError
from workflow_scripts.networks import checkpoint, foreign, inert

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])


class Colour(enum.Enum):
    RED = 1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.tied = self.body[0]
        self.none, self.loss = None, nn.CrossEntropyLoss(weight=torch.ones(3))
        self.register_buffer("kept", torch.arange(6).view(2, 3).t())
        self.register_buffer("left_out", torch.ones(2), persistent=False)
        self.register_parameter("absent", None)
        self.fc = nn.Linear(4, 3)
        self.other = argparse.Namespace(path=PurePosixPath("/"), colour=Colour.RED)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def saved(path: Path, content: object, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


STATE = net().state_dict()
EXTRAS = {
    "namespace": argparse.Namespace(lr=0.1, path="x"), "numpy number": np.float64(3), "numpy array": np.arange(3.0),
    "path": PurePosixPath("a/b"), "enum": Colour.RED, "numbers": collections.defaultdict(list, {"a": [1, 2]}),
    "function": os.getcwd, "dtype": torch.float16, "set": {Colour.RED, 1}, "deque": collections.deque([1, 2]),
    "optimiser": torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1),
}


@FORMS
@pytest.mark.parametrize("name", EXTRAS)
def test_tensors_beside_other_objects(tmp_path, name, zipped, capsys):
    path = saved(tmp_path / "f.pt", {"other": EXTRAS[name], "state_dict": STATE, "more": [EXTRAS[name]]}, zipped)
    same(foreign.read(path), STATE)


def test_what_is_not_taken_is_named(tmp_path, capsys):
    foreign.read(saved(tmp_path / "f.pt", {"args": argparse.Namespace(a=1), "model": STATE}))
    said = capsys.readouterr().out
    assert "only tensors and plain values are taken of it, by name; of argparse.Namespace no code is run" in said
    assert "the tensors of its entry 'model' are taken" in said


@FORMS
@pytest.mark.parametrize("wrap", [lambda n: n, nn.DataParallel, lambda n: {"net": n, "epoch": 3},
                                  lambda n: {"net": n, "args": argparse.Namespace(), "opt": {"a": 1}}],
                         ids=["whole", "data parallel", "below a key", "beside a Namespace"])
def test_a_whole_network_is_its_state_dict(tmp_path, wrap, zipped):
    same(foreign.read(saved(tmp_path / "f.pt", wrap(net()), zipped)), net().state_dict())


@FORMS
def test_tensors_of_every_kind(tmp_path, zipped):
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool)
    state = {str(kind): torch.arange(-3, 3).to(kind) for kind in kinds}
    whole = torch.arange(24.0).view(2, 3, 4)
    state |= {"turned": whole.permute(2, 0, 1), "part": whole[1, 1:, ::2], "expanded": torch.ones(1).expand(3, 4),
              "empty": torch.empty(0, 3), "scalar": torch.tensor(7.0), "again": whole[0],
              "parameter": nn.Parameter(torch.ones(2)), "last": whole.to(memory_format=torch.contiguous_format)}
    found, _ = inert.read(saved(tmp_path / "f.pt", {"a": state, "b": argparse.Namespace()}, zipped))
    same(found["a"], {name: tensor.detach() for name, tensor in state.items()})


# -- nothing is run -------------------------------------------------------------------------------------------------

class Call:
    """Unpickled, it calls ``function``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Built:
    """Unpickled, it sets attributes of a class."""

    def __reduce__(self):
        return collections.OrderedDict, (), (None, {"__init__": os.system})


@FORMS
def test_nothing_of_a_file_is_called_or_imported(tmp_path, zipped, monkeypatch):
    mark = tmp_path / "mark"
    (tmp_path / "never_imported.py").write_text(f"open({str(mark)!r}, 'w').close()\n\n\nclass Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    attacks = [Call(os.system, f"touch {mark}"), Call(eval, f"open({str(mark)!r}, 'w')"),
               Call(exec, f"open({str(mark)!r}, 'w')"), Call(open, str(mark), "w"), Call(getattr, os, "system"),
               Call(torch.load, str(tmp_path / "f.pt")), Call(torch.save, STATE, str(mark)), Built(),
               Call(collections.OrderedDict, [("a", Call(os.system, f"touch {mark}"))])]
    path = saved(tmp_path / "f.pt", {"evil": attacks[:4] + attacks[5:], "state_dict": STATE}, zipped)
    same(foreign.read(path), STATE)
    assert not mark.exists()
    for attack in attacks[:4] + attacks[5:]:  # in place of a tensor, and of the whole
        saved(path, {"state_dict": {"a": attack}}, zipped)
        with pytest.raises(OODError) as error:
            foreign.read(path)
        assert "\n" not in str(error.value)
        saved(path, attack, zipped)
        with pytest.raises(OODError):
            foreign.read(path)
    assert not mark.exists()
    named = b"\x80\x02cnever_imported\nThing\n)\x81."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("f/data.pkl", named)
    content, names = inert.read(path)
    assert isinstance(content, inert.Shell) and names == ["never_imported.Thing"] and not mark.exists()


def test_shells_do_not_last(tmp_path):
    """What a file does to a class is not seen by the next file."""
    assert not hasattr(inert.Shell, "path")
    before = dict(vars(inert.Shell))
    with pytest.raises(OODError):
        foreign.read(saved(tmp_path / "f.pt", {"a": Built()}))
    assert dict(vars(inert.Shell)) == before


@pytest.mark.parametrize(("start", "size", "strides"), [
    (0, (5,), (1,)), (1, (4,), (1,)), (0, (2, 3), (3, 1)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (10**12,), (0,)),
    (3, (2,), (1,)), (0, (2, 2), (1,)),
])
def test_a_tensor_cannot_reach_beyond_its_numbers(tmp_path, start, size, strides):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if value == "STORAGE" else None

    body = io.BytesIO()
    rebuilt = Call(torch._utils._rebuild_tensor_v2, "STORAGE", start, size, strides, False, collections.OrderedDict())
    Pickler(body, 2).dump({"a": rebuilt, "b": argparse.Namespace()})
    with zipfile.ZipFile(tmp_path / "f.pt", "w") as archive:
        archive.writestr("f/data.pkl", body.getvalue())
        archive.writestr("f/data/0", struct.pack("<4f", 1, 2, 3, 4))
    with pytest.raises(OODError, match=r"f.pt cannot be read \(") as error:
        foreign.read(tmp_path / "f.pt")
    assert "\n" not in str(error.value)


@FORMS
def test_a_damaged_file_is_refused_or_read_and_never_more(tmp_path, zipped):
    whole = saved(tmp_path / "f.pt", {"n": argparse.Namespace(a=1), "m": nn.Linear(2, 2)}, zipped).read_bytes()
    draw, path = random.Random(0), tmp_path / "damaged.pt"
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(min(len(damaged), 1500))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            foreign.read(path)
        except OODError as error:
            assert "\n" not in str(error) and "weights_only" not in str(error)


# -- what else lies there -------------------------------------------------------------------------------------------

def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def written(zipped: bool, end: int) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(1000)}}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()[:end]


OTHERS = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n",
            "it is a Git LFS pointer to the file: run `git lfs pull`"),
    "html": (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>",
             r"it is an HTML page \('Google Drive - Virus scan warning'\), which the server sent for the file"),
    "json": (b'{"message": "Not Found"}', "it is text that begins with '{\"message\": \"Not Found\"}'"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "it is text that begins with '<.xml"),
    "empty": (b"", "it is empty: fetch or write it again"),
    "zeros": (bytes(5000), "it begins with zeros alone"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "it is packed by gzip: unpack it"),
    "zip": (archive(readme=b"a", weights=b"b"), "it is a zip archive of readme, weights: unpack it"),
    "cut zip": (written(True, 900), "it is cut off, its end is missing: fetch or write it again"),
    "cut older": (written(False, 900), "it is cut off, its end is missing"),
    "cut index": (written(False, 100), "it is cut off, its end is missing|it is damaged"),
    "plain pickle": (pickle.dumps({"a": 1}), "it is a pickle that torch.save did not write"),
    "torchscript": (torchscript(), "it is a TorchScript archive: save the state dict"),
    "other bytes": (bytes(range(256)) * 9, "it is damaged, or no file of torch.save"),
}


@pytest.mark.parametrize(("content", "message"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("suffix", ["pt", "npz", "safetensors"])
def test_another_file_is_called_what_it_is(tmp_path, content, message, suffix):
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(content)
    with pytest.raises(OODError) as error:
        foreign.read(path)
    said = str(error.value)
    assert "\n" not in said and str(path) in said and "weights_only" not in said and "allow_pickle" not in said
    if suffix == "pt":
        assert re.search(message, said), said


def test_an_hdf5_file(tmp_path):
    with h5py.File(tmp_path / "f.pt", "w") as file:
        file["a"] = [1]
    with pytest.raises(OODError, match="it is an HDF5 file"):
        foreign.read(tmp_path / "f.pt")


def test_our_own_checkpoints_give_no_such_hint(tmp_path):
    for name, content in {"lfs": OTHERS["lfs"][0], "cut": written(True, 900), "evil": None}.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(content) if content else saved(path, {"state_dict": {}, "about": Call(os.getcwd)})
        with pytest.raises(OODError, match=f"{name}.pt cannot be read .*; delete it and run again") as error:
            checkpoint.read(path)
        assert "weights_only" not in str(error.value) and "\n" not in str(error.value)
