"""Tensors of a pickled file without running anything of it.

A file of ``torch.save`` is a pickle, and a pickle names classes and functions to call. Here every such name becomes an
empty shell that remembers what it was called with (:class:`Shell`), whatever it names: nothing is imported and nothing
is called. Afterwards shells that describe a tensor become one, those that describe a network become its state dict, and
all others stay shells. Both forms are read: the zip file of PyTorch 1.6 and later, and the older one.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch
from torch import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form
_TYPES = {"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
          "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
          "Bool": torch.bool}
_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_REPEATED = 10**6  # values that an expanded tensor may have
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"


class Unreadable(ValueError):
    """The file is not of the form, or not whole; the text says why."""


class Shell(dict):
    """In place of an object of any class, and of what a function would return."""

    path: ClassVar[str]
    """Its class or function, as the file names it."""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_: Any) -> Shell:
        shell = super().__new__(cls)
        shell.args, shell.state = args, None
        return shell

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, _: Any) -> None:
        """An entry of a list's subclass, which is not kept."""

    add = extend = append
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Storage(NamedTuple):
    """Numbers of a file that a tensor is a view of."""

    key: str
    type: torch.dtype
    start: int
    """Of a view within them."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.shells: dict[str, type[Shell]] = {}
        self.types: dict[str, torch.dtype] = {}
        """Of each storage."""

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path not in self.shells:
            self.shells[path] = type(name.rpartition(".")[2], (Shell,), {"path": path})
        return self.shells[path]

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # the class of a network, and its source
            return pid[1]
        _, kind, key, _, _, *view = pid
        name = kind.path.removeprefix("torch.").removeprefix("cuda.").removesuffix("Storage")
        if name not in _TYPES:
            raise Unreadable(f"numbers of the type {kind.path} are not read")
        self.types[str(key)] = _TYPES[name]
        return Storage(str(key), _TYPES[name], int(view[0][1]) if view and view[0] else 0)


def read(path: str | Path) -> tuple[Any, list[str]]:
    """What the file holds, of mappings and lists, tensors, plain values and shells; and the names that it asks for.

    Raises:
        Unreadable: it is no whole file of ``torch.save``.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with open(path, "rb") as file:
            return _read_older(file)
    except (Unreadable, OSError):
        raise
    except EOFError:
        raise Unreadable("it is cut off, its end is missing") from None
    except Exception as error:  # a pickle that is none may fail in any way
        text = str(error).partition("\n")[0]
        raise Unreadable(f"it is damaged, or no file of torch.save: {type(error).__name__} {text}".strip()) from None


def _read_zip(path: str | Path) -> tuple[Any, list[str]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        index = next((name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")), None)
        if index is None:
            raise Unreadable(f"it is a zip archive of {', '.join(names[:4]) or 'nothing'}: unpack it")
        root = index.removesuffix("data.pkl")
        if f"{root}constants.pkl" in names:
            raise Unreadable("it is a TorchScript archive: save the state dict of the network that it was made from")
        whole = os.path.getsize(path)

        def part(name: str) -> bytes:
            if archive.getinfo(root + name).file_size > whole:
                raise Unreadable(f"its part {name} is larger than the file")
            return archive.read(root + name)

        if f"{root}byteorder" in names and part("byteorder") != b"little":
            raise Unreadable("its numbers are big-endian")
        unpickler = _Unpickler(io.BytesIO(part("data.pkl")))
        content = _Made(lambda storage: bytearray(part(f"data/{storage.key}"))).made(unpickler.load())
        return content, list(unpickler.shells)


def _read_older(file: BinaryIO) -> tuple[Any, list[str]]:
    if _Unpickler(file).load() != _MAGIC:
        raise Unreadable("it is a pickle that torch.save did not write: torch.save(net.state_dict(), ...) where it can "
                         "be opened")
    _Unpickler(file).load()  # the version
    if not _Unpickler(file).load()["little_endian"]:
        raise Unreadable("its numbers are big-endian")
    unpickler = _Unpickler(file)
    content, places, size = unpickler.load(), {}, os.fstat(file.fileno()).st_size
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        length = count * unpickler.types[key].itemsize
        places[key] = file.tell(), length
        if file.tell() + length > size:
            raise EOFError
        file.seek(length, os.SEEK_CUR)

    def numbers(storage: Storage) -> bytearray:
        start, length = places[storage.key]
        file.seek(start)
        return bytearray(file.read(length))

    return _Made(numbers).made(content), list(unpickler.shells)


class _Made:
    """What shells describe. ``numbers`` reads those of a storage."""

    def __init__(self, numbers: Callable[[Storage], bytearray]) -> None:
        self.numbers = numbers
        self.kept: dict[str, Tensor] = {}

    def made(self, value: Any) -> Any:
        if isinstance(value, Shell):
            return self.of_shell(value)
        if isinstance(value, dict):
            return {key: self.made(part) for key, part in value.items()}
        if type(value) in (list, tuple):
            return type(value)(map(self.made, value))
        return value

    def of_shell(self, shell: Shell) -> Any:
        if shell.path == _SUBCLASS and issubclass(shell.args[0], Shell):
            return self.of_shell(shell.args[0](*shell.args[2]))
        if shell.path in _PARAMETER:
            return self.made(shell.args[0])
        if shell.path in _TENSOR:
            return self.tensor(*shell.args[:4])
        if shell.path == "collections.OrderedDict":
            return self.made(dict(*shell.args) | shell)
        state = shell.state
        if isinstance(state, dict) and {"_parameters", "_buffers", "_modules"} <= state.keys():
            return self.network(state)
        return shell

    def tensor(self, storage: Storage, start: int, size: Any, strides: Any) -> Tensor:
        """A view of a storage, whose bounds are checked."""
        size, strides = (tuple(map(int, part.args[0] if isinstance(part, Shell) else part)) for part in (size, strides))
        start += storage.start
        if storage.key not in self.kept:
            data = self.numbers(storage)
            count = len(data) // storage.type.itemsize
            self.kept[storage.key] = torch.frombuffer(data, dtype=storage.type, count=count) if count else \
                torch.empty(0, dtype=storage.type)
        numbers = self.kept[storage.key]
        last = start + sum((n - 1) * step for n, step in zip(size, strides, strict=True))
        repeated = math.prod(size) > max(len(numbers), _REPEATED)
        if min((start, *size, *strides)) < 0 or repeated or 0 not in size and last >= len(numbers):
            raise Unreadable("a tensor reaches beyond its numbers")
        return numbers.as_strided(size, strides, start).clone(memory_format=torch.contiguous_format)

    def network(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state dict of a pickled ``nn.Module``."""
        left_out = state.get("_non_persistent_buffers_set", ())
        left_out = left_out.args[0] if isinstance(left_out, Shell) else left_out  # set([...]) of protocol 2
        found = {}
        for group, skipped in (("_parameters", ()), ("_buffers", left_out)):
            found |= {name: part for name, part in self.made(state[group]).items()
                      if part is not None and name not in skipped}
        for name, part in self.made(state["_modules"]).items():
            if isinstance(part, Shell):
                raise Unreadable(f"its part '{name}' ({part.path}) is no nn.Module with parameters")
            found |= {f"{name}.{inner}": tensor for inner, tensor in (part or {}).items()}
        return found
