"""Any path, any place: the workflow below folders whose names a shell, a glob or YAML could take for its own."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import yaml
from PIL import Image

from tests.checkout import copy, snakemake
from tests.everyday_data import TINY, write
from tests.workflow.test_fetch_rule import archive

NASTY = "a b#c [1] (é) 'q' \"d\" $H & ;*"
STORE = "results/tiny/data/mine.test.h5"


def draw(path, grey):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new("RGB", (8, 8), (grey,) * 3).save(path)


def images(path):
    with h5py.File(path) as file:
        return file["images"][:].max(axis=(1, 2, 3)).tolist(), [name.decode() for name in file["names"][:]]


def test_everything_lies_below_a_folder_of_a_difficult_name(tmp_path):
    """Checkout, configuration, data, results and downloads; and a file whose name is no UTF-8. Nothing is written where
    the data are, which may be read-only."""
    place = tmp_path / NASTY
    checkout = copy(place / "checkout")
    sources = yaml.safe_load((checkout / "config" / "sources.yaml").read_text())
    (place / "cifar 10.tar.gz").write_bytes(archive(20))
    sources["cifar-10-binary.tar.gz"] = {"urls": [str(place / "cifar 10.tar.gz")]}
    (checkout / "config" / "sources.yaml").write_text(yaml.safe_dump(sources))
    draw(place / "photos" / "1 #.png", 10)
    draw(os.fsencode(place / "photos") + b"/caf\xe9.png", 20)
    for name in ("3.png", "4.png"):
        draw(place / "raw" / "deep [2]" / name, 30)
    write(place / "c.yaml", resources="./down loads", datasets={
        "mine": {"reader": "images", "options": {"files": "./photos"}, "splits": {"test": {}}},
        "raw": {"reader": "images", "options": {"files": "deep*"}, "splits": {"test": {}}},
        "fetched": {"of": "cifar10", "label": "F", "counts": {"test": 20}}},
        experiments=[{**TINY["experiments"][0], "ood": {"far": ["mine", "raw", "fetched"]}}])
    before = [(path, os.stat(path).st_mtime_ns) for path in sorted((place / "raw").rglob("*")) + [place / "photos"]]
    stores = [f"results/tiny/data/{name}.test.h5" for name in ("mine", "raw", "fetched")]
    words = [*stores, "--snakefile", str(checkout / "Snakefile"), "--configfile", "c.yaml", "--directory", "out put"]
    done = snakemake(place, *words, "--cores", "1", OOD_DATA="raw")
    assert done.returncode == 0, done.stdout[-3000:]
    found = place / "out put"
    assert images(found / stores[0]) == ([10, 20], ["1 #.png", "caf\\xe9.png"])
    assert images(found / stores[1]) == ([30, 30], ["3.png", "4.png"])
    assert len(images(found / stores[2])[0]) == 20 and (place / "down loads" / "checksums.json").is_file()
    assert before == [(path, os.stat(path).st_mtime_ns) for path, _ in before]
    again = snakemake(place, *words, "--dry-run", OOD_DATA="raw")
    assert "Nothing to be done" in again.stdout
    said = subprocess.run([sys.executable, "-m", "workflow_scripts.plan", "--configfile", "c.yaml", "--directory",
                           "out put"], cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "PYTHONPATH": str(checkout), "OOD_DATA": "raw"}, check=False)
    assert said.returncode == 0 and "Plan of 'tiny'" in said.stdout, said.stdout[-2000:]
