"""The HIMPLoS configuration at full size: its hyper-parameters, and every stage once at full architecture."""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import yaml
from PIL import Image

from tests.checkout import ROOT, copy, snakemake
from workflow_scripts.core.errors import OODError
from workflow_scripts.models import densenet_bc, torchvision_imagenet
from workflow_scripts.wiring.evaluation import metrics_section
from workflow_scripts.wiring.reports import table_section
from workflow_scripts.wiring.training import import_section, train_section
from workflow_scripts.work.expand import read_plan

RAW = yaml.safe_load((ROOT / "config" / "himplos.yaml").read_text())
PLAN = read_plan(RAW, ROOT, {})


class Wildcards:
    def __init__(self, **names):
        self.__dict__.update(names)


def options(id: str, network: str, score: str) -> dict:
    return PLAN.runs[id, network, "pretrain", 0].scores[score].options


# HIMPLoS's README and its author's sister repositories: ID set, network -> p, lambda; BATS lambda; LINe p_a, p_w, clip
SPEC = {
    ("cifar10", "densenet100"): (60, 1.6, 1.0, (90, 90, 1.0)),
    ("cifar10", "resnet18"): (60, 0.8, 3.3, (90, 90, 1.0)),
    ("cifar100", "densenet100"): (60, 1.6, 0.8, (10, 90, 1.0)),
    ("cifar100", "resnet18"): (60, 0.8, 1.35, (10, 90, 1.0)),
}


@pytest.mark.parametrize(("id", "network"), SPEC)
def test_hyper_parameters_are_those_of_the_description(id, network):
    p, clip, lam, line = SPEC[id, network]
    assert options(id, network, "himplos") == {"p": p, "clip": clip}
    parts = {"p": p, "clip": clip}
    assert options(id, network, "himplos_mask_clip") == {**parts, "cosine": False}
    assert options(id, network, "himplos_msp") == {**parts, "measure": "msp"}
    assert options(id, network, "odin_himplos") == {**parts, "temperature": 800, "epsilon": 0.004}
    assert options(id, network, "react_smooth") == {"p": 0, "clip": clip}
    for name, parts in (("dice", {"mask": p, "smooth": True}), ("bats", {"mask": p, "smooth": True}),
                        ("line", {"smooth": True})):
        joined = options(id, network, f"{name}_smooth" if name == "line" else f"{name}_himplos")
        assert joined == {**options(id, network, name), **parts}
    assert [options(id, network, f"ash_{variant}")["p"] for variant in "psb"] == [90, 90, 90]
    assert options(id, network, "himplos_mask") == {"p": 60, "clip": math.inf, "cosine": False}
    assert options(id, network, "himplos_smoothing") == {"p": 0, "clip": math.inf}
    assert options(id, network, "bats") == {"lam": lam}
    assert options(id, network, "line") == dict(zip(("p_a", "p_w", "clip"), line, strict=True))
    assert options(id, network, "odin") == {"temperature": 1000, "epsilon": 0.004}
    assert options(id, network, "dice") == {"p": 90}
    assert list(PLAN.ood[id]) == ["svhn_10k", "lsun_c", "lsun_r", "isun", "textures", "places365"]
    wildcards = Wildcards(id=id, network=network, recipe="pretrain", seed="0")
    section = json.loads(train_section(PLAN, wildcards))
    training = section["recipe"]["training"]
    assert (training["lr"], training["momentum"], training["weight_decay"], training["batch_size"], training["epochs"]
            ) == (0.1, 0.9, 5e-4, 128, 100)
    assert training["schedule"] == {
        "name": "multistep", "milestones": [50, 70, 90], "gamma": 0.1, "floor": 0.0, "warmup": None, "steps": []}
    assert not training["nesterov"] and section["recipe"]["initialisation"] == "fan_out"
    assert section["recipe"]["augment"] == [{"random_crop": 4}, {"horizontal_flip": 0.5}]
    assert section["recipe"]["normalise"] == {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}


def test_networks_are_the_papers():
    networks = {n.name: n for n in PLAN.config.networks}
    assert networks["densenet100"].options == {"depth": 100, "growth": 12, "reduction": 0.5}
    assert networks["resnet18"].options == {"blocks": [2, 2, 2, 2], "width": 64}


