"""The code digest: which code a stage's outputs depend on, so that only what changed reruns.

``digest(stage, *plugins)`` maps every project module that the stage can reach through imports, plus the plugins its
wildcards name (and what those import), to a hash of its syntax tree; comments, formatting and docstrings do not count.
Neither do the texts of raised errors and of declared defects. It adds the versions of the packages that compute
numbers. Snakemake stores the mapping as a parameter of each output and reruns when it differs;
:mod:`workflow_scripts.why` compares the two mappings and names the file. Of a user's own module (docs/own.md) all of
its folder that it imports counts in the same way.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import sys
from pathlib import Path

from workflow_scripts.core import own
from workflow_scripts.core.own import Code

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "workflow_scripts"

# Packages whose version can change a number: import name -> distribution.
NUMERICAL = {
    "torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "scipy": "scipy", "sklearn": "scikit-learn",
    "skimage": "scikit-image", "PIL": "pillow", "timm": "timm", "open_clip": "open_clip_torch", "pandas": "pandas",
    "matplotlib": "matplotlib", "jinja2": "jinja2",
}
# Storage and plumbing: a new version of these reads and writes the same numbers.
PLUMBING = {"h5py", "lmdb", "pydantic", "annotated_types", "array_api_compat", "yaml", "tqdm", "psutil", "pooch",
            "snakemake", "packaging", "pydantic_core", "markupsafe", "yte",
            "requests", "urllib3", "filelock", "safetensors", "rich", "argcomplete", "rocrate"}
# Our own plumbing: messages, atomic writing, finding plugins, reading sections, starting processes and going on after a
# stop cannot change a number.
WITHOUT_NUMBERS = {"workflow_scripts.core.errors", "workflow_scripts.core.files", "workflow_scripts.core.plugins",
                   "workflow_scripts.core.fingerprint", "workflow_scripts.core.yaml_files",
                   "workflow_scripts.core.digest", "workflow_scripts.core.own", "workflow_scripts.core.section",
                   "workflow_scripts.core.locks", "workflow_scripts.core.mistaken", "workflow_scripts.core.specs",
                   "workflow_scripts.training.resume", "workflow_scripts.training.launch"}


@functools.cache
def _found(module: str) -> Path | None:
    """A project module's file; ``None`` where there is no such module."""
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def _file(module: str) -> Path:
    """A project module's file."""
    path = _found(module)
    if path is None:
        raise ValueError(f"there is no module {module}")
    return path


@functools.cache
def _name(module: str) -> str:
    return _file(module).relative_to(ROOT).as_posix()


def _strip_texts(tree: ast.Module) -> ast.Module:
    """Remove every statement that is only a string (docstrings, also of fields), the texts of raised errors, and what
    a plugin's declaration says about defects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) == "SPEC":
            node.value.keywords = [k for k in node.value.keywords if k.arg not in ("defects", "shared_defects")]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
                                            and isinstance(n.value.value, str))]
            vars(node)["body"] = kept or [ast.Pass()]
    return tree


@functools.cache
def _module(module: str) -> tuple[str, frozenset[str], frozenset[str]]:
    """(hash of the code, project modules imported, third-party packages imported) of one project module."""
    text, imported = _read(_file(module), "")
    local = {name for name in imported if name.split(".")[0] == PACKAGE}
    foreign = {name.split(".")[0] for name in imported - local} - sys.stdlib_module_names
    return text, frozenset(local), frozenset(foreign)


def _read(path: Path, package: str) -> tuple[str, frozenset[str]]:
    """(hash of the code, modules imported) of one file; ``package`` is what its relative imports start from."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.level == 0 or package):
            above = package.split(".")[:len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            imported = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "find_spec":
            imported = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]  # reads files of that package
        else:
            continue
        found |= set(imported)
    # unparse, not dump: the text of the code is the same under every Python version we support
    text = ast.unparse(_strip_texts(tree))
    return hashlib.sha256(text.encode()).hexdigest()[:12], frozenset(found)


