"""Inputs and parameters of the rules that compute published numbers again; beside every configuration."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from workflow_scripts.config import published_checks
from workflow_scripts.config.published_checks import PublishedCheck
from workflow_scripts.config.raw import Source
from workflow_scripts.core import sources
from workflow_scripts.core.digest import ROOT, digest
from workflow_scripts.stages.sections.check_published import CheckPublished
from workflow_scripts.stages.sections.make_truth_page import About, MakeTruthPage
from workflow_scripts.wiring import paths
from workflow_scripts.wiring.paths import Wildcards

if TYPE_CHECKING:
    from workflow_scripts.work.plan import Plan

FILE = ROOT / "config" / "published_checks.yaml"


def checks() -> dict[str, PublishedCheck]:
    """All of them by name, in the order of the page."""
    return _table()[0]


def raw_files() -> dict[str, Source]:
    """Their raw files by name."""
    return _table()[1]


def fetched(plan: Plan, wildcards: Wildcards) -> list[str]:
    """Downloads of a check: of each file that is not below the data root."""
    return list(_fetched(plan, wildcards).values())


def fetched_words(plan: Plan, wildcards: Wildcards) -> str:
    """The same as words of the command."""
    words = shlex.join(f"{role}={path}" for role, path in _fetched(plan, wildcards).items())
    return f"--fetched {words}" if words else ""


def check_section(plan: Plan, wildcards: Wildcards) -> str:
    """What a check computes from."""
    check = checks()[wildcards.check]
    downloads = _downloads(plan, check)
    raw = {role: raw_files()[downloads[role]].identity() if role in downloads else
           plan.fingerprints.of(sources.locate(file.find, plan.data_root), plan.data_root) or ""
           for role, file in check.files.items()}
    section = CheckPublished.of(check=check.name, files={role: file.find for role, file in check.files.items()},
                                left_out=check.left_out(), printed=check.printed, seed=check.seed, raw=raw)
    return section.dump(ordered=True)


def check_code(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    """Code behind a check."""
    return digest("stages.check_published", f"agreement.{wildcards.check}")


def page_section(plan: Plan) -> str:
    """What the page says of them."""
    whole = published_checks.read(FILE)
    return MakeTruthPage.of(checks={name: About.taken_from(check) for name, check in checks().items()},
                            unchecked=[part.model_dump() for part in whole.unchecked]).dump(ordered=True)


def _fetched(plan: Plan, wildcards: Wildcards) -> dict[str, str]:
    found = _downloads(plan, checks()[wildcards.check])
    return {role: paths.archive(plan, archive) for role, archive in found.items()}


def _downloads(plan: Plan, check: PublishedCheck) -> dict[str, str]:
    """Role -> raw file, of the files that are downloaded."""
    return check.downloads(role for role, file in check.files.items()
                           if not sources.locate(file.find, plan.data_root))


def _table() -> tuple[dict[str, PublishedCheck], dict[str, Source]]:
    return published_checks.load(FILE, ROOT / "config" / "sources.yaml")
