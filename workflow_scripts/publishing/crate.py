"""A finished run as an RO-Crate: a folder or .zip whose ``ro-crate-metadata.json`` says what each file is.

By the profile Workflow Run RO-Crate 0.5 (https://w3id.org/ro/wfrun/workflow/0.5), which is also a Workflow RO-Crate as
WorkflowHub reads it: `code/Snakefile` is the main workflow, one action stands for the run, `config.yaml` and the raw
files are what it used, tables, figures, metrics and the page what it made.

    config.yaml                     configuration of the run; with it `reproduce` runs again
    results/VARIANT/                files of the papers, where the run had them; networks where asked for
    code/                           what an installed package holds
"""

from __future__ import annotations

import mimetypes
import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from workflow_scripts.config import citation
from workflow_scripts.core.digest import ROOT, digest
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic, put_in_place, sha256
from workflow_scripts.publishing.manifests import SUFFIX, Published, published
from workflow_scripts.wiring import paths
from workflow_scripts.wiring.targets import results_of

METADATA = "ro-crate-metadata.json"
CONFIG, README = "config.yaml", "README.md"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
KINDS = {".md": "text/markdown", ".yaml": "application/yaml", ".pt": "application/octet-stream"}
TERMS = "https://w3id.org/ro/terms/workflow-run/context"


def finished(folder: Path) -> tuple[Published, list[Path]]:
    """A run and the files of its papers, below ``results`` of the folder that holds it.

    Args:
        folder: its results, such as `results/small`.

    Raises:
        OODError: it is no folder of results; a file is not there yet; it names files of this machine; the code that
            computed it is not here.
    """
    manifests = sorted((folder / "tables").glob(f"*{SUFFIX}"))
    if not manifests:
        raise OODError(f"{folder}: no results of a run; expected a folder such as results/small, with "
                       f"tables/PAPER{SUFFIX}")
    run = published(manifests)
    top = PurePosixPath(paths.root(run.plan))
    wanted = [PurePosixPath(file) for paper in run.plan.papers for file in (
        *results_of(run.plan, paper),
        *(paths.of_network(run.plan, "metrics", one, ".csv") for one in run.plan.reported(paper)))]
    wanted += [top / name for name in ("report.html", "cards.json")]
    files = list(dict.fromkeys(folder / file.relative_to(top) for file in wanted))
    lacking = [path for path in files if not path.is_file()]
    if lacking:
        raise OODError(f"{folder}: the run is not finished: {lacking[0]} and {len(lacking) - 1} other files are not "
                       "there; run the workflow to its end first")
    for place, text in _texts(run.config):
        if Path(text).is_absolute():
            raise OODError(f"{folder}: {place} names a file of this machine ({text}), which a crate does not hold; "
                           "`python -m workflow_scripts.export` writes a network with files of your own")
    _same_code(folder, run)
    return run, files + sorted(folder.glob("overview.*"))


