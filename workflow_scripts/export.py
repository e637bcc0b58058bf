"""A trained network as one bundle that another lab can import: weights, scores, lists, cards, and what it came from.

    uv run python -m workflow_scripts.export digits/resnet-small/pretrain/seed0 --out pretrain.zip
    uv run python -m workflow_scripts.export digits/my-net/mine/seed0 --configfile /my/folder/mine.yaml --out bundle
    uv run python -m workflow_scripts.export --check pretrain.zip

`--out` is a folder, or a .zip. It holds `weights.safetensors`, `scores/` (an .npz each, an array for each set),
`metrics.csv`, `lists/` (which images), `MODEL.md`, `DATA.md`, `CITATION.cff`, a user's own code below `code/`,
`entry.yaml` (what another configuration includes to import it) and `manifest.json` with the sha256 of each file.
Nothing is pickled. The images themselves are not part of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import yaml

from workflow_scripts.config.catalogue import Dataset
from workflow_scripts.core import own
from workflow_scripts.core.commands import described
from workflow_scripts.core.digest import ROOT, digest, own_code
from workflow_scripts.core.errors import OODError, stage, unknown
from workflow_scripts.core.files import atomic, put_in_place, sha256
from workflow_scripts.core.provenance import git_revision, packages
from workflow_scripts.planning import setting
from workflow_scripts.publish_list import publish
from workflow_scripts.reporting.bundle_cards import data_card, model_card
from workflow_scripts.wiring import paths, sections
from workflow_scripts.work.plan import Plan, Trained

FORMAT = 1
MANIFEST, ENTRY, WEIGHTS = "manifest.json", "entry.yaml", "weights.safetensors"


def chosen(plan: Plan, text: str) -> Trained:
    """The network that ``ID/NETWORK/RECIPE/seedN`` names. Raises OODError when no experiment has it."""
    named = {f"{id}/{network}/{recipe}/seed{seed}": run for (id, network, recipe, seed), run in plan.runs.items()}
    if text not in named:
        raise unknown("network", text, named)
    if "dfb.2h-1" in named[text].released:
        raise OODError(f"{text}: as released (dfb.2h-1) its head is random at evaluation, which weights alone do not "
                       "say; export the corrected network")
    return named[text]


def weights(path: Path, out: Path, prefix: str) -> dict[str, Any]:
    """Write a checkpoint's tensors as safetensors; -> what the checkpoint says about itself.

    Raises:
        OODError: it is not there, or cannot be read.
    """
    from safetensors.torch import save_file

    from workflow_scripts.networks import checkpoint

    content = checkpoint.read(path)
    save_file({name.removeprefix(prefix): tensor.clone().contiguous() for name, tensor in
               content["state_dict"].items()}, out)
    return content["about"]


def code(given: own.Code, folder: Path) -> None:
    """Copy a user's module, and what it imports of its folder."""
    for name in own_code(given)[0]:
        inner = name.removeprefix("own/")
        (folder / inner).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(given.folder) / inner, folder / inner)


def entry(plan: Plan, run: Trained, about: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What another configuration includes: network, recipe, and the user's own scores; their code is copied."""
    network = sections.network(run.network)
    if run.network.model == "own":
        given, function = own.factory(network["options"]["factory"], network["options"]["folder"], "network")
        network["options"]["classes"] = list(about["classes"])
        if given.folder:
            code(given, folder / "code" / "network")
            network["options"] |= {"factory": f"{given.module}:{function}", "folder": "./code/network"}
    if own.is_file(run.recipe.method):
        code(own.script(run.recipe.method), folder / "code" / "method")
    scores = []
    for score in run.scores.values():
        if own.is_file(score.module):
            given = own.script(score.module)
            code(given, folder / "code" / score.name)
            scores.append({"name": score.name, "label": score.label, "options": score.options,
                           "score": f"./code/{score.name}/{given.module}.py"})
    recipe = {"name": recipe_name(run), "label": run.recipe.label, "normalise": sections.evaluated(run),
              "checkpoint": {"file": f"./{WEIGHTS}", "sha256": sha256(folder / WEIGHTS),
                             **({"background": True} if about.get("background") else {})}}
    return {"networks": [{**network, "name": f"{run.network.name}-bundle"}], "recipes": [recipe],
            **({"scores": scores} if scores else {})}


def recipe_name(run: Trained) -> str:
    return f"{run.path_name.replace('+', '-')}-seed{run.seed}"


def scores(source: Path, out: Path) -> None:
    """One score of all test sets as an .npz, an array float64 (N,) for each set, higher = more ID."""
    with h5py.File(source) as file:
        arrays = {name.removesuffix(".test"): file[name][()] for name in sorted(file) if name.endswith(".test")}
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **arrays)


