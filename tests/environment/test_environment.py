"""The pins are complete, exact and what resolves; nothing that names one machine or one index is committed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envs import pin

ROOT = Path(__file__).resolve().parents[2]
RUN_TIME, DEV = pin.present()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements(name: str) -> list[Requirement]:
    return [Requirement(line) for line in pin.requirement_lines((ROOT / "envs" / name).read_text())]


def versions(rows: list[str]) -> dict[str, str]:
    """Canonical name -> pinned version."""
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in map(Requirement, rows)}


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    """What git tracks, and what it would take with `git add .`."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


# --- the pins ---------------------------------------------------------------------------------------------------------


def test_every_requirement_names_one_exact_version():
    rows = [Requirement(row) for row in RUN_TIME + DEV] + requirements("direct.txt") + requirements("dev.txt")
    assert [str(row) for row in rows if not re.fullmatch(r"==[^*,]+", str(row.specifier)) or row.url] == []


@pytest.mark.parametrize(("name", "rows"), [("direct.txt", RUN_TIME), ("dev.txt", RUN_TIME + DEV)])
def test_what_is_asked_for_is_pinned_as_asked(name, rows):
    asked = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in requirements(name)}
    pinned = versions(rows)
    assert {n: pinned.get(n) for n in asked} == asked


def test_every_dependency_of_an_installed_pin_is_pinned_and_installed_as_pinned():
    """Walks the installed metadata from the direct requirements, extras included; no index is needed."""
    pinned, seen = versions(RUN_TIME + DEV), set()
    stack = requirements("direct.txt") + requirements("dev.txt")
    unpinned, other = set(), {}
    while stack:
        requirement = stack.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name not in pinned:
            unpinned.add(name)
            continue
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # the conda environment has no development tools
            continue
        if installed.version != pinned[name]:
            other[name] = (installed.version, pinned[name])
        for line in installed.requires or []:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras | {""}):
                stack.append(child)
    assert len(seen) > 100  # the walk went past the direct requirements
    assert not unpinned
    assert not other, "installed differs from pinned (installed, pinned); run `uv sync`"


def test_run_time_and_dev_do_not_repeat_each_other():
    assert not set(RUN_TIME) & set(DEV)


def test_python_versions_agree():
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert (pin.PYTHONS, PROJECT["tool"]["ruff"]["target-version"]) == (("3.11", "3.12", "3.13"), "py311")


def test_the_citation_is_of_this_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    ours = PROJECT["project"]
    assert {k: citation[k] for k in ("version", "license")} == {k: ours[k] for k in ("version", "license")}
    assert citation["title"] == ours["description"]
    assert len(citation["references"]) == 5


def test_conda_environment_has_the_pins_of_its_python():
    conda = yaml.safe_load((ROOT / "envs" / "ood.yaml").read_text())
    python, pip, pins = conda["dependencies"]
    assert (python, pip) == (f"python ={pin.CONDA_PYTHON}", "pip")
    assert pins == {"pip": pin.pins_for(RUN_TIME, pin.CONDA_PYTHON)}
    assert {"snakemake", "torch", "nvidia-cudnn-cu13"} <= set(versions(pins["pip"]))
    assert "colorama" not in versions(pins["pip"])  # Windows only


