"""A user's own Python files: where they lie, what they must define, and how they are loaded (docs/own.md).

Standard library only: the configuration is checked with it, without executing anything of the user's.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from workflow_scripts.core import specs
from workflow_scripts.core.errors import OODError, unknown

LIBRARIES = ("torchvision", "timm")  # `timm:NAME` and `torchvision:NAME` name a model of theirs
FILES = {"scores": ("score", "score", "options, known, state, batch"),
         "methods": ("method", "build", "options, released")}
"""Package of plugins that a user's file may be one of -> what it is called, the function it has to define, and what
that is given."""
HOOKS = ("check", "setup", "parameter_groups", "begin", "start_epoch", "loss", "predict", "after_step", "end_epoch",
         "finish", "record")
"""What the training loop calls of a method."""


class Code(NamedTuple):
    """A user's module: its dotted name below a folder that is put on Python's path; without a folder an installed one.
    """

    folder: str
    module: str

    @property
    def file(self) -> Path | None:
        """Its file; ``None`` where the folder has no such module, or it is an installed one."""
        path = Path(self.folder, *self.module.split("."))
        there = [p for p in (path.with_suffix(".py"), path / "__init__.py") if self.folder and p.is_file()]
        return there[0] if there else None


def is_file(name: str) -> bool:
    """Whether the name of a plugin is the path of a user's file."""
    return name.endswith(".py")


def script(path: str | Path) -> Code:
    """A single file, in its folder."""
    return Code(str(Path(path).parent), Path(path).stem)


def factory(text: str, folder: str, where: str) -> tuple[Code, str]:
    """``package.module:function`` or ``/path/file.py:function`` -> the module and the function's name.

    Raises:
        OODError: another form.
    """
    module, _, function = text.rpartition(":")
    if not module or not function.isidentifier() and module not in LIBRARIES:
        raise OODError(f"{where}: expected package.module:function, ./file.py:function, torchvision:name or timm:name, "
                       f"found '{text}'")
    if is_file(module):
        return script(module), function
    return Code("" if module in LIBRARIES else folder, module), function


def network_code(model: str, options: Any, where: str) -> tuple[str | Code, ...]:
    """The modules that a network is made of, for a code digest: ours, and a user's own.

    Args:
        model: a module of ``models``.
        options: its ``Options``.
    """
    if model != "own":
        return (f"models.{model}",)
    return "models.own", factory(options.factory, options.folder, where)[0]


def parsed(path: Path, where: str) -> ast.Module:
    """The syntax tree of a user's file. Raises OODError when it is not there or no Python."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError:
        raise OODError(f"{where}: there is no file {path}; a path that begins with ./ is relative to the configuration "
                       "file") from None
    except (SyntaxError, ValueError) as error:
        raise OODError(f"{where}: {path}, line {getattr(error, 'lineno', '?')}: no valid Python "
                       f"({getattr(error, 'msg', error)})") from None


def defined(tree: ast.Module) -> set[str]:
    """Names that a file defines at its top: functions, classes, variables, imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def check_factory(text: str, folder: str, where: str) -> None:
    """Refuse a network whose file or function is not there, without importing it.

    Raises:
        OODError: naming ``where``.
    """
    code, function = factory(text, folder, where)
    if not code.folder:
        top = code.module.split(".")[0]
        if top not in sys.modules and importlib.util.find_spec(top) is None:
            raise OODError(f"{where}: no installed package '{top}'; for a file of your own set options.folder, e.g. "
                           "folder: ./, or name it, e.g. ./net.py:make")
        return
    if not Path(code.folder).is_absolute():
        raise OODError(f"{where}: folder '{code.folder}' should be absolute or begin with ./ (relative to the "
                       "configuration file)")
    if code.file is None:
        raise OODError(f"{where}: there is no module {code.module} in {code.folder}; expected "
                       f"{code.module.replace('.', '/')}.py there")
    names = defined(parsed(code.file, where))
    if function not in names:
        raise unknown(f"{where}: function in {code.file}", function, names)