def write(plan: Plan, run: Trained, folder: Path, licence: str, place: Path) -> None:
    """Fill ``folder``; paths below ``place``, the configuration's folder, are written without it.

    Raises:
        OODError: a result that has not been made yet, the file named.
    """
    sets = [pair for pair in plan.sets(run.id) if pair[1] == "test"]
    made = {name: Path(paths.of_network(plan, "scores", run, f"/{name}.h5")) for name in run.scores}
    stores = {pair: Path(paths.store(plan, *pair)) for pair in plan.sets(run.id)}
    checkpoint = Path(paths.of_network(plan, "models", run, ".pt"))
    metrics = Path(paths.of_network(plan, "metrics", run, ".csv"))
    for path in (checkpoint, metrics, *made.values(), *stores.values()):
        if not path.is_file():
            raise OODError(f"{path} is not there; run the workflow first: snakemake --cores all {metrics} (with the "
                           "same --configfile)")
    (folder / "lists").mkdir(parents=True)
    about = weights(checkpoint, folder / WEIGHTS, "net." if run.network.model == "own" else "")
    for name, path in made.items():
        scores(path, folder / "scores" / f"{name}.npz")
    shutil.copyfile(metrics, folder / "metrics.csv")
    shutil.copyfile(ROOT / "CITATION.cff", folder / "CITATION.cff")
    for (dataset, split), path in stores.items():
        publish(path, folder / "lists" / f"{dataset}.{split}.txt")
    written = entry(plan, run, about, folder)
    (folder / ENTRY).write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    papers = [plan.about(e.paper) for e in plan.config.experiments if run in plan.runs_of(e)]
    references = sorted({p.published for p in papers if p and p.published})
    rows: dict[str, Dataset] = {name: plan.datasets[name] for name, _ in stores}
    facts = {
        "format": FORMAT, "network": "/".join(map(str, run.key[:3])), "seed": run.seed, "licence": licence,
        "papers": references, "classes": about["classes"], "epochs": len(about.get("history", [])) or None,
        "config": {"network": sections.network(run.network), "recipe": run.recipe.model_dump(mode="json"),
                   "released": list(run.released), "seed": run.seed,
                   "scores": [s.model_dump(mode="json") for s in run.scores.values()],
                   "sets": {f"{d}.{s}": plan.datasets[d].section(s, plan.data_root, plan.fingerprints)
                            for d, s in stores}},
        "packages": packages(), "git": git_revision(),
        "code": {stage: digest(stage) for stage in (
            "stages.prepare_dataset", "stages.extract_features", "stages.score_sets", "stages.compute_metrics")},
    }
    groups = plan.ood[run.id]
    (folder / "MODEL.md").write_text(model_card(facts, written, metrics, groups, plan.names), encoding="utf-8")
    (folder / "DATA.md").write_text(data_card(rows, stores, groups, run.id), encoding="utf-8")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for path in files:
        if path.suffix in (".md", ".txt"):
            path.write_text(path.read_text(encoding="utf-8").replace(f"{place}/", "./"), encoding="utf-8")
    facts["files"] = {p.relative_to(folder).as_posix(): sha256(p) for p in files}
    facts["test_sets"] = [dataset for dataset, _ in sets]
    text = json.dumps(facts, indent=1, sort_keys=True).replace(f"{place}/", "./").replace(f'"{place}"', '"./"')
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def export(plan: Plan, run: Trained, out: Path, licence: str, place: Path) -> None:
    """Write the bundle, whole or not at all.

    Raises:
        OODError: something of that name exists, or as :func:`write`.
    """
    if out.exists():
        raise OODError(f"--out: {out} exists already; remove it, or give another name")
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.partial.d")
    try:
        write(plan, run, unfinished, licence, place)
        if out.suffix != ".zip":
            put_in_place(unfinished, out)
            return
        with atomic(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(p for p in unfinished.rglob("*") if p.is_file()):
                info = zipfile.ZipInfo(f"{out.stem}/{path.relative_to(unfinished).as_posix()}")  # of a fixed date
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(info, path.read_bytes())
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check(bundle: Path) -> int:
    """Compare each file of a bundle with its sha256; -> how many there are.

    Raises:
        OODError: no bundle, or files that are missing, others, or more.
    """
    contents: dict[str, bytes] = {}
    try:
        if bundle.is_dir():
            contents = {p.relative_to(bundle).as_posix(): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
        else:
            with zipfile.ZipFile(bundle) as archive:
                contents = {PurePosixPath(*PurePosixPath(i.filename).parts[1:]).as_posix(): archive.read(i)
                            for i in archive.infolist() if not i.is_dir()}
        manifest = json.loads(contents.pop(MANIFEST))
        expected = manifest["files"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise OODError(f"{bundle}: no whole bundle ({type(error).__name__}: {error}); expected a folder or .zip with "
                       f"{MANIFEST}, as workflow_scripts.export writes it") from None
    if manifest.get("format") != FORMAT:
        raise OODError(f"{bundle}: a bundle of format {manifest.get('format')}, expected {FORMAT}; check it with the "
                       "version that wrote it")
    found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
             if "__pycache__" not in name}
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        what = "missing" if wrong[0] not in found else "not part of it" if wrong[0] not in expected else "another file"
        raise OODError(f"{bundle}: {len(wrong)} of {len(expected)} files are not as the manifest says, first "
                       f"{wrong[0]} ({what}); fetch the bundle again")
    return len(expected)


def parser() -> argparse.ArgumentParser:
    words = described(__spec__, __doc__)
    words.add_argument("network", nargs="?", help="ID set/network/recipe/seedN, as in the paths of results")
    setting.add_files(words)
    words.add_argument("--out", type=Path, help="folder or .zip to write")
    words.add_argument("--licence", default="not stated; ask whoever made the bundle", help="terms of the weights")
    words.add_argument("--check", type=Path, metavar="BUNDLE", help="compare a bundle with its manifest instead")
    return words


@stage
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = parser().parse_args(argv)
    if args.check:
        print(f"{args.check}: {check(args.check)} files, all as the manifest says")
        return
    if not args.network or not args.out:
        parser().error("give a network and --out, or --check BUNDLE")
    plan = setting.read(args.configfile)
    export(plan, chosen(plan, args.network), args.out, args.licence, setting.place(args.configfile))
    print(f"{args.out}: {args.network}; to import it, see MODEL.md in it")


if __name__ == "__main__":
    main()
