"""The section of :mod:`workflow_scripts.stages.fetch_archive`."""

from __future__ import annotations

from workflow_scripts.core.section import Section


class FetchArchive(Section):
    """A raw file: where it comes from, and how it is known to be the right one."""

    name: str
    """The file's name."""
    urls: list[str] = []
    """Addresses in order of preference."""
    checksum: list[str] = []
    """Published checksums, `md5:...`, `sha256:...` or `git:...`, all of which must hold."""
    size: int | None = None
    """Bytes."""
    datasets: list[str] = []
    """Datasets that read it, for messages."""
    by_hand: bool = False
    """Never downloaded; the user brings it."""
    reason: str = ""
    """Why it must be brought by hand."""
    where: str = ""
    """Where the user gets it."""
    substitutes: list[str] = []
    """What may be used in its place."""