def own_code(code: Code) -> tuple[dict[str, str], frozenset[str], frozenset[str]]:
    """(hash of each file, project modules imported, packages imported) of a user's module and all that it imports of
    its own folder. An installed module counts by its package's version."""
    files: dict[str, str] = {}
    imported: set[str] = set()
    todo = {code.module}
    while todo:
        module = todo.pop()
        path = Code(code.folder, module).file
        if path is None:
            if not code.folder or Code(code.folder, module.split(".")[0]).file is None:
                imported.add(module)  # else a name in a module of the folder
            continue
        name = f"own/{path.relative_to(code.folder).as_posix()}"
        if name in files:
            continue
        inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
        files[name], found = _read(path, inside)
        todo |= found | ({module.rpartition(".")[0]} - {""})
    local = frozenset(name for name in imported if name.split(".")[0] == PACKAGE)
    foreign = {name.split(".")[0] for name in imported - local} - sys.stdlib_module_names - {""}
    return files, local, frozenset(foreign)


@functools.cache
def closure(*modules: str) -> tuple[frozenset[str], frozenset[str]]:
    """All project modules reachable from ``modules`` (with the packages they lie in), and third-party packages."""
    seen: set[str] = set()
    foreign: set[str] = set()
    todo = list(modules)
    while todo:
        module = todo.pop()
        if module in seen or module in WITHOUT_NUMBERS or _found(module) is None:
            continue  # `from package import name` may also name a function, which is no module
        seen.add(module)
        _, local, packages = _module(module)
        foreign |= packages
        todo.extend(local)
        if "." in module:
            todo.append(module.rsplit(".", 1)[0])
    return frozenset(seen), frozenset(foreign)


@functools.cache
def version(distribution: str) -> str:
    """Installed version without its local part (``2.15.0+cpu`` and ``2.15.0`` compute the same)."""
    try:
        return importlib.metadata.version(distribution).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def _digest(modules: tuple[str | Code, ...]) -> tuple[tuple[str, str], ...]:
    given = [own_code(module) for module in modules if isinstance(module, Code)]
    ours = sorted({module for _, local, _ in given for module in local})
    local, foreign = closure(*(module for module in modules if isinstance(module, str)), *ours)
    code = {_name(m): _module(m)[0] for m in local}
    for package in (_file(m).parent for m in local if _file(m).name == "__init__.py"):
        for path in package.iterdir():  # templates and the like, which the package's code reads
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                code[path.relative_to(ROOT).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    packages = {NUMERICAL[p]: version(NUMERICAL[p]) for p in foreign if p in NUMERICAL}
    for files, _, theirs in given:
        code |= files
        packages |= {NUMERICAL.get(p, p): version(NUMERICAL.get(p, p)) for p in theirs - PLUMBING}
    return tuple(sorted({**code, **packages}.items()))


def resolved(plugin: str | Code) -> str | Code:
    """A plugin's module: ``methods.goe`` as it is, of ``methods./my/work/mine.py`` the user's file."""
    if isinstance(plugin, Code) or not own.is_file(plugin):
        return plugin
    return own.script(plugin.partition(".")[2])


def digest(stage: str | Code, *plugins: str | Code) -> dict[str, str]:
    """Code that the outputs of ``stage`` depend on.

    Args:
        stage: module name below ``workflow_scripts``, e.g. ``"train"``, or a user's own.
        plugins: modules below ``workflow_scripts`` that the job's wildcards name, e.g. ``"models.resnet_cifar"``, or a
            user's own, of which a file may also be named as such a module is (:func:`resolved`).

    Returns:
        ``{file or distribution: hash or version}``, keys sorted (Snakemake compares the repr).
    """
    named = map(resolved, (stage, *plugins))
    modules = tuple(p if isinstance(p, Code) else f"{PACKAGE}.{p}" for p in named)
    for module in modules:
        if isinstance(module, str):
            _file(module)  # refuses one that does not exist
    return dict(_digest(modules))
