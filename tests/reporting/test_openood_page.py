"""docs/openood.md: made of the lists and a record; numbers of fewer images than the protocol's are refused."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.checkout import ROOT
from workflow_scripts import openood_page
from workflow_scripts.config import catalogue
from workflow_scripts.core.errors import OODError
from workflow_scripts.reporting import results
from workflow_scripts.reporting.statistics import Seeds

ID, NEAR = "openood_cifar10_first_batch", {"openood_cifar10_cifar100": 9000, "openood_cifar10_tin": 7793}


def written(folder, n_id: int = 9000, **counts: int):
    """A table of one score, as the run of config/openood_near.yaml leaves it."""
    head = {"id": ID, "network": "densenet100", "recipe": "dice", "label": "DICE's weights"}
    rows = [{**head, "score": "energy", "dataset": name, "group": "near", "metric": metric, "seeds": Seeds(((0, 0.9),)),
             "n_id": n_id, "n_ood": count} for name, count in (NEAR | counts).items()
            for metric in (*openood_page.METRICS, "aupr_in")]
    rows.append({**head, "score": "", "dataset": ID, "group": "id", "metric": "accuracy", "seeds": Seeds(((0, 0.95),)),
                 "n_id": n_id, "n_ood": 0})
    results.write(folder / "openood_near.csv", pd.DataFrame(rows))
    return folder


def test_the_page_is_up_to_date():
    openood_page.main(["--check"])


def test_measured_numbers_stand_under_the_protocol(tmp_path):
    record = openood_page.taken(written(tmp_path))
    assert set(record["metric"]) == {*openood_page.METRICS, "accuracy"}
    page = openood_page.text(catalogue.load(ROOT / "config" / "datasets.yaml"), record)
    assert "| `openood_cifar10_tin` | test | `cifar10/test_tin` | 7,793 |" in page
    assert "CIFAR-10 (fitted to 10,000) (ID) 9000; CIFAR-100 (near) 9000, Tiny ImageNet (near) 7793." in page
    assert "| DICE's weights | Energy |" in page


@pytest.mark.parametrize(("counts", "words"), [
    ({"openood_cifar10_tin": 200}, "200 images of 'openood_cifar10_tin', its list names 7,793"),
    ({"n_id": 200}, f"200 images of '{ID}', its list names 9,000"),
])
def test_numbers_of_other_images_are_refused(tmp_path, counts, words):
    with pytest.raises(OODError, match=words):
        openood_page.taken(written(tmp_path, **counts))


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(OODError, match="none of openood_near.csv is there"):
        openood_page.taken(tmp_path)
