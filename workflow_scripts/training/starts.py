"""The file of first epochs that trainings share: written by one job, read by all that go on from it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
from workflow_scripts.core.mistaken import other_file
from workflow_scripts.core.section import Section
from workflow_scripts.networks.architecture import Network
from workflow_scripts.training.job import Job, code

STAGE = "stages.train_start"


def write(path: str | Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a start, whole or not at all."""
    with atomic(path) as partial, open(partial, "wb") as file:
        torch.save({"identity": identity, "start": state}, file)


def identity(job: Job, section: Section, network: Network, method: str) -> dict[str, Any]:
    """What the start of a training has to be of.

    Args:
        job: the training that goes on from it.
        section: of the stage ``train_start``.
        method: by which it trains.
    """
    return {**job.identity, "configuration": section.dump(), "code": code(STAGE, network, method)}


def read(path: str | Path, expected: dict[str, Any]) -> dict[str, Any]:
    """The state to go on from, on the CPU.

    Raises:
        OODError: no such file, or it is none; one of another configuration, code, input, seed, device or number of
            threads, which it names.
    """
    again = "delete it and run again"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found, state = content["identity"], content["start"]
    except FileNotFoundError:
        raise OODError(f"{path}: the first epochs are not there; the stage train_start trains them") from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError):
        reason = other_file(path) or "it is damaged"
        raise OODError(f"{path}: no first epochs of a training ({reason}); {again}") from None
    changed = sorted(k for k in found.keys() | expected if found.get(k) != expected.get(k))
    if changed:
        raise OODError(f"{path}: first epochs of another training ({', '.join(changed)} changed); {again}")
    return state