def _texts(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a configuration, with its place."""
    if isinstance(value, str):
        yield at, value
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _texts(entry, f"{at}[{key}]" if isinstance(key, int) else f"{at}.{key}".lstrip("."))


def _same_code(folder: Path, run: Published) -> None:
    """Raises OODError where the crate would hold other code than the run had."""
    for path, manifest in run.manifests.items():
        for module, before in manifest["code"].items():
            now = digest(module)
            for file in before.keys() | now.keys():
                if "/" in file and before.get(file) != now.get(file):
                    raise OODError(f"{folder}: {file} is not the code that computed it ({path.name}); check out "
                                   f"revision {manifest['git'].get('revision') or 'not known'}, or run again")


def write(folder: Path, out: Path, networks: bool = False) -> int:
    """Write the crate of a finished run, whole or not at all; -> how many files it has.

    Args:
        folder: results of the run, such as `results/small`.
        out: folder or .zip.
        networks: put the trained networks in, too.

    Raises:
        OODError: ``out`` exists, or as :func:`finished`.
    """
    if out.exists():
        raise OODError(f"--to: {out} exists already; remove it, or give another name")
    run, files = finished(folder)
    top = Path(paths.root(run.plan))
    if networks:
        files += [folder / Path(name).relative_to(top) for name in run.inputs if Path(name).is_relative_to(top)]
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.partial.d")
    try:
        about = unfinished / "about"
        about.mkdir(parents=True)
        (about / CONFIG).write_text(yaml.safe_dump(run.config, sort_keys=False), encoding="utf-8")
        (about / README).write_text(_read_me(run), encoding="utf-8")
        crate = _described(run, about, {path: top / path.relative_to(folder) for path in files})
        if out.suffix == ".zip":
            with atomic(out) as partial:
                crate.write_zip(partial)
        else:
            crate.write(unfinished / "crate")
            put_in_place(unfinished / "crate", out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(crate.data_entities)


def _described(run: Published, written: Path, files: dict[Path, Path]) -> ROCrate:
    """The crate: every file with its place in it, and what it is.

    Args:
        written: folder of the configuration and the text that were written for it.
        files: of the run -> place in the crate.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    about, git = project["project"], next(iter(run.manifests.values()))["git"]
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(TERMS)
    crate.name = run.plan.config.title or f"Results of {run.plan.config.variant}"
    crate.description = " ".join((run.plan.config.about or about["description"]).split())
    licence = _context(crate, f"https://spdx.org/licenses/{about['license']}", "CreativeWork", name=about["license"])
    [author] = about["authors"]
    authors = _context(crate, "#authors", "Organization", name=author["name"])
    workflow = crate.add_workflow(
        ROOT / "Snakefile", "code/Snakefile", main=True, lang="snakemake",
        lang_version=next(iter(run.manifests.values()))["packages"]["snakemake"],
        properties={**_facts(ROOT / "Snakefile"), "name": about["description"], "version": _version(about, git),
                    "conformsTo": {"@id": BIOSCHEMAS}})
    crate.root_dataset["conformsTo"] = [
        _context(crate, id, ["CreativeWork", "Profile"], name=name, version=version)
        for id, (name, version) in PROFILES.items()]
    for entity in (crate.root_dataset, workflow):
        entity["license"], entity["author"], entity["publisher"] = licence, authors, authors
    for path in _shipped(project):
        if path != ROOT / "Snakefile":
            crate.add_file(path, f"code/{path.relative_to(ROOT).as_posix()}", properties=_facts(path))
    crate.add_file(written / README, README, properties={**_facts(written / README), "about": crate.root_dataset})
    config = crate.add_file(written / CONFIG, CONFIG, properties=_facts(written / CONFIG))
    used = [config,
            *(_input(crate, run, name, content) for name, content in run.inputs.items()
              if not name.startswith("results/"))]
    made = [crate.add_file(path, place.as_posix(), properties=_facts(path)) for path, place in files.items()]
    crate.root_dataset["citation"] = [_cited(crate, paper.cite) for paper in run.plan.config.papers
                                      if paper.cite and paper.name in run.plan.papers]
    crate.root_dataset["mentions"] = crate.add_action(
        workflow, "#run", object=used, result=made,
        properties={"agent": authors, "name": f"Run of {', '.join(run.plan.papers)}", "description": _machine(run)})
    return crate


def _context(crate: ROCrate, id: str, kind: str | list[str], **properties: Any) -> Entity:
    """What is no file of the crate."""
    return crate.add(ContextEntity(crate, id, properties={"@type": kind, **properties}))


def _facts(path: Path) -> dict[str, Any]:
    """What is said of every file."""
    kind = KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
    return {"sha256": sha256(path), "contentSize": str(path.stat().st_size), "encodingFormat": kind}


def _version(about: dict[str, Any], git: dict[str, Any]) -> str:
    """`0.1.0+git.3c131781ad19`; `.modified` where files were not committed."""
    revision = f"+git.{git['revision'][:12]}" if git.get("revision") else ""
    return f"{about['version']}{revision}{'.modified' if revision and git.get('modified') else ''}"


def _shipped(project: dict[str, Any]) -> Iterator[Path]:
    """What an installed package holds."""
    for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["ships"]:
        if (ROOT / name).is_file():
            yield ROOT / name
        yield from sorted(path for path in (ROOT / name).rglob("*") if path.is_file() and path.suffix != ".pyc")


def _input(crate: ROCrate, run: Published, name: str, content: str) -> Entity:
    """A raw file, which is no part of the crate: where it comes from where that is known, and its hash."""
    source = run.plan.sources.get(PurePosixPath(name).name)
    urls = [url for url in source.urls if url.startswith("http")] if source else []
    hashed = {"sha256": content} if len(content) == 64 else {"version": content}
    identity = urls[0] if urls else f"#input-{name.replace(' ', '-').replace(':', '')}"
    licence = {"usageInfo": source.licence} if source and source.licence else {}
    return _context(crate, identity, "CreativeWork", name=name, **hashed, **licence)


def _cited(crate: ROCrate, abbreviation: str) -> Entity:
    work = citation.works()[abbreviation]
    address = f"https://arxiv.org/abs/{work.arxiv}" if work.arxiv else work.code
    return _context(crate, address, "ScholarlyArticle", name=work.title, description=work.short)


def _read_me(run: Published) -> str:
    """What a person reads first."""
    variant = run.plan.config.variant
    return f"""# {run.plan.config.title or variant}

A finished run of {', '.join(run.plan.papers)}. `results/{variant}/report.html` opens from disk. `config.yaml` is its
configuration, `code/` the workflow; what each file is, with its sha256, and which raw files were used:
`{METADATA}`. In a checkout of the workflow,

    uv run python -m workflow_scripts.reproduce CRATE

compares all files with their hashes, runs again and says which numbers differ.
"""


def _machine(run: Published) -> str:
    """What computed it, in a sentence."""
    first = next(iter(run.manifests.values()))
    machine, packages = first["hardware"], first["packages"]
    gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    return (f"Seeds {', '.join(map(str, first['seeds']))}; {machine['cpu']}, {machine['cores']} cores{gpus}; Python "
            f"{packages['python']}, torch {packages['torch']}, snakemake {packages['snakemake']}.")


def is_crate(path: Path) -> bool:
    """Whether a path is meant as a crate: a folder or a .zip."""
    return path.is_dir() or path.suffix == ".zip"


def checked(path: Path) -> tuple[list[Path], int]:
    """The manifests of a crate whose files are all as it says, and how many those are; a .zip is unpacked for as long
    as the process runs.

    Raises:
        OODError: it is none; a file is missing or has another hash.
    """
    try:
        crate = ROCrate(path)
    except Exception as error:  # of zipfile, json and what a file holds otherwise than the library expects
        raise OODError(f"{path}: no RO-Crate ({' '.join(str(error).split())}); expected a folder or .zip with "
                       f"{METADATA}, as workflow_scripts.crate writes it") from None
    top = Path(crate.source).resolve()
    hashed = {top / entity.id: entity.get("sha256") for entity in crate.data_entities if entity.get("sha256")}
    for file, expected in hashed.items():
        if not file.is_file() or not file.resolve().is_relative_to(top):
            raise OODError(f"{path}: {file.relative_to(top)} is missing; fetch the crate again")
        if (found := sha256(file)) != expected:
            raise OODError(f"{path}: {file.relative_to(top)} is another file (sha256 {expected[:12]}... expected, "
                           f"found {found[:12]}...); fetch the crate again")
    manifests = sorted(file for file in hashed if file.name.endswith(SUFFIX) and file.parent.name == "tables")
    if not manifests:
        raise OODError(f"{path}: an RO-Crate without tables/PAPER{SUFFIX}; expected one that workflow_scripts.crate "
                       "wrote")
    return manifests, len(hashed)
