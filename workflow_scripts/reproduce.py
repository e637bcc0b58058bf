"""From a published manifest or crate to its numbers: says what is not as it was, runs, and says which numbers differ.

    uv run python -m workflow_scripts.reproduce results/small/tables/posthoc.manifest.json
    uv run python -m workflow_scripts.reproduce posthoc.manifest.json --check    only say what is not as it was
    uv run python -m workflow_scripts.reproduce goe.manifest.json --into /scratch/goe -- --jobs 8
    uv run python -m workflow_scripts.reproduce small.crate.zip                  all papers of a crate

The manifest holds the configuration; its table (`posthoc.csv` beside it, or --table) holds the numbers. A crate, as
`workflow_scripts.crate` writes it, holds both for several papers; its files are compared with their hashes first. Code,
packages and raw data are compared with what is here; nothing is checked out or installed. The run goes to a folder of
its own (reproduced/PAPER, of a crate reproduced/VARIANT); words behind `--` are snakemake's. Raw data are found below
OOD_DATA, downloads in ./resources.

Exit status: 0 no number differs by more than seed noise (with --exact: at all); 1 it cannot be run; 2 a number does.
With --check: 0 all is as it was; 2 something is not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.compare import compare
from workflow_scripts.core import sources
from workflow_scripts.core.commands import described
from workflow_scripts.core.digest import ROOT, digest
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import sha256
from workflow_scripts.core.provenance import git_revision, hardware, packages
from workflow_scripts.publishing.crate import checked, is_crate
from workflow_scripts.publishing.manifests import SUFFIX, published
from workflow_scripts.work.plan import Plan


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("manifest", type=Path, metavar="MANIFEST|CRATE",
                       help="PAPER.manifest.json of a finished run, or the crate of one (a folder or .zip)")
    words.add_argument("--table", type=Path, help="a manifest's numbers; default: PAPER.csv beside it")
    words.add_argument("--into", type=Path, help="folder of the run (default: reproduced/PAPER or VARIANT)")
    words.add_argument("--check", action="store_true", help="only say what is not as it was")
    words.add_argument("--exact", action="store_true", help="any difference of a number counts")
    words.add_argument("--cores", default="all", help="for snakemake (default: %(default)s)")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point; leaves with the exit status above."""
    given = sys.argv[1:] if argv is None else argv
    own, more = (given[:given.index("--")], given[given.index("--") + 1:]) if "--" in given else (given, [])
    args = parser().parse_args(own)
    run = published(checked(args.manifest)[0] if is_crate(args.manifest) else [args.manifest])
    tables = {path: path.with_name(path.name.replace(SUFFIX, ".csv")) for path in run.manifests}
    if args.table:
        if len(tables) > 1 or not args.table.is_file():
            raise OODError(f"--table: there is no file {args.table}" if len(tables) == 1 else
                           f"--table: of one manifest, and {args.manifest} holds {len(tables)}, with their tables")
        tables = dict.fromkeys(tables, args.table)
    found = list(dict.fromkeys(line for one in run.manifests.values() for line in differences(one, run.plan)))
    seeds = sorted({seed for manifest in run.manifests.values() for seed in manifest["seeds"]})
    print(f"{args.manifest}: {', '.join(run.plan.papers)}, variant {run.plan.config.variant}, seeds "
          f"{', '.join(map(str, seeds))}")
    print("\n".join(["Not as it was:", *(f"  {line}" for line in found)] if found else
                    ["Code, packages and the raw data that are here: all as it was."]), flush=True)
    if args.check:
        sys.exit(2 if found else 0)
    into = (args.into or Path("reproduced") / run.name).resolve()
    prepare(into, run.config)
    print(f"runs in {into}", flush=True)
    done = subprocess.run([sys.executable, "-m", "snakemake", "--cores", args.cores, "--snakefile",
                           str(ROOT / "Snakefile"), "--directory", str(into), *more, "--configfile",
                           str(into / "config.yaml")], check=False)
    if done.returncode:
        raise OODError("the run failed; what snakemake says stands above, and the same command goes on")
    ours = into / "results" / run.plan.config.variant
    if missing := [table for table in tables.values() if not table.is_file()]:
        print(f"There is no table {missing[0]} to compare with (--table names one). The new numbers: {ours / 'tables'}")
        return
    before = into / "published" / "tables"
    before.mkdir(parents=True, exist_ok=True)
    for (path, table), paper in zip(tables.items(), run.plan.papers, strict=True):
        shutil.copyfile(table, before / f"{paper}.csv")
        shutil.copyfile(path, before / f"{paper}{SUFFIX}")
    text, status = compare(before.parent, ours, 20, args.exact)
    again = published([ours / "tables" / f"{paper}{SUFFIX}" for paper in run.plan.papers])
    print("\n".join(["", text, *inputs(run.inputs, again.inputs)]))
    sys.exit(status)


