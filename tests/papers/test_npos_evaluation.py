"""What is evaluated and drawn of NPOS: accuracy by the nearest class mean, the release's KNN score, the pictures."""

from __future__ import annotations

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests import network_data
from tests.checkout import ROOT
from tests.stages.test_evaluate import CONFIG, run  # noqa: F401
from workflow_scripts.data.images.store import load_store
from workflow_scripts.metrics.compat import OOD_RULES
from workflow_scripts.models import resnet_cifar
from workflow_scripts.networks import checkpoint
from workflow_scripts.pictures import detection_by_recipe, synthesised_outliers
from workflow_scripts.pictures.base import Run
from workflow_scripts.scores import knn
from workflow_scripts.scores.base import Batch, Known
from workflow_scripts.stages import compute_metrics as evaluate
from workflow_scripts.stages import extract_features, prepare_dataset
from workflow_scripts.wiring import data
from workflow_scripts.work.expand import read_plan


def test_accuracy_by_the_nearest_class_mean(run, tmp_path, capsys):  # noqa: F811
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4, 6))
    features = (3 * means[run.labels] + rng.normal(size=(50, 6))).astype(np.float32)
    run.set(run.features, "features", features)

    def rows(means):
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file["class_means"] = means
        evaluate.main(["--config", json.dumps(CONFIG), "--scores", *map(str, run.scores), "--id-features",
                       str(run.features), "--statistics", str(tmp_path / "s.h5"), "--out", str(run.out)])
        return [line.split(",") for line in run.out.read_text().splitlines()]

    found = [float(row[4]) for row in rows(means) if row[3] == "accuracy_prototype"]
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    expected = np.mean((features @ unit.T).argmax(1) == run.labels)
    assert found == [pytest.approx(expected)] * 2 and 0.5 < expected < 1
    assert not [row for row in run.main() if row["metric"] == "accuracy_prototype"]
    with pytest.raises(SystemExit):
        rows(means[:, :3])
    assert "class means of 3 features" in capsys.readouterr().err


def test_knn_and_the_metrics_equal_the_release(golden):
    """Unit pooled features, minus the squared distance to the 10th train feature; ours is the distance itself."""
    release = np.load(golden / "npos.npz")
    bank = knn.fit(knn.Options(K=10), Known(train_features=release["knn_train_feat"]))
    found = []
    for name in ("id", "ood"):
        scores = knn.score(knn.Options(K=10), Known(), bank, Batch(features=release[f"knn_{name}_feat"]))
        np.testing.assert_allclose(-scores**2, release[f"knn_score_{name}_K10"], rtol=0, atol=2e-6)
        found.append(scores)
    values = OOD_RULES["npos"](*found)
    expected = dict(zip(("auroc", "aupr_in", "fpr95"), release["knn_auroc_aupr_fpr95"], strict=True))
    for key, value in expected.items():
        assert values[key] == pytest.approx(value, abs=1e-9)


def test_lsun_c_is_scored_in_its_own_size_as_the_release_does(tmp_path):
    """ToTensor and Normalize alone: the network sees images of 36x36; the others of the group are 32x32."""
    folder = tmp_path / "LSUN" / "test"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    raw = yaml.safe_load((ROOT / "config" / "npos.yaml").read_text())
    plan = read_plan(raw | {"limit": {"images": 12}, "data_root": str(tmp_path)}, ROOT, {})
    wildcards = SimpleNamespace(dataset="lsun_c_released", split="test")
    store = tmp_path / "lsun_c_released.test.h5"
    prepare_dataset.main(["--config", data.prepare_section(plan, wildcards), "--data-root", str(tmp_path), "--out",
                          str(store)])
    images = load_store(store).images
    assert images.shape == (12, 36, 36, 3)

    torch.manual_seed(0)
    network = resnet_cifar.build(resnet_cifar.Options(blocks=(1, 1, 1, 1), width=4), 3).eval()
    checkpoint.save(tmp_path / "seed0.pt", network, {"network": "tiny", "classes": ["a", "b", "c"], "seed": 0,
                                                     "history": []})
    config = {**network_data.CONFIG, "sets": ["lsun_c_released.test"], "precision": "float32"}
    extract_features.main(["--config", json.dumps(config), "--checkpoint", str(tmp_path / "seed0.pt"), "--stores",
                           str(store), "--device", "cpu", "--out", str(tmp_path / "features.h5")])
    x = (torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.inference_mode():
        expected = network.features(x).numpy()
    with h5py.File(tmp_path / "features.h5") as file:
        found = file["lsun_c_released.test/features"][:]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def run_of(recipe: str, label: str, seed: int = 0, id: str = "cifar10", **files) -> Run:
    return Run(id, "resnet18", recipe, label, seed, {}, files)


def test_the_picture_of_outliers(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        for epoch in (3, 5, 7, 8, 9):
            group = file.create_group(f"snapshot_{epoch}")
            for name, shape in (("features", (60, 5)), ("outliers", (24, 5)), ("centres", (6, 5))):
                group[name] = rng.normal(size=shape).astype(np.float32)
            group["labels"] = np.arange(60) % 3
            group["distances"], group["outlier_distances"] = rng.random(60), 1 + rng.random(24)
            group["distances"][7] = np.inf  # a zero row of a released queue
    drawing = synthesised_outliers.draw(synthesised_outliers.Options(), [
        run_of("npos", "NPOS", record=tmp_path / "r.h5")], {"cifar10": "CIFAR-10"})
    assert list(drawing.facts["snapshots"]) == ["3", "5", "8", "9"] and "CIFAR-10, NPOS, seed 0" in drawing.caption
    assert all(s["median_outlier_distance"] > s["median_distance"] for s in drawing.facts["snapshots"].values())
    assert 0.4 <= drawing.facts["variance_shown"] < 1 and len(drawing.figure.axes) == 8
    one = synthesised_outliers.draw(synthesised_outliers.Options(most=1), [
        run_of("npos", "NPOS", record=tmp_path / "r.h5")], {})
    assert list(one.facts["snapshots"]) == ["9"]
    with h5py.File(tmp_path / "none.h5", "w"):
        pass
    with pytest.raises(Exception, match="no snapshot; give the recipe options.snapshots"):
        synthesised_outliers.draw(synthesised_outliers.Options(), [run_of("a", "b", record=tmp_path / "none.h5")], {})


def test_the_picture_of_trainings(tmp_path):
    runs = []
    for id in ("cifar10", "cifar100"):
        for recipe, label, base in (("npos", "NPOS", 0.9), ("npos-queue+B1", "NPOS", 0.8)):
            for seed in (0, 1):
                path = tmp_path / f"{id}{recipe}{seed}.csv"
                path.write_text("score,dataset,group,metric,value,n_id,n_ood\n" + "".join(
                    f"knn_300,{name},far,auroc,{base + seed / 100},10,10\n" for name in ("svhn", "isun")))
                runs.append(run_of(recipe, label, seed, id, metrics=path))
    options = detection_by_recipe.Options(score="knn_300")
    drawing = detection_by_recipe.draw(options, runs, {"knn_300": "KNN"})
    assert drawing.facts["cifar100/resnet18"]["npos-queue+B1"] == pytest.approx([0.8, 0.81])
    drawing.figure.canvas.draw()
    ends = [text.get_window_extent().x0 for text in drawing.figure.axes[0].get_yticklabels()]
    assert min(ends) > 0  # nothing is cut off
    labels = [text.get_text() for text in drawing.figure.axes[0].get_yticklabels()]
    assert labels == ["NPOS", "NPOS [B1]"] and "2 seed(s)" in drawing.caption