def test_the_container_installs_the_pins_of_the_conda_environments_python(uv):
    """The recipe's own command, dry, in this environment, which has the pins; the image itself is not built here."""
    recipe = (ROOT / "envs" / "Dockerfile").read_text()
    base, copied, run = (line for line in recipe.splitlines() if line.split(" ")[0] in ("FROM", "COPY", "RUN"))
    assert base == f"FROM python:{pin.CONDA_PYTHON}-slim"
    assert copied.split() == ["COPY", "pyproject.toml", "/opt/ood/pyproject.toml"]
    uv_itself, packages = run.removeprefix("RUN ").split(" && ")
    assert uv_itself == "pip install --no-cache-dir uv"
    command = packages.replace("--system --no-cache", f"--dry-run --offline --python {sys.executable}")
    done = subprocess.run(command.replace("/opt/ood/", "").split(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Would make no changes" in done.stderr, done.stderr


# --- pin.py -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reduced"),
    [
        ("a==1", ["a==1"]),
        ("a==1 ; sys_platform == 'emscripten'", []),
        ("a==1 ; sys_platform != 'emscripten'", ["a==1"]),
        ("a==1 ; python_full_version >= '3.14'", []),
        ("a==1 ; python_full_version < '3.15'", ["a==1"]),
        ("a==1 ; implementation_name == 'pypy'", []),
        ("a==1 ; python_full_version < '3.12'", ["a==1 ; python_full_version < '3.12'"]),
        ("a==1 ; sys_platform == 'win32'", ["a==1 ; sys_platform == 'win32'"]),
    ],
)
def test_markers_are_reduced_to_the_supported_environments(row, reduced):
    assert pin.reduce_markers([row]) == reduced


def test_only_what_stands_between_the_marks_is_replaced():
    text = "a\n# pins of {}: written by envs/pin.py from envs/{}.txt\n old\n  # end of pins\nb\n"
    text = "".join(text.format(name, name) for name in ("direct", "dev"))
    new = pin.pyproject_text(text, ["x==1"], [])
    assert new == text.replace(" old\n", '  "x==1",\n', 1).replace(" old\n", "")
    with pytest.raises(pin.PinError, match="restore these comments"):
        pin.pyproject_text("no marks", [], [])


# uv 0.13.3 wrote the second, 0.13.9 writes the first
TOGETHER = "(platform_machine == 'aarch64' or platform_machine == 'x86_64') and sys_platform == 'linux'"
APART = ("(platform_machine == 'aarch64' and sys_platform == 'linux') or "
         "(platform_machine == 'x86_64' and sys_platform == 'linux')")


@pytest.mark.parametrize(
    ("row", "other"),
    [
        (f"a==1 ; {TOGETHER}", f"a==1 ; {APART}"),
        ("a==1 ; sys_platform == 'win32'", "a==1 ; os_name == 'nt'"),
        ("a==1 ; python_full_version < '3.12'", "a==1 ; python_version <= '3.11'"),
        ("a==1", "a==1 ; python_full_version < '3.15'"),
        ("A_b[x,y]==1", "a-b[y, x]==1"),
    ],
)
def test_rows_that_mean_the_same_keep_the_text_that_is_committed(row, other):
    assert pin.meaning([row]) == pin.meaning([other])
    for new, committed in ((row, other), (other, row)):
        assert pin.keep_text([new], [committed]) == [committed]
        assert pin.keep_text(["0==1", new, "z==1"], [committed, "z==2"]) == ["0==1", committed, "z==1"]


@pytest.mark.parametrize(
    ("row", "other"),
    [
        ("a==1", "a==2"),
        ("a==1", "b==1"),
        ("a==1", "a[x]==1"),
        ("a==1", "a==1 ; sys_platform == 'linux'"),
        (f"a==1 ; {TOGETHER}", f"a==1 ; {APART.replace('linux', 'darwin')}"),
        ("a==1 ; python_full_version < '3.12'", "a==1 ; python_full_version < '3.11.4'"),
    ],
)
def test_rows_that_mean_something_else_are_written(row, other):
    assert pin.meaning([row]) != pin.meaning([other])
    assert pin.keep_text([row], [other]) == [row]


def test_a_package_may_have_one_version_here_and_another_there():
    rows = ["a==1 ; sys_platform == 'win32'", "a==2 ; sys_platform != 'win32'"]
    other = ["a==2 ; os_name != 'nt'", "a==1 ; os_name == 'nt'"]
    assert pin.keep_text([*rows, "b==1"], [*other, "b==2"]) == [*other, "b==1"]
    assert pin.keep_text([*rows, "b==1"], [*other[:1], "b==1"]) == [*rows, "b==1"]


@pytest.mark.parametrize("options", [[], ["--check"], ["--upgrade"]])
def test_a_uv_that_writes_markers_in_another_way_changes_nothing(options, monkeypatch):
    """Both files stay as they are, and ``--check`` is content; the uv is played by a function."""
    files = {path: path.read_text() for path in (pin.PYPROJECT, pin.CONDA)}
    seen = []

    def another_uv(requirements, *_, keep):
        seen.append(list(requirements))
        rows = RUN_TIME + DEV if len(seen) == 1 else RUN_TIME
        return [row.replace(APART, TOGETHER) for row in rows]

    monkeypatch.setattr(pin, "compile_requirements", another_uv)
    assert another_uv([], keep=[]) != RUN_TIME + DEV  # it does write them in another way
    seen.clear()
    written = {}
    monkeypatch.setattr(Path, "write_text", lambda path, text: written.update({path: text}))
    assert pin.main(options) == 0
    assert written == ({} if options == ["--check"] else files)


@pytest.fixture
def uv() -> None:
    if not (os.environ.get("UV") or shutil.which("uv")):
        pytest.skip("uv is not on PATH")


@pytest.fixture
def index(uv, tmp_path, monkeypatch) -> Path:
    """A folder with a package index, the only one that uv sees: a==1, a==2 which was yanked, and b==1 which needs a."""
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_INDEX_URL", (tmp_path / "i").as_uri())
    for name, version, more, needs in (("a", 1, "", ""), ("a", 2, ' data-yanked="broken"', ""),
                                       ("b", 1, "", "Requires-Dist: a\n")):
        wheel = tmp_path / "i" / name / f"{name}-{version}-py3-none-any.whl"
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel, "w") as file:
            about = f"{name}-{version}.dist-info"
            file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
            file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{about}/RECORD", "")
        with (wheel.parent / "index.html").open("a") as page:
            page.write(f'<a href="{wheel.name}"{more}>{wheel.name}</a>\n')
    return tmp_path / "i"


