"""The page on all datasets: current, whole, and every raw file belongs to rows that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow_scripts.config import datasets_page as page
from workflow_scripts.config.catalogue import load, readers
from workflow_scripts.config.raw import load_sources

CONFIG = Path(__file__).resolve().parents[2] / "config"
DATASETS, SOURCES = load(CONFIG / "datasets.yaml"), load_sources(CONFIG / "sources.yaml")


def test_the_page_is_current(capsys):
    page.main(["--check"])  # otherwise it says which command writes it


def test_every_row_is_on_the_page_with_its_terms():
    text = page.page(DATASETS, SOURCES)
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert set(lines) == set(DATASETS)
    for name, row in DATASETS.items():
        for split, count in row.counts.items():
            assert f"{split}: {count:,}" in lines[name], name
        assert row.licence in lines[name], name
    for name, source in SOURCES.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f'| <a id="{page.anchor(name)}"></a>')]
        assert all(checksum in line for checksum in source.checksum)
        assert source.checksum_from in line
        assert f"(#{page.anchor(name)})" in text or not readers(DATASETS, name)
        if source.by_hand:
            assert f"**`{name}`**" in text
            assert all(" ".join(substitute.split()) in text for substitute in source.substitutes)
    assert {len(line.split(" | ")) for line in lines.values()} == {6}


@pytest.mark.parametrize(("name", "words"), [  # which sets the papers remove or replace, and what stands in
    ("tiny_images.bin", "300K_random_images.npy"), ("ILSVRC2012_img_train.tar", "registration")])
def test_what_is_brought_by_hand_says_how(name, words):
    assert words in page.by_hand(SOURCES[name], [])