@pytest.mark.parametrize(("network", "clip"), [("resnet50", 0.8), ("resnet18-imagenet", 0.8), ("mobilenet_v2", 0.2)])
def test_imagenet_uses_torchvisions_weights_and_the_values_for_its_networks(network, clip):
    """Whatever clips a network's features clips them where its HIMPLoS does."""
    run = PLAN.runs["imagenet", network, "torchvision", 0]
    found = {name: score.options for name, score in run.scores.items()}
    assert found["himplos"] == {"p": 30, "clip": clip}
    assert found["himplos_mask_clip"] == {"p": 30, "clip": clip, "cosine": False}
    assert found["react"] == {"clip": clip} and found["dice"] == {"p": 70}
    assert found["dice_react"] == {"p": 70, "clip": clip} and found["react_smooth"] == {"p": 0, "clip": clip}
    assert found["line"] == {"p_a": 10, "p_w": 10, "clip": clip} and found["bats"] == {"lam": 1.25}
    assert found["line_smooth"] == {**found["line"], "smooth": True}
    assert found["bats_himplos"] == {**found["bats"], "mask": 30, "smooth": True}
    assert found["dice_himplos"] == {**found["dice"], "mask": 30, "smooth": True}
    assert [found[f"ash_{variant}"]["p"] for variant in "psb"] == [60, 90, 65]  # ASH's paper
    assert run.recipe.checkpoint.file.endswith(f"{run.recipe.checkpoint.sha256}.pth")


def test_imagenet_has_four_ood_sets():
    assert list(PLAN.ood["imagenet"]) == ["inaturalist", "sun", "places_imagenet", "textures_imagenet"]


def test_released_networks_of_cifar10_are_known_by_hash_or_git_id(tmp_path):
    """Both are optional; HIMPLoS's own is known by its id in the repository alone."""
    assert {(one.key.id, one.key.recipe) for one in PLAN.left_out} == {
        ("cifar10", "released"), ("cifar10", "dice-released")}
    assert {key[:3] for key in PLAN.runs if "released" in key.recipe} == {("cifar100", "densenet100", "released")}
    for name in ("himplos/CIFAR-10/densenet_parameter_cifar10.pth", "dice/CIFAR-10/checkpoint_100.pth.tar"):
        place = tmp_path / "checkpoints" / name
        place.parent.mkdir(parents=True)
        place.touch()
    plan = read_plan({**RAW, "data_root": str(tmp_path)}, ROOT, {})
    assert not plan.left_out
    run = Wildcards(id="cifar10", network="densenet100", recipe="released", seed="0")
    section = json.loads(import_section(plan, run))
    assert section["git_blob"] == "6475f36fb5e68bab79ede13945f19e118beccfe3" and section["raw"] is None
    name, downloads = "densenet_parameter_cifar10.pth", PLAN.sources
    assert downloads[name].checksum == [f"git:{section['git_blob']}"]
    assert downloads["densenet_parameter.pth"].urls != downloads[name].urls  # CIFAR-100's has a name of its own
    assert downloads["checkpoint_100.pth.tar"].checksum[0].startswith("sha256:deaefd08")


def test_two_downloads_of_one_name_are_refused():
    raw = json.loads(json.dumps(RAW))
    files = [r["checkpoint"] for r in raw["recipes"] if r["name"] == "released"]
    files[1]["file"] = "checkpoints/himplos/CIFAR-10/densenet_parameter.pth"
    with pytest.raises(OODError, match="recipe 'released', key checkpoint.file: .*give the file another name"):
        read_plan(raw, ROOT, {})


def test_all_of_svhn_stands_beside_the_10000_where_it_is_asked_for():
    """himplos.1h-3: the paper's subset is the default, and what the release scores a group of its own."""
    assert not any("+" in group for sets in PLAN.ood.values() for group in sets.values())
    plan = read_plan({**RAW, "fidelity": {"released": ["himplos.1h-3"]}}, ROOT, {})
    for id in ("cifar10", "cifar100"):
        assert plan.ood[id] == {**PLAN.ood[id], "svhn": "far+1h-3"}
        assert [plan.datasets[name].counts["test"] for name in ("svhn_10k", "svhn")] == [10000, 26032]
    assert plan.ood["imagenet"] == PLAN.ood["imagenet"] and set(plan.runs) == set(PLAN.runs)
    table = json.loads(table_section(plan, Wildcards(paper="himplos")))
    others = ["lsun_c", "lsun_r", "isun", "textures", "places365"]
    for run in table["runs"]:
        if run["id"] != "imagenet":
            assert (run["groups"]["far"], run["groups"]["far+1h-3"]) == (["svhn_10k", *others], ["svhn", *others])
    assert table["compare"]["sets"] == {"+1h-3": "himplos.1h-3"}
    run = Wildcards(id="cifar10", network="resnet18", recipe="pretrain", seed="0")
    metrics = json.loads(metrics_section(plan, run))
    assert metrics["groups"]["far+1h-3"] == ["svhn.test"]


def random_cifar(rng: np.random.Generator, count: int, classes: int, labels: int) -> bytes:
    """Records of the official binary version: ``labels`` label bytes, then 3,072 pixels."""
    records = rng.integers(0, 256, (count, labels + 3072), dtype=np.uint8)
    records[:, :labels] = (np.arange(count) % classes)[:, None]
    return records.tobytes()


