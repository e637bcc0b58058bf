"""Jobs that fetch, pack and prepare datasets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workflow_scripts.core.digest import digest
from workflow_scripts.stages.sections.fetch_archive import FetchArchive
from workflow_scripts.stages.sections.pack_dataset import PackDataset
from workflow_scripts.stages.sections.prepare_dataset import PrepareDataset
from workflow_scripts.wiring.files import Files, Wildcards
from workflow_scripts.wiring.sections import dumps


class Data(Files):
    """Archives, LMDBs and stores."""

    def stores(self) -> list[str]:
        return [self.store(dataset, split) for dataset, split in self.plan.used_datasets()]

    def lmdbs(self, sets: list[tuple[str, str]] | None = None) -> list[str]:
        """Packed archives that these (dataset, split), or all of the configuration, are read from, each once."""
        sets = self.plan.used_datasets() if sets is None else sets
        named = ((self.plan.packed(dataset, split), split) for dataset, split in sets)
        return list(dict.fromkeys(f"{self.plan.config.resources}/lmdb/{name}.{split}.lmdb" for name, split in named
                                  if name))

    def decoded_from(self, sets: list[tuple[str, str]] | None = None) -> list[str]:
        """Packed archives whose images these (dataset, split), or all of the configuration, decode when they are read:
        whoever reads such a store reads the archive."""
        sets = self.plan.used_datasets() if sets is None else sets
        return self.lmdbs([pair for pair in sets if self.plan.datasets[pair[0]].pixels == "decoded"])

    def prepared_from(self, wildcards: Wildcards) -> list[str]:
        """The packed archive of a store, or its downloaded raw files."""
        return self.lmdbs([(wildcards.dataset, wildcards.split)]) or self.archives(wildcards)

    def raw_splits(self, jobs: Iterable[tuple[str, Wildcards]]) -> list[tuple[str, str]]:
        """(dataset, split) whose raw files these (rule, wildcards) read."""
        return [(wildcards.dataset, wildcards.split) for rule, wildcards in jobs if rule == "pack_dataset" or (
            rule == "prepare_dataset" and not self.plan.packed(wildcards.dataset, wildcards.split))]

    def archives(self, wildcards: Wildcards) -> list[str]:
        """Downloaded raw files of a split."""
        names = self.plan.archives(wildcards.dataset, wildcards.split)
        return [f"{self.plan.config.resources}/archives/{name}" for name in names]

    def source_identity(self, wildcards: Wildcards) -> str:
        return dumps(self.plan.sources[wildcards.archive].identity())

    def source_row(self, wildcards: Wildcards) -> str:
        return FetchArchive.taken_from(self.plan.sources[wildcards.archive]).dump()

    def fetch_options(self) -> str:
        """The lock file, and whether to download at all."""
        offline = " --offline" if self.plan.config.offline else ""
        return f"--lock {self.plan.config.resources}/checksums.json{offline}"

    def _section(self, wildcards: Wildcards) -> dict[str, Any]:
        section = self.plan.datasets[wildcards.dataset].section(wildcards.split, self.plan.data_root)
        fetched = self.plan.archives(wildcards.dataset, wildcards.split)
        return {**section, "raw": [self.plan.sources[name].identity() for name in fetched] or section["raw"]}

    def prepare_section(self, wildcards: Wildcards) -> str:
        return PrepareDataset.of(**self._section(wildcards), limit=self.plan.config.limit.images).dump()

    def pack_section(self, wildcards: Wildcards) -> str:
        """An archive is whole: no limit, sample or geometry is part of it."""
        section = self._section(wildcards)
        return PackDataset.of(dataset=section["dataset"], split=section["split"], options=section["options"],
                              raw=section["raw"], only=section.get("only")).dump()

    def prepare_code(self, wildcards: Wildcards) -> dict[str, str]:
        return digest("stages.prepare_dataset", f"data.readers.{self.plan.datasets[wildcards.dataset].reader}")
