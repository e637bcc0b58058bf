"""The checks of published numbers: their formulas against plain loops, bad files, and the released files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.checkout import ROOT
from workflow_scripts.agreement import base, dice_cifar10, odin_cifar10, outlier_exposure_mnist
from workflow_scripts.agreement.base import Given, lines
from workflow_scripts.config import published_checks
from workflow_scripts.core import plugins, sources
from workflow_scripts.core.errors import OODError

CHECKS, RAW = published_checks.load(ROOT / "config" / "published_checks.yaml", ROOT / "config" / "sources.yaml")


def test_calibration_is_the_release_s():
    random = np.random.RandomState(0)
    confidence, correct = random.uniform(0.1, 1, 1050), random.rand(1050) < 0.8
    order = np.argsort(confidence)
    squares = absolute = 0.0
    for start in range(0, 900, 100):  # ten bins, the last of 150 images is left out
        at = order[start:start + 100]
        gap = abs(np.mean(confidence[at]) - np.mean(correct[at]))
        squares += 100 / 1050 * gap ** 2
        absolute += 100 / 1050 * gap
    wrong = 1 - correct.astype(float)
    soft = 2 * np.sum((1 - confidence) * wrong) / np.sum(1 - confidence + wrong)
    found = outlier_exposure_mnist.calibration(confidence, correct)
    assert found == pytest.approx({"RMS": 100 * squares ** 0.5, "MAD": 100 * absolute, "soft F1": 100 * soft})


def test_fpr_and_detection_error_are_read_off_the_release_s_grid():
    random = np.random.RandomState(0)
    id_scores, ood_scores = random.beta(8, 1, 2000), random.beta(3, 1, 500)
    rates, errors = [], []
    for delta in 0.1 + (0.9 / 100_000) * np.arange(0, 100_000):
        tpr, fpr = np.mean(id_scores >= delta), np.mean(ood_scores > delta)
        errors.append((1 - tpr + fpr) / 2)
        if 0.9495 <= tpr <= 0.9505:
            rates.append(fpr)
    found = odin_cifar10.metrics(id_scores, ood_scores, 1.0)
    assert found["FPR95"] == pytest.approx(100 * np.mean(rates), abs=1e-3)
    assert found["detection error"] == pytest.approx(100 * min(errors), abs=1e-3)


@pytest.mark.parametrize(("text", "message"), [
    ("1000, 0.0014, 0.9\n1000, 0.0014, 0.8\n", "2 scores, expected 3, one for each image"),
    ("0.9\n0.8\n0.7\n", "1 columns, expected temperature, epsilon and score"),
    ("<html>\n", "expected lines `temperature, epsilon, score`")])
def test_a_score_file_of_another_form_or_count_is_refused(text, message, tmp_path):
    (tmp_path / "scores.txt").write_text(text)
    with pytest.raises(OODError, match=f"scores.txt: .*{message}"):
        odin_cifar10.scores(tmp_path / "scores.txt", 3)


def test_a_network_of_other_tensors_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(OODError, match="x.pt: tensors .*expected .*it is no network of this release"):
        outlier_exposure_mnist.network(tmp_path / "x.pt")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_with_code_is_refused_and_the_safe_way_named(save, tmp_path):
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    for content in ({"conv1.weight": Evil()}, Evil()):
        save(content, tmp_path / "x.pt")
        with pytest.raises(OODError, match=r"x\.pt.*torch\.save\(net\.state_dict\(\), \.\.\.\)"):
            outlier_exposure_mnist.network(tmp_path / "x.pt")
    assert not marker.exists()


@pytest.mark.parametrize(("array", "message"), [(np.zeros(3), r"shape \(3,\), expected \(342,\)"),
                                                (None, "expected an array of 342 numbers")])
def test_mean_features_of_another_form_are_refused(array, message, tmp_path):
    path = tmp_path / "means.npy"
    path.write_text("<html>") if array is None else np.save(path, array)
    with pytest.raises(OODError, match=message):
        dice_cifar10.released_means(path, 342)


def test_labels_in_another_order_are_refused(tmp_path):
    random = np.random.RandomState(0)
    labels = random.randint(0, 10, 1000)
    predicted = np.where(random.rand(1000) < 0.25, (labels + 1) % 10, labels)
    assert base.labelled(predicted != labels, tmp_path / "y").mean() < 0.3
    with pytest.raises(OODError, match="y: [89].% of the network's predictions are wrong.*labels are in another order"):
        base.labelled(random.permutation(predicted) != labels, tmp_path / "y")


def test_scores_in_another_order_are_refused(tmp_path):
    random = np.random.RandomState(0)
    scores = 0.1 + 0.01 * random.beta(8, 1, 1000)  # as ODIN's, close to 1 of 10 classes
    ours = scores + random.uniform(-1e-6, 1e-6, 1000)
    assert base.paired(np.abs(ours - scores), tmp_path / "s", tmp_path / "x").max() <= 1e-6
    with pytest.raises(OODError, match=r"s: half of its scores differ from ours.*another order than the images of .*x"):
        base.paired(np.abs(ours - scores[::-1]), tmp_path / "s", tmp_path / "x")


def test_another_number_of_labels_than_images_is_refused(tmp_path):
    with pytest.raises(OODError, match="labels.gz: 9,999 labels, expected 10,000, one for each image"):
        base.counted(9_999, 10_000, tmp_path / "labels.gz", "labels")


# ---- the table -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d["checks"][0].update(name="odin_cifar"), "'odin_cifar'.*'odin_cifar10'"),
    (lambda d: d["checks"][0]["files"].pop("test"), "check 'odin_cifar10', files: 'test' is missing"),
    (lambda d: d["checks"][0]["files"].update(tset=d["checks"][0]["files"]["test"]),
     "check 'odin_cifar10', files: 'tset' is not read by it.*'test'"),
    (lambda d: d["checks"][0]["files"]["test"].update(archive="cifar-10.tar.gz"),
     "files.test.archive.*'cifar-10.tar.gz'.*'cifar-10-binary.tar.gz'"),
    (lambda d: d["checks"][0].update(printd={}), "printd"),
    (lambda d: d["checks"][0]["files"]["test"].pop("archive"), "archive or gives expected"),
    (lambda d: d["checks"][-1]["files"]["train"].update(gives=["tset error"]), "gives.*'tset error'.*'test error'")])
def test_a_mistake_in_the_table_is_named(change, message, tmp_path):
    table = yaml.safe_load((ROOT / "config" / "published_checks.yaml").read_text())
    change(table)
    (tmp_path / "published_checks.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(OODError, match=message):
        published_checks.load(tmp_path / "published_checks.yaml", ROOT / "config" / "sources.yaml")


def test_a_file_that_may_be_absent_is_taken_from_an_archive_that_is_fetched_anyway():
    check = CHECKS["himplos_cifar100"]
    archive = check.files["test"].archive
    assert check.downloads(["train"]) == {}
    assert check.downloads(["train", "network"]) == {"network": check.files["network"].archive}
    assert check.downloads(["train", "test"]) == {"train": archive, "test": archive}


def test_every_released_file_is_pinned():
    for check in CHECKS.values():
        for file in (file for file in check.files.values() if file.archive):
            pinned = RAW[file.archive].checksum
            assert any(checksum.startswith(("sha256:", "md5:")) for checksum in pinned), file.archive


# ---- the released files ----------------------------------------------------------------------------------------------

def agreed(name: str, limit: int) -> set[str]:
    """Quantities of a check, computed of a few images, that agree."""
    check, root = CHECKS[name], Path(os.environ["OOD_DATA"])
    files = {role: tuple(sources.locate(file.find, root)) for role, file in check.files.items()}
    files = {role: paths for role, paths in files.items() if paths or role not in check.left_out()}
    if not all(files.values()):
        pytest.skip(f"no {', '.join(role for role, paths in files.items() if not paths)} of {name} below OOD_DATA")
    module = plugins.load("agreement", name)
    absent = {quantity for role, names in check.left_out().items() if role not in files for quantity in names}
    printed = {quantity: text for quantity, text in check.printed.items() if quantity not in absent}
    found = lines(printed, module.compute(Given(files, check.seed, limit)), name)
    return {line.quantity for line in found if line.agrees}


@pytest.mark.data
@pytest.mark.slow
def test_outlier_exposure_on_mnist_agrees_in_every_printed_number():
    assert agreed("outlier_exposure_mnist", 10_000) == CHECKS["outlier_exposure_mnist"].printed.keys()


@pytest.mark.data
def test_the_released_functions_give_the_same_for_two_sine_images():
    made = {name for name in CHECKS["himplos_cifar100"].printed if name.startswith("sine image")}
    assert len(made) == 16 and made <= agreed("himplos_cifar100", 20)


@pytest.mark.data
def test_mean_features_of_a_few_hundred_images_are_within_their_error():
    assert agreed("dice_cifar10", 300) >= {"mean features, largest difference beyond four standard errors"}


@pytest.mark.data
def test_odin_s_network_gives_the_released_scores():
    printed = CHECKS["odin_cifar10"].printed
    exact = printed.keys() - {"test error"}  # which needs more images
    other_runs = {"Example output: MSP, detection error", "Table 2: MSP, FPR95", "Table 2: ODIN, detection error",
                  "Table 2: ODIN, AUPR, ID"}  # each by 0.1
    assert exact - agreed("odin_cifar10", 40) == other_runs


@pytest.mark.data
def test_odin_tells_noise_from_the_released_id_scores():
    """Of 40 draws: all but the figures of MSP, which have an error of several per cent."""
    assert {name for name in CHECKS["odin_noise"].printed if name.startswith("ODIN")} <= agreed("odin_noise", 40)