def random_images(rng: np.random.Generator, folder: Path, count: int, side: int) -> None:
    (folder / "x").mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / "x" / f"{i}.jpg")


def random_data(root: Path) -> None:
    """Small files in the official layouts of everything the configuration reads on CIFAR."""
    rng = np.random.default_rng(0)
    for name, classes, labels, files in (("cifar10", 10, 1, ("data_batch_1.bin", "test_batch.bin")),
                                         ("cifar100", 100, 2, ("train.bin", "test.bin"))):
        (root / name).mkdir(parents=True)
        for file in files:
            (root / name / file).write_bytes(random_cifar(rng, 400, classes, labels))
    (root / "svhn").mkdir()
    scipy.io.savemat(root / "svhn" / "test_32x32.mat", {
        "X": rng.integers(0, 256, (32, 32, 3, 80), dtype=np.uint8),
        "y": (np.arange(80) % 10 + 1).astype(np.uint8)[:, None]})
    for name, side in (("LSUN_C", 36), ("LSUN_R", 32), ("iSUN", 32), ("dtd/images", 50)):
        random_images(rng, root / name, 70, side)
    (root / "places365").mkdir()
    with tarfile.open(root / "places365" / "test_256.tar", "w") as tar:
        for i in range(70):
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(content, "JPEG")
            member = tarfile.TarInfo(f"test_256/{i}.jpg")
            member.size = len(content.getvalue())
            tar.addfile(member, io.BytesIO(content.getvalue()))
    for split in ("train", "val"):
        for label in range(10):
            random_images(rng, root / "imagenet" / split / f"n{label:08d}", 3, 70)
    for name in ("iNaturalist", "SUN", "Places"):
        random_images(rng, root / name, 3, 70)
    (root / "checkpoints" / "torchvision").mkdir(parents=True)
    for architecture, file in (("resnet18", "resnet18-5c106cde.pth"), ("resnet50", "resnet50-19c8e357.pth"),
                               ("mobilenet_v2", "mobilenet_v2-b0353104.pth")):
        network = torchvision_imagenet.build(torchvision_imagenet.Options(architecture=architecture), 10)
        torch.save(network.state_dict(), root / "checkpoints" / "torchvision" / file)
    for file, classes in (("himplos/CIFAR-100/densenet_parameter.pth", 100),
                          ("himplos/CIFAR-10/densenet_parameter_cifar10.pth", 10),
                          ("dice/CIFAR-10/checkpoint_100.pth.tar", 10)):
        path = root / "checkpoints" / file
        path.parent.mkdir(parents=True)
        torch.save({"state_dict": densenet_bc.build(densenet_bc.Options(), classes).state_dict()}, path)


@pytest.mark.slow
def test_every_full_size_stage_once_on_random_images(tmp_path):
    folder = copy(tmp_path / "checkout")
    random_data(tmp_path / "data")
    raw = {**RAW, "variant": "limited", "limit": {"steps": 2, "images": 32}, "seeds": [0], "device": "cpu",
           "threads": 1, "features": {"batch_size": 32}}
    for recipe in raw["recipes"]:
        for check in ("sha256", "git_blob"):
            recipe.get("checkpoint", {}).pop(check, None)  # random weights
    rows = yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text())
    raw["datasets"] = {"imagenet": {**rows["imagenet"], "classes": 10}}
    raw["scores"] = [{**s, "options": {"K": 20}} if s["name"] == "knn" else s for s in raw["scores"]]  # of 32 images
    first, *others = raw["experiments"]
    # all scores once, then those whose options differ by network; the ensemble over all layers takes minutes on two
    # cores and has tests of its own
    first["scores"] = [s for s in first["scores"] if s != "mahalanobis_ensemble"]
    for experiment in others:
        own = ["msp", "bats", "line", "knn", "himplos"]
        experiment["scores"] = [s for s in experiment["scores"] if s in own]
    (folder / "limited.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(folder, "--cores", "2", "--configfile", "limited.yaml", OOD_DATA=str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout[-6000:]
    rows = list(csv.DictReader((folder / "results/limited/tables/himplos.csv").open()))
    reported = {(r["id"], r["network"], r["recipe"], r["score"]) for r in rows if r["metric"] == "auroc"}
    plan = read_plan({**raw, "data_root": str(tmp_path / "data")}, ROOT, {})
    assert reported == {(run.id, run.network.name, run.path_name, score)
                        for run in plan.runs.values() for score in run.scores}
    assert {key[:3] for key in reported} == {key[:3] for key in PLAN.runs} | {
        ("cifar10", "densenet100", name) for name in ("released", "dice-released")}
    values = [float(r["mean"]) for r in rows if r["metric"] == "auroc"]
    assert all(0 <= v <= 1 for v in values)
