"""Raw files that change on the disk: their sets are prepared again; copied or touched ones are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import h5py
from PIL import Image

from tests.checkout import ROOT, snakemake, would_run
from tests.everyday_data import TINY, write

STORE = "results/tiny/data/mine.test.h5"
EXPERIMENT = {**TINY["experiments"][0], "ood": {"far": ["mine"]}}


def draw(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey,) * 3).save(path)


def test_an_image_replaced_or_moved_below_a_class_folder_is_read_again(tmp_path):
    images = tmp_path / "mine"
    for name in ("owls/big/1", "owls/2", "apes/1"):
        draw(images / f"{name}.bmp", 50)  # whose size tells nothing
    write(tmp_path / "c.yaml", experiments=[EXPERIMENT], datasets={
        "mine": {"reader": "images", "options": {"files": "./mine"}, "splits": {"test": {}}}})
    words = [STORE, "--snakefile", str(ROOT / "Snakefile"), "--configfile", "c.yaml"]
    for grey, changed in ((50, lambda: None), (255, lambda: draw(images / "owls/big/1.bmp", 255)),
                          (255, lambda: os.rename(images / "apes/1.bmp", images / "owls/1.bmp"))):
        changed()
        assert would_run(tmp_path, *words)["prepare_dataset"] == 1
        done = snakemake(tmp_path, *words, "--cores", "1")
        assert done.returncode == 0, done.stdout[-3000:]
        with h5py.File(tmp_path / STORE) as store:
            assert store["images"][:].max() == grey
    os.utime(images / "owls/2.bmp", (time.time(), time.time()))
    assert not would_run(tmp_path, *words)
    draw(images / "owls/2.bmp", 60)
    said = subprocess.run([sys.executable, "-m", "workflow_scripts.why", *words], cwd=tmp_path, check=True,
                          stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}).stdout
    assert f"raw files: {images}: other content, 3 files as before" in said