def test_a_conflict_an_index_out_of_reach_and_a_yanked_release_are_told_apart(index, monkeypatch, capsys):
    assert pin.compile_requirements(["b"]) == ["a==1", "b==1"]
    assert capsys.readouterr().err == ""
    assert pin.compile_requirements(["b", "a==2"]) == ["a==2", "b==1"]
    assert re.search("a==2.* is yanked .*broken", capsys.readouterr().err)
    with pytest.raises(pin.PinError) as conflict:
        pin.compile_requirements(["a<1", "b"])
    assert not isinstance(conflict.value, pin.Unreachable)
    monkeypatch.setenv("UV_INDEX_URL", "http://localhost:9/")
    with pytest.raises(pin.Unreachable):
        pin.compile_requirements(["b"])
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(pin.Unreachable):
        pin.compile_requirements(["b"])


# --- what an index answers today: uv run pytest -m network ------------------------------------------------------------


@pytest.fixture
def today(uv, capsys):
    """Calls a function that asks the index. A yanked pin is a warning; skipped where no index answers."""
    def ask(function, *arguments, **options):
        try:
            return function(*arguments, **options)
        except pin.Unreachable:
            pytest.skip("no package index is reachable")
        finally:
            if said := capsys.readouterr().err:
                warnings.warn(said, stacklevel=2)
    return ask


def moved(rows: list[str]) -> list[str]:
    """``name: version that is pinned -> version in rows`` where they differ."""
    now, then = versions(RUN_TIME + DEV), versions(rows)
    return [f"{n}: {now.get(n)} -> {then.get(n)}" for n in sorted(now | then) if now.get(n) != then.get(n)]


@pytest.mark.network
def test_resolving_again_changes_nothing(today):
    run_time, dev = today(pin.resolve)
    gone = [line for line in moved(run_time + dev) if "None" not in line]
    if gone:  # a pin is kept for as long as the index offers it
        warnings.warn(f"pins that the index withdrew; run `uv run python envs/pin.py`: {'; '.join(gone)}", stacklevel=1)
        return
    text = pin.PYPROJECT.read_text()
    wanted = {pin.PYPROJECT: pin.pyproject_text(text, run_time, dev), pin.CONDA: pin.conda_text(run_time)}
    assert pin.differences(wanted) == []


@pytest.mark.network
@pytest.mark.parametrize("python", pin.PYTHONS)
def test_the_pins_are_a_whole_resolution_on(python, today):
    """Their own resolution adds, drops and changes nothing: neither a package nor a version."""
    options = ("--python-version", python, "--python-platform", "x86_64-unknown-linux-gnu")
    resolved = today(pin.compile_requirements, RUN_TIME + DEV, *options)
    assert versions(resolved) == versions(pin.pins_for(RUN_TIME + DEV, python))


@pytest.mark.network
def test_newer_releases_are_a_message(today):
    try:
        newer = moved(sum(today(pin.resolve, upgrade=True), []))
    except pin.PinError as error:
        newer = [str(error)]
    if newer:
        warnings.warn("newer releases (`uv run python envs/pin.py --upgrade` takes them): " + "; ".join(newer),
                      stacklevel=1)


# --- what is committed ------------------------------------------------------------------------------------------------

# Each pattern is written so that its own source does not match it.
REGISTRY = re.compile(
    r"\bpypi\.(?:org|nvidia|python)|pythonhosted\.|\bconda\.anaconda\.|\brepo\.anaconda\.|\w://\S*/(?:simple|whl)\b"
)
MACHINE_PATH = re.compile(r"(?<![\w.:/}$*-])/(?:(?:root|work|farm)\b|(?:home|Users)/\w)|\b[A-Z]:\\{1,2}Users\b")


def found(pattern: re.Pattern, paths: list[Path]) -> list[str]:
    """``file:line: match`` of every match; latin-1 reads any byte."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), start=1)
        for match in pattern.finditer(line)
    ]


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        (REGISTRY, ("https://py", "pi.org/sim", "ple")),
        (REGISTRY, ("https://files.python", "hosted.org/x")),
        (REGISTRY, ("http://mirror.example:8080/sim", "ple/")),
        (REGISTRY, ("file:///opt/index/sim", "ple")),
        (REGISTRY, ("https://download.example.org/wh", "l/cu130")),
        (MACHINE_PATH, ("'/ro", "ot/x'")),
        (MACHINE_PATH, ("root: /ho", "me/someone/data")),
        (MACHINE_PATH, ("cd /wo", "rk")),
        (MACHINE_PATH, ("=/Us", "ers/someone")),
        (MACHINE_PATH, ("C:\\Us", "ers\\someone")),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern, parts):
    assert pattern.search("".join(parts))


@pytest.mark.parametrize(
    "line", ["https://example.org/home/x", "results/work/a", "$HOME/data", "simple/whl", "/path/to/data", "a/root"]
)
def test_the_patterns_leave_the_rest_alone(line):
    assert not REGISTRY.search(line)
    assert not MACHINE_PATH.search(line)


def test_no_registry_address_is_committed(committed):
    assert found(REGISTRY, committed) == []


def test_no_path_of_one_machine_is_committed(committed):
    assert found(MACHINE_PATH, committed) == []


def test_nothing_over_one_megabyte_is_committed(committed):
    assert [(str(p.relative_to(ROOT)), p.stat().st_size) for p in committed if p.stat().st_size > 1_000_000] == []


def test_the_lock_that_records_an_index_is_not_committed(committed):
    assert ROOT / "uv.lock" not in committed