def check_file(package: str, path: str, where: str) -> None:
    """Refuse a score or method file that is not there or lacks what it has to offer, without importing it.

    Args:
        package: of :data:`FILES`.

    Raises:
        OODError: naming ``where``.
    """
    if not Path(path).is_absolute():
        raise OODError(f"{where}: '{path}' should be absolute or begin with ./ (relative to the configuration file)")
    tree = parsed(Path(path), where)
    kind, function, given = FILES[package]
    if function not in defined(tree):
        raise OODError(f"{where}: {path} defines no {function}; a {kind} file has a line such as "
                       f"def {function}({given}): ... (docs/own.md)")
    specs.read(tree, specs.KINDS[package], f"{where}: {path}")


@contextmanager
def user_errors(what: str) -> Iterator[None]:
    """End an exception in the user's code as one line with its place."""
    try:
        yield
    except OODError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's: whoever chose the number of images answers it
            raise
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [f for f in frames if not f.filename.startswith((sys.prefix, str(Path(__file__).parents[1]), "<"))]
        frame = (theirs or frames)[-1]
        text = (str(error).strip().splitlines() or [""])[0]
        raise OODError(f"{what}: {type(error).__name__}: {text} ({frame.filename}, line {frame.lineno})") from error


def load(code: Code, what: str) -> ModuleType:
    """Import a user's module with its folder on Python's path.

    Raises:
        OODError: it cannot be imported, or an installed package has its name.
    """
    if code.folder and code.folder not in sys.path:
        sys.path.insert(0, code.folder)
    with user_errors(what):
        module = importlib.import_module(code.module)
    ours, found = code.file, module.__file__
    if code.folder and (ours is None or found is None or Path(found).resolve() != ours.resolve()):
        raise OODError(f"{what}: {ours} has the name of another module, {found}; rename the file")
    return module


def load_file(package: str, path: str) -> ModuleType:
    """A score file whose every value is checked, or a method file whose every loss is.

    Args:
        package: of :data:`FILES`.

    Raises:
        OODError: see :func:`load`.
    """
    folder, what = str(Path(path).parent), f"{FILES[package][0]} file {path}"
    if folder not in sys.path:
        sys.path.insert(0, folder)  # for what it imports of its folder
    spec = importlib.util.spec_from_file_location(f"own_{package}_{hashlib.sha256(path.encode()).hexdigest()}", path)
    assert spec is not None and spec.loader is not None  # own.is_file: its name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with user_errors(what):
        spec.loader.exec_module(module)
    names = vars(module)
    if package == "methods":
        declared = specs.read(parsed(Path(path), what), specs.MethodSpec, path)
        names["build"] = built(names["build"], declared.outliers == "always", what)
        return module
    names["score"] = checked(names["score"], path)
    if "fit" in names:
        names["fit"] = placed(names["fit"], what)
    return module


def built(build: Callable[..., Any], outliers: bool, what: str) -> Callable[..., Any]:
    """``build`` of a user, whose method ends with one line where its code raises or gives no loss.

    Args:
        outliers: whether its ``SPEC`` says that it trains with outliers.

    Raises:
        OODError: it gives no method, or one that takes outliers where its ``SPEC`` has none.
    """
    @functools.wraps(build)
    def run(*given: Any) -> Any:
        with user_errors(what):
            method = build(*given)
        if not all(callable(getattr(method, hook, None)) for hook in HOOKS):
            raise OODError(f"{what}: build gave {type(method).__name__}, expected an object of a class of yours, class "
                           "Mine(Method), and above from workflow_scripts.methods.base import Method")
        if bool(method.outliers) != outliers:
            raise OODError(f"{what}: the method has outliers = {bool(method.outliers)}, its SPEC says otherwise; a "
                           "method that trains with outliers has outliers = True in its class and "
                           'SPEC = MethodSpec(outliers="always"), another one neither')
        for hook in HOOKS:
            setattr(method, hook, placed(getattr(method, hook), what))
        method.loss = checked_loss(method.loss, what)
        method.parameter_groups = checked_groups(method, what)
        return method

    return run


