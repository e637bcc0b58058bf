"""Downloads inside the workflow: from addresses to a store, against a local server."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import torch
import yaml

from tests.checkout import copy, snakemake, would_run
from tests.web_server import Server, good
from workflow_scripts.data.images.store import load_store
from workflow_scripts.models import resnet_cifar
from workflow_scripts.networks import checkpoint


def archive(count: int) -> bytes:
    """CIFAR-10's official binary archive with few records."""
    rng = np.random.default_rng(0)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("data_batch_1.bin", "test_batch.bin"):
            records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
            records[:, 0] = np.arange(count) % 10
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = records.size
            tar.addfile(member, io.BytesIO(records.tobytes()))
    return packed.getvalue()


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose CIFAR-10 comes from a local server, with a configuration that needs little else."""
    folder = copy(tmp_path)
    server = Server()
    sources = yaml.safe_load((folder / "config" / "sources.yaml").read_text())
    sources["cifar-10-binary.tar.gz"] = {
        "urls": [server.url("/nothing-here.tar.gz", lambda handler: handler.answer(404, b"")),
                 server.url("/cifar.tar.gz", good(archive(40)))]}
    (folder / "config" / "sources.yaml").write_text(yaml.safe_dump(sources))
    rows = yaml.safe_load((folder / "config" / "datasets.yaml").read_text())
    rows["cifar10_sample"]["counts"] = {"train": 40, "test": 40}
    (folder / "config" / "datasets.yaml").write_text(yaml.safe_dump(rows))
    yield folder
    server.http.shutdown()


STORE = "results/cifar-short/data/cifar10_sample.test.h5"


def test_a_raw_file_is_fetched_verified_and_read(checkout):
    folder = checkout
    words = (STORE, "--cores", "1", "--configfile", "config/cifar.yaml")
    done = snakemake(folder, *words, OOD_DATA="")
    assert done.returncode == 0, done.stdout[-3000:]
    store = load_store(folder / STORE)
    assert store.images.shape == (40, 32, 32, 3) and store.labels.tolist() == [i % 10 for i in range(40)]
    lock = json.loads((folder / "resources" / "checksums.json").read_text())
    assert "cifar-10-binary.tar.gz" in json.dumps(lock)
    assert would_run(folder, STORE, *words[3:], OOD_DATA="") == {}
    # another address for the same file reruns nothing; the file stays
    text = (folder / "config" / "sources.yaml").read_text()
    (folder / "config" / "sources.yaml").write_text(text.replace("nothing-here", "elsewhere"))
    assert would_run(folder, STORE, *words[3:], OOD_DATA="") == {}


def test_offline_lists_the_file_and_its_place(checkout):
    folder = checkout
    done = snakemake(folder, STORE, "--cores", "1", "--configfile", "config/cifar.yaml", "--config", "offline=true",
                     OOD_DATA="")
    assert done.returncode != 0
    assert "resources/archives/cifar-10-binary.tar.gz" in done.stdout
    assert not (folder / "resources" / "archives").exists()


def test_optional_weights_are_left_out_until_they_are_there(tmp_path):
    """Of two optional files one cannot be fetched: the paper's target never waits for either, and the other comes."""
    folder = copy(tmp_path)
    packed = io.BytesIO()
    torch.save(resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=16), 8).state_dict(), packed)
    server = Server()
    urls = {"gone": server.url("/gone.pth", lambda handler: handler.answer(404, b"")),
            "here": server.url("/here.pth", good(packed.getvalue()))}
    raw = yaml.safe_load((folder / "config.yaml").read_text())
    raw["variant"] = "foreign"
    trained = next(r for r in raw["recipes"] if r["name"] == "pretrain")
    raw["recipes"] = [trained, *({
        "name": name, "label": name, "normalise": "per_image",
        "checkpoint": {"file": f"elsewhere/{name}.pth", "url": url, "optional": True}} for name, url in urls.items())]
    first = {**raw["experiments"][0], "seeds": [0]}
    raw["experiments"] = [{**first, "recipes": [name]} for name in ("pretrain", "gone", "here")]
    raw["papers"] = [paper for paper in raw["papers"] if paper["name"] == first["paper"]]
    (folder / "foreign.yaml").write_text(yaml.safe_dump(raw))
    words = ("--configfile", "foreign.yaml")
    jobs = would_run(folder, first["paper"], *words, OOD_DATA="")
    assert jobs["train_network"] == 1 and jobs["import_weights"] == jobs["fetch_archive"] == 0

    done = snakemake(folder, "optional_weights", "--cores", "1", *words, OOD_DATA="")
    server.http.shutdown()
    assert done.returncode != 0 and "gone.pth could not be fetched" in done.stdout
    assert (folder / "resources/archives/here.pth").is_file() and not (folder / "resources/archives/gone.pth").exists()

    jobs = would_run(folder, first["paper"], *words, OOD_DATA="")
    assert jobs["import_weights"] == jobs["train_network"] == 1 and jobs["fetch_archive"] == 0
    target = "results/foreign/models/digits/resnet-small/here/seed0.pt"
    done = snakemake(folder, target, "--cores", "1", *words, OOD_DATA="")
    assert done.returncode == 0, done.stdout[-3000:]
    said = "left out: recipe 'gone' of resnet-small on digits: elsewhere/gone.pth is not below the data root; the "
    assert f"{said}target optional_weights downloads it from {urls['gone']}" in done.stdout
    assert "left out: recipe 'here'" not in done.stdout


def test_weights_come_from_an_address_and_its_hash_is_checked(tmp_path):
    folder = copy(tmp_path)
    network = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=16), 8)
    packed = io.BytesIO()
    torch.save({"state_dict": network.state_dict()}, packed)
    server = Server()
    raw = yaml.safe_load((folder / "config.yaml").read_text())
    raw["variant"] = "foreign"
    raw["recipes"] = [{
        "name": "released", "label": "Released", "normalise": "per_image", "checkpoint": {
            "file": "elsewhere/net.pth", "url": server.url("/net.pth", good(packed.getvalue())), "key": "state_dict",
            "sha256": hashlib.sha256(packed.getvalue()).hexdigest()}}]
    raw["experiments"] = [{**raw["experiments"][0], "recipes": ["released"], "seeds": [0]}]
    (folder / "foreign.yaml").write_text(yaml.safe_dump(raw))
    target = "results/foreign/models/digits/resnet-small/released/seed0.pt"
    done = snakemake(folder, target, "--cores", "1", "--configfile", "foreign.yaml", OOD_DATA="")
    assert done.returncode == 0, done.stdout[-3000:]
    content = checkpoint.read(folder / target)
    torch.testing.assert_close(content["state_dict"]["fc.weight"], network.fc.weight.detach())
    assert would_run(folder, target, "--configfile", "foreign.yaml", OOD_DATA="") == {}

    raw["recipes"][0]["checkpoint"]["sha256"] = "0" * 64
    (folder / "foreign.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, target, "--cores", "1", "--configfile", "foreign.yaml", OOD_DATA="")
    server.http.shutdown()
    assert done.returncode != 0 and "0" * 64 in done.stdout and "sha256" in done.stdout
