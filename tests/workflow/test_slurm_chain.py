"""Every kind of step from downloads to the page on a real Slurm: one job is killed, then one key is changed."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import yaml

from tests import checkout, lmdb_data
from tests.cluster.slurm import Cluster, obstacle
from tests.workflow.test_fetch_rule import archive
from tests.workflow.test_slurm import adapted, cluster, head, text, trainings, until  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.slurm, pytest.mark.slow,
              pytest.mark.skipif(obstacle() is not None, reason=f"no Slurm here: {obstacle()}")]
CONFIG = "tests/cluster/chain.yaml"
NETWORK = "cifar_small/bit-narrow"
LIMIT = 900


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A data root with what its owner brought by hand: a large set as a folder, SVHN, Places."""
    root = tmp_path_factory.mktemp("raw")
    lmdb_data.folder(root / "large", lmdb_data.MEMBERS)
    (root / "svhn").mkdir()
    rng = np.random.default_rng(0)
    images, digits = rng.integers(0, 256, (32, 32, 3, 60), dtype=np.uint8), np.arange(60, dtype=np.uint8)[:, None] % 10
    scipy.io.savemat(root / "svhn/test_32x32.mat", {"X": images, "y": digits + 1})
    (root / "places365").mkdir()
    with tarfile.open(root / "places365/test_256.tar", "w") as places:
        for name in sorted((root / "large").rglob("*.JPEG")):
            places.add(name, f"test_256/{name.parent.name}{name.stem}.jpg")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory, raw) -> Path:
    """A checkout whose CIFAR-10 is downloaded from an address of this machine."""
    folder = adapted(checkout.copy(tmp_path_factory.mktemp("chain")), CONFIG)
    (raw / "published.tar.gz").write_bytes(archive(40))
    sources = yaml.safe_load((folder / "config/sources.yaml").read_text())
    sources["cifar-10-binary.tar.gz"] = {"urls": [(raw / "published.tar.gz").as_uri()]}
    (folder / "config/sources.yaml").write_text(yaml.safe_dump(sources))
    return folder


def ran(folder: Path, log: str) -> dict[str, int]:
    """Rule -> number of jobs, of the table that snakemake prints first."""
    table = text(folder / log).split("Job stats:")[1].split("Select jobs")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def test_the_whole_chain(cluster: Cluster, folder: Path, raw: Path, monkeypatch):  # noqa: F811 (a fixture)
    monkeypatch.setenv("OOD_DATA", str(raw))
    log = folder / f"results/chain/logs/models/{NETWORK}/classifier/seed0.log"
    with head(cluster, folder) as process:
        until("an epoch", lambda: "epoch" in text(log), process)
        cluster.call("scancel", "--signal=KILL", "--full", trainings(cluster)[0]["id"])
        status = process.wait(LIMIT)
    assert status == 0, text(folder / "head.txt")[-4000:]
    states = [job["state"] for job in trainings(cluster)]
    assert states[0] != "COMPLETED" and states[1:] == ["COMPLETED", "COMPLETED"], states
    rules = ran(folder, "head.txt")
    assert rules.keys() >= {"fetch_archive", "pack_dataset", "prepare_dataset", "train_network", "make_masks",
                            "extract_features", "precompute_statistics", "score_sets", "compute_metrics",
                            "make_tables", "make_report"}, rules
    results = folder / "results/chain"
    assert (folder / "resources/lmdb/large.test.lmdb").exists()
    table = (results / "tables/chain.csv").read_text()
    assert all(name in table for name in ("svhn_subset", "large", "places_sample", "himplos", "dfb"))
    assert (results / "report.html").exists()
    again = checkout.snakemake(folder, "--cores", "1", "--configfile", CONFIG)
    assert "Nothing to be done" in again.stdout, again.stdout[-2000:]

    # one key: how long the fine-tuning is; the classifier, its pseudo-masks and every set stay
    kept = {path: path.stat().st_mtime_ns for path in [*results.glob("data/*.h5"), *results.glob("masks/**/*.h5"),
                                                       *results.glob(f"models/{NETWORK}/classifier/*.pt")]}
    assert len(kept) > 6
    raw_config = yaml.safe_load((folder / CONFIG).read_text())
    raw_config["recipes"][1]["training"]["epochs"] = 3
    (folder / CONFIG).write_text(yaml.safe_dump(raw_config, sort_keys=False))
    with head(cluster, folder, log="head2.txt") as process:
        status = process.wait(LIMIT)
    assert status == 0, text(folder / "head2.txt")[-4000:]
    rules = ran(folder, "head2.txt")
    assert rules["train_network"] == 1 and not rules.keys() & {"fetch_archive", "pack_dataset", "prepare_dataset",
                                                                "make_masks", "make_cards"}, rules
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