def checked_groups(method: Any, what: str) -> Callable[[Any], Any]:
    """``parameter_groups`` of a user's method, which must name all of its own parameters that are to be trained.

    Raises:
        OODError: it leaves one out.
    """
    groups = method.parameter_groups

    @functools.wraps(groups)
    def run(network: Any) -> Any:
        found, named = [], set()
        with user_errors(what):
            for group in groups(network):
                given = group["params"]  # one tensor, or several, as torch takes them
                found.append({**group, "params": [given] if hasattr(given, "requires_grad") else list(given)})
                named |= {id(parameter) for parameter in found[-1]["params"]}
        for name, parameter in method.named_parameters():
            if parameter.requires_grad and id(parameter) not in named:
                raise OODError(f"{what}: its parameter '{name}' is in no group of parameter_groups, so that it would "
                               "never be trained; name it there, or call requires_grad_(False) on it")
        return found

    return run


def checked_loss(loss: Callable[..., Any], what: str) -> Callable[..., Any]:
    """``loss`` of a user's method, which must give a scalar to minimise and the logits of the ID images.

    Raises:
        OODError: it gives anything else.
    """
    @functools.wraps(loss)
    def run(network: Any, batch: Any) -> Any:
        found = loss(network, batch)
        count = len(batch.labels)
        shapes = [getattr(part, "shape", type(part).__name__) for part in (found if isinstance(found, tuple) else [])]
        fits = len(shapes) == 2 and shapes[0] == () and len(shapes[1]) == 2 and shapes[1][0] == count
        if not fits:
            told = ", ".join(str(shape if isinstance(shape, str) else tuple(shape)) for shape in shapes)
            raise OODError(f"{what}: loss gave {f'({told})' if shapes else type(found).__name__} for {count} images; "
                           f"return (loss, logits), a scalar to minimise and the logits ({count}, K) of the ID images")
        if not found[0].requires_grad:
            raise OODError(f"{what}: the loss depends on nothing that is trained; compute it of network(batch.images), "
                           "without detach() and no_grad()")
        return found

    return run


def placed(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """``function`` of a user, an exception in which is one line with its place."""

    @functools.wraps(function)
    def run(*given: Any, **named: Any) -> Any:
        with user_errors(what):
            return function(*given, **named)

    return run


def checked(score: Callable[..., Any], path: str) -> Callable[..., Any]:
    """``score`` of a user, which must give one finite number for each image.

    Raises:
        OODError: another shape, no numbers, NaN or infinite values; an exception in it, with its place.
    """

    @functools.wraps(score)
    def run(options: Any, known: Any, state: Any, *images: Any) -> Any:
        with user_errors(f"score file {path}"):
            values = score(options, known, state, *images)
        parts = [images[-1]] if len(images) > 1 else [v for v in vars(images[0]).values() if v is not None]
        count, shape = len(parts[0]), getattr(values, "shape", None)
        if shape is None or tuple(shape) != (count,):
            found = type(values).__name__ if shape is None else f"shape {tuple(shape)}"
            raise OODError(f"score file {path}: score gave {found} for {count} images; return an array of shape "
                           f"({count},), one number for each image")
        bad = values != values  # NaN
        bad = bad | (abs(values) == float("inf"))
        if bool(bad.any()):
            raise OODError(f"score file {path}: score gave NaN or infinite values for {int(bad.sum())} of {count} "
                           f"images, first in row {[bool(b) for b in bad].index(True)}; its inputs are finite, so look "
                           "for a logarithm or a division in it")
        return values

    return run