def differences(manifest: dict[str, Any], plan: Plan) -> Iterator[str]:
    """What is here otherwise than where the manifest was written; a line each."""
    here = git_revision()
    if here != manifest["git"]:
        yield f"git: {_revision(manifest['git'])} -> {_revision(here)}"
    changed: dict[str, list[str]] = {}
    for name, before in manifest["code"].items():
        try:
            now = digest(name)
        except ValueError:
            yield f"code: {name} is not a module of this version"
            continue
        for file in sorted(before.keys() | now.keys()):
            if before.get(file) != now.get(file) and "/" in file:
                changed.setdefault(file, []).append(name)
    yield from (f"code: {file}, used by {', '.join(stages)}" for file, stages in changed.items())
    now = packages()
    yield from (f"package {name}: {manifest['packages'].get(name, 'none')} -> {now.get(name, 'none')}"
                for name in sorted(manifest["packages"].keys() | now.keys())
                if manifest["packages"].get(name) != now.get(name))
    machine = hardware()
    yield from (f"{key}: {manifest['hardware'].get(key)} -> {machine.get(key)}" for key in ("cpu", "gpus", "system")
                if manifest["hardware"].get(key) != machine.get(key))
    yield from _data(manifest["inputs"], plan)


def _data(inputs: list[dict[str, str]], plan: Plan) -> Iterator[str]:
    """Raw files: another content, or not here; what a package brings is told by its version."""
    for entry in inputs:
        name, expected = entry["path"], entry["sha256"]
        if len(expected) != 64 or ": " in name or name.endswith(".pt") and name.startswith("results/"):
            continue
        found = sources.locate((name, f"{Path(plan.config.resources).absolute()}/archives/{Path(name).name}"),
                               plan.data_root)
        if not found:
            if Path(name).name not in plan.sources or plan.sources[Path(name).name].by_hand:
                yield f"raw file {name}: not here"
        elif found[0].is_file() and sha256(found[0]) != expected:
            yield f"raw file {name}: sha256 {expected[:12]}... expected, {found[0]} is another"


def inputs(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What two runs say of raw data and networks (name -> sha256): whether they are the same, bit by bit."""
    lines = []
    for what, trained in (("raw files", False), ("networks", True)):
        names = [name for name in before.keys() | after.keys() if name.endswith(".pt") == trained]
        other = sorted(name for name in names if before.get(name) != after.get(name))
        lines += [f"{len(names) - len(other)} of {len(names)} {what} are the same, bit by bit."] if names else []
        lines += [f"  another one: {name}" for name in other[:5]]
    return lines


def _revision(git: dict[str, Any]) -> str:
    return f"{git.get('revision') or 'no checkout'}{' with changes' if git.get('modified') else ''}"


def prepare(into: Path, config: dict[str, Any]) -> None:
    """The folder of the run: its configuration, and the downloads of this folder.

    Raises:
        OODError: the folder holds another run.
    """
    text, target = yaml.safe_dump(config, sort_keys=False), into / "config.yaml"
    if target.is_file() and target.read_text(encoding="utf-8") != text or (into / "Snakefile").exists():
        raise OODError(f"--into: {into} holds something else; name a new folder, or delete that one")
    into.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    here = Path("resources").absolute()
    here.mkdir(exist_ok=True)
    if not (into / "resources").exists():
        os.symlink(here, into / "resources", target_is_directory=True)


if __name__ == "__main__":
    main()
