"""The model card and the data card of an exported bundle, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import h5py
import yaml

from workflow_scripts.data import tally
from workflow_scripts.reporting.layout import Cell, Column, table
from workflow_scripts.reporting.printing import markdown
from workflow_scripts.reporting.results import read_metrics

SHOWN = {"auroc": "AUROC", "fpr95": "FPR95 (ID+)"}


class Described(Protocol):
    """What a data card says of a set: a row of the table of datasets."""

    @property
    def label(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def url(self) -> str | list[str]: ...
    @property
    def geometry(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def citation(self) -> str: ...


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def measured(metrics: Path, groups: Mapping[str, str], names: Mapping[str, str]) -> str:
    """The table of a metrics file: each score on each OOD set. ``groups``: OOD set -> its group."""
    rows = read_metrics(metrics)
    values = rows.pivot(index=["score", "dataset"], columns="metric", values="value")
    sizes = rows[rows["metric"] == "auroc"].set_index(["score", "dataset"])
    heads = [(score, name) for score in rows["score"].unique() for name in groups if (score, name) in sizes.index]
    columns: dict[Column, list[Cell | str]] = {
        Column("score", numbers=False): [names.get(score, score) for score, _ in heads],
        Column("OOD set", numbers=False): [names.get(name, name) for _, name in heads],
        Column("group", numbers=False): [groups[name] for _, name in heads]}
    columns |= {Column(title): [percent(values.loc[head, key]) for head in heads] for key, title in SHOWN.items()}
    columns |= {Column(title): [str(sizes.loc[head, key]) for head in heads]
                for key, title in {"n_id": "ID images", "n_ood": "OOD images"}.items()}
    return markdown(table("", "", columns)).rstrip()


def accuracy(metrics: Path) -> str:
    """The ID accuracy with its number of images."""
    rows = read_metrics(metrics)
    found = rows[rows["metric"] == "accuracy"]
    return f"{percent(found['value'].iloc[0])} % of {found['n_id'].iloc[0]} ID test images" if len(found) else (
        "not measured")


def model_card(facts: Mapping[str, Any], entry: Mapping[str, Any], metrics: Path, groups: Mapping[str, str],
               names: Mapping[str, str]) -> str:
    """What the network is, what was measured, how to import it.

    Args:
        facts: the manifest's content.
        entry: content of ``entry.yaml``.
        groups: OOD set -> its group.
    """
    id, network, _ = facts["network"].split("/")
    recipe, trained = facts["config"]["recipe"], facts["config"]["recipe"]["method"]
    origin = f"trained here by `{trained}`, {facts['epochs']} epochs" if trained else "weights from a file"
    released = f", with the defects {', '.join(facts['released'])}" if facts.get("released") else ""
    return "\n".join([
        f"# {recipe['label']}: {network} on {names.get(id, id)}", "",
        f"- Network: `{facts['network']}`, seed {facts['seed']}; {origin}{released}.",
        f"- Classes ({len(facts['classes'])}), in the order of the outputs: {', '.join(facts['classes'])}.",
        f"- Input: images as `DATA.md` says, normalised by `{json.dumps(entry['recipes'][0]['normalise'])}`.",
        f"- Accuracy: {accuracy(metrics)}.",
        f"- Licence of the weights: {facts['licence']}. The images have terms of their own (`DATA.md`).",
        f"- Papers: {'; '.join(facts['papers']) or 'none is named'}. Whom to cite: `CITATION.cff`, `DATA.md`.",
        f"- Made with {', '.join(f'{name} {version}' for name, version in facts['packages'].items())}.", "",
        "## Measured", "",
        "In percent, one seed. Higher scores mean in-distribution (ID). AUROC: ties count half. FPR95 (ID+): share of "
        "OOD images accepted where 95 % of ID images are; ID is positive.", "",
        measured(metrics, groups, names), "",
        "## Import", "",
        "A configuration beside this folder, unpacked as `bundle`, takes it in with the first line; the others go into "
        "one of its `experiments`. Code below `code/` is run: read it first.", "",
        "```yaml", "include: [./bundle/entry.yaml]", "",
        yaml.safe_dump({"networks": [n["name"] for n in entry["networks"]],
                        "recipes": [r["name"] for r in entry["recipes"]]}, default_flow_style=None).rstrip(), "```", "",
        "The files of `scores/` can stand in a table without any image, as entries under `imported`: `files: "
        "./bundle/scores/msp.npz`, `higher_is: id`. `python -m workflow_scripts.export --check bundle` compares each "
        "file with `manifest.json`.", ""])


def data_card(rows: Mapping[str, Described], stores: Mapping[tuple[str, str], Path], groups: Mapping[str, str],
              id: str) -> str:
    """The sets: what they are, how many images, their terms, their raw files."""
    lines = ["# Data", "", "The images are not part of the bundle; `lists/` names those that were used.", ""]
    for name, row in rows.items():
        role = "in-distribution" if name == id else f"OOD ({groups.get(name, 'ID-like')})"
        lines += [f"## {row.label or name} (`{name}`): {role}", ""]
        lines += [f"{' '.join(row.about.split())}", ""] if row.about else []
        for (dataset, split), path in stores.items():
            if dataset == name:
                with h5py.File(path) as file:
                    count, sources = len(file["labels"]), json.loads(file.attrs["sources"])
                    left_out, remarks = (json.loads(file.attrs.get(key, "[]")) for key in ("left_out", "remarks"))
                lines.append(f"- {split}: {count} images, `lists/{name}.{split}.txt`")
                lines += [f"  - from {source}: {checksum}" for source, checksum in sorted(sources.items())]
                lines += [f"  - left out: {tally.line(record)}" for record in left_out]
                lines += [f"  - {tally.line(record)}" for record in remarks]
        urls = [row.url] if isinstance(row.url, str) else row.url
        lines += [f"- geometry: {row.geometry}", f"- licence: {row.licence or 'not stated'}",
                  f"- citation: {row.citation or 'not stated'}", *(f"- {url}" for url in urls if url), ""]
    return "\n".join(lines)
