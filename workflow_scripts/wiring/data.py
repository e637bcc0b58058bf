"""Jobs that fetch, pack and prepare datasets: archives, LMDBs and stores."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from workflow_scripts.config import catalogue
from workflow_scripts.config.raw import Source
from workflow_scripts.core.digest import digest
from workflow_scripts.stages.sections.compare_sets import CompareSets
from workflow_scripts.stages.sections.fetch_archive import FetchArchive
from workflow_scripts.stages.sections.pack_dataset import PackDataset
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset
from workflow_scripts.wiring import agreement, paths
from workflow_scripts.wiring.paths import Wildcards
from workflow_scripts.wiring.sections import dumps
from workflow_scripts.work import together
from workflow_scripts.work.plan import Plan


def stores(plan: Plan) -> list[str]:
    """All stores of the configuration."""
    return [paths.store(plan, dataset, split) for dataset, split in plan.used_datasets()]


def lmdbs(plan: Plan, sets: list[tuple[str, str]] | None = None) -> list[str]:
    """Packed archives that these (dataset, split), or all of the configuration, are read from, each once."""
    sets = plan.used_datasets() if sets is None else sets
    named = ((plan.packed(dataset, split), split) for dataset, split in sets)
    return list(dict.fromkeys(paths.lmdb(plan, name, split) for name, split in named if name))


def decoded_from(plan: Plan, sets: list[tuple[str, str]] | None = None) -> list[str]:
    """Packed archives whose images these (dataset, split), or all of the configuration, decode when they are read:
    whoever reads such a store reads the archive."""
    sets = plan.used_datasets() if sets is None else sets
    return lmdbs(plan, [pair for pair in sets if plan.datasets[pair[0]].pixels == "decoded"])


def prepared_from(plan: Plan, wildcards: Wildcards) -> list[str]:
    """The packed archive of a store, or its downloaded raw files."""
    return lmdbs(plan, [(wildcards.dataset, wildcards.split)]) or archives(plan, wildcards)


def raw_splits(plan: Plan, jobs: Iterable[tuple[str, Wildcards]]) -> list[tuple[str, str]]:
    """(dataset, split) whose raw files these (rule, wildcards) read."""
    return [(wildcards.dataset, wildcards.split) for rule, wildcards in jobs if rule == "pack_dataset" or (
        rule == "prepare_dataset" and not plan.packed(wildcards.dataset, wildcards.split))]


def archives(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Downloaded raw files of a split."""
    return [paths.archive(plan, name) for name in plan.archives(wildcards.dataset, wildcards.split)]


def fetched_list(plan: Plan, wildcards: Wildcards) -> list[str]:
    """The list that chooses the images of a split, where it is fetched."""
    name = plan.image_list(wildcards.dataset, wildcards.split)
    return [paths.archive(plan, name)] if isinstance(name, str) else []


def list_option(plan: Plan, wildcards: Wildcards) -> str:
    """The list as an option of the command; what it must be is part of the section."""
    name = plan.image_list(wildcards.dataset, wildcards.split)
    file = paths.archive(plan, name) if isinstance(name, str) else name
    return f"--list {shlex.quote(str(file))}" if file else ""


def optional_weights(plan: Plan) -> list[str]:
    """Downloads of the weights that recipes can do without."""
    return [paths.archive(plan, name) for name in plan.optional_archives]


def source_identity(plan: Plan, wildcards: Wildcards) -> str:
    """What makes a download another file: its checksum and size."""
    return dumps(_source(plan, wildcards).identity())


def source_row(plan: Plan, wildcards: Wildcards) -> str:
    """Where a download comes from, and how it is checked."""
    row = FetchArchive.taken_from(_source(plan, wildcards))
    return row.model_copy(update={"datasets": catalogue.readers(plan.datasets, row.name)}).dump()


def _source(plan: Plan, wildcards: Wildcards) -> Source:
    """The row of a download: of the configuration, or of the published numbers."""
    return plan.sources.get(wildcards.archive) or agreement.raw_files()[wildcards.archive]


def fetch_options(plan: Plan) -> str:
    """The lock file, and whether to download at all."""
    offline = " --offline" if plan.config.offline else ""
    return f"--lock {shlex.quote(f'{plan.config.resources}/checksums.json')}{offline}"


def prepare_section(plan: Plan, wildcards: Wildcards) -> str:
    """How a store is made."""
    return PrepareDataset.of(**_section(plan, wildcards), limit=plan.config.limit.images).dump()


def prepare_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind a store."""
    return digest("stages.prepare_dataset", f"data.readers.{plan.datasets[wildcards.dataset].reader}")


def pack_section(plan: Plan, wildcards: Wildcards) -> str:
    """An archive is whole: no limit, sample or geometry is part of it."""
    section = _section(plan, wildcards)
    return PackDataset.of(dataset=section["dataset"], split=section["split"], options=section["options"],
                          raw=section["raw"], only=section.get("only")).dump()


def compared_stores(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Stores of the ID train images and of all that its networks are tested with."""
    return [paths.store(plan, dataset, split) for dataset, split, _ in _compared(plan, wildcards.id)]


def compare_section(plan: Plan, wildcards: Wildcards) -> str:
    """What the sets of an ID set are for, and how many train images scores need."""
    return CompareSets.of(
        sets=[{"name": f"{dataset}.{split}", "use": use} for dataset, split, use in _compared(plan, wildcards.id)],
        least=together.least(plan, wildcards.id)).dump(ordered=True)


def _compared(plan: Plan, id: str) -> list[tuple[str, str, str]]:
    """(dataset, split, use) of what networks are trained and tested with, and of what options are chosen with."""
    return [*((dataset, split, split if dataset == id else "ood") for dataset, split in plan.sets(id)),
            *((dataset, split, "validation") for dataset, split in plan.validation_sets(id))]


def comparisons(plan: Plan) -> list[str]:
    """What was compared for every ID set of the configuration."""
    return [paths.compared(plan, id) for id in dict.fromkeys(run.id for run in plan.wanted.values())]


def _section(plan: Plan, wildcards: Wildcards) -> dict[str, Any]:
    """What sections of a split are made of."""
    section = plan.datasets[wildcards.dataset].section(wildcards.split, plan.data_root, plan.fingerprints)
    fetched = plan.archives(wildcards.dataset, wildcards.split)
    return {**section, "raw": [plan.sources[name].identity() for name in fetched] or section["raw"]}
