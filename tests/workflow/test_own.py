"""A user's own data, network and score, and bundles: the examples of docs/own.md, run as a user would."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import checkout, own_data
from tests.checkout import HANGS, ROOT, would_run
from workflow_scripts import export
from workflow_scripts.data.archives import unpack
from workflow_scripts.metrics.ood import ood_metrics

PAGE = (ROOT / "docs" / "own.md").read_text(encoding="utf-8")
SETS = ("digits", "my_photos", "my_grey")
SCORES = ("msp", "energy", "knn", "odin", "spread")


def commands(number: int) -> list[list[str]]:
    """The commands of an example of the page."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)[number]
    return [shlex.split(line) for block in re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
            for line in block.splitlines()]


def user(folder: Path) -> Path:
    """The user's folder with the files that the page shows."""
    own_data.write_all(folder)
    for name, content in re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return folder


def run(words: list[str], repository: Path, work: Path) -> str:
    """A command of the page, with this Python for ``uv run`` and ``work`` for the user's folder."""
    assert words[:2] == ["uv", "run"]
    words = [word.replace("/my/work", str(work)) for word in words[2:]]
    words = words[1:] if words[0] == "python" else ["-m", *words]
    done = subprocess.run([sys.executable, *words], cwd=repository, text=True, timeout=HANGS, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def scores(repository: Path, place: str, score: str) -> dict[str, np.ndarray]:
    with h5py.File(repository / "results" / place / f"{score}.h5") as file:
        return {name: file[name][()] for name in file}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path]:
    """A checkout in which the second example has run, and the user's folder."""
    repository = checkout.copy(tmp_path_factory.mktemp("repository"))
    work = user(tmp_path_factory.mktemp("user") / "work")
    for words in commands(2):
        run(words, repository, work)
    return repository, work


def test_the_page_shows_four_examples():
    assert [len(commands(number)) for number in (1, 2, 3, 4)] == [1, 1, 1, 3]


def test_own_network_score_and_images(finished):
    repository, _ = finished
    rows = list(csv.DictReader((repository / "results" / "my-data" / "tables" / "mine.csv").open()))
    found = {(r["score"], r["dataset"]) for r in rows if r["metric"] == "auroc" and r["mean"]}
    assert {(score, name) for score in SCORES for name in SETS[1:]} < found
    where = "my-data/features/digits/my-net/my-weights/seed0"
    with h5py.File(repository / "results" / where / "digits.test.h5") as file:
        features, logits = file["features"][()], file["logits"][()]
    assert features.shape == (443, 24) and logits.shape == (443, 8)
    with h5py.File(repository / "results" / where / "head.h5") as file:
        assert np.allclose(features @ file["weight"][()].T + file["bias"][()], logits, atol=1e-5)
    spread = scores(repository, "my-data/scores/digits/my-net/my-weights/seed0", "spread")
    assert np.allclose(spread["digits.test"], logits.astype(float).std(1))
    assert spread["my_photos.test"].shape == spread["my_grey.test"].shape == (12,)


def test_features_and_logits_are_those_of_the_users_module(finished):
    import torch

    repository, work = finished
    net = own_data.network(work)
    with h5py.File(repository / "results" / "my-data" / "data" / "my_grey.test.h5") as file:
        images = torch.from_numpy(file["images"][()]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = net(((images - 0.5) / 0.25).contiguous())
    with h5py.File(repository / "results/my-data/features/digits/my-net/my-weights/seed0/ood.h5") as file:
        assert np.allclose(file["my_grey.test/logits"][()], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(("name", "old", "new", "first"), [
    ("my_score.py", "import numpy", "# a comment\nimport numpy", {}),
    ("my_score.py", ".std(1)", ".std(1) * 2", {"score_sets": 1}),
    ("blocks.py", "relu(x)\n", "relu(x) + 0\n", {"import_weights": 1, "extract_features": 1, "score_sets": 4,
                                                 "score_network": 1, "precompute_statistics": 0}),
    ("weights.pt", None, None, {"import_weights": 1, "extract_features": 1, "score_sets": 4, "score_network": 1}),
])
def test_only_what_changed_runs_again(finished, name, old, new, first):
    repository, work = finished
    path = work / name
    before = path.read_bytes()
    try:
        if old:
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))
        else:  # trained further: the same tensors' names, other values
            import torch
            torch.save({key: value * 1.01 for key, value in own_data.network(work).state_dict().items()}, path)
        jobs = would_run(repository, "--configfile", str(work / "data.yaml"))
    finally:
        path.write_bytes(before)
    after = {"compute_metrics", "compare_scores", "make_tables", "draw_figures", "write_manifest", "make_report"}
    assert jobs == (+Counter(first) + Counter(after) if first else Counter())


def test_an_own_method_trains_and_its_file_is_part_of_what_it_trained(finished):
    repository, work = finished
    run(commands(3)[0], repository, work)
    rows = list(csv.DictReader((repository / "results" / "my-method" / "tables" / "mine.csv").open()))
    found = {(r["label"], r["score"], r["dataset"]) for r in rows if r["metric"] == "auroc" and r["mean"]}
    assert {(label, score, name) for label in ("My network", "Short features") for score in SCORES
            for name in SETS[1:]} <= found
    with h5py.File(repository / "results/my-method/models/digits/my-net/short/seed0.h5") as file:
        loss, accuracy = file["history/loss"][()], file["history/accuracy"][()]
    assert len(loss) == 3 and loss[2] < loss[0] and accuracy[2] > accuracy[0]
    run(shlex.split("uv run python -m workflow_scripts.export digits/my-net/short/seed0 "
                    "--configfile /my/work/method.yaml --out /my/work/bundle"), repository, work)
    path = work / "my_method.py"
    assert (work / "bundle" / "code" / "method" / "my_method.py").read_bytes() == path.read_bytes()
    before = path.read_text()
    after = {"train_network": 1, "extract_features": 1, "precompute_statistics": 0, "score_sets": 4, "score_network": 1,
             "compute_metrics": 1, "compare_scores": 1, "make_tables": 1, "draw_figures": 1, "write_manifest": 1,
             "make_report": 1}
    try:
        for old, new, jobs in (("from dataclasses", "# a comment\nfrom dataclasses", {}),
                               ('"""Weight of the penalty."""', '"""The weight."""', {}),
                               (".sum(1).mean()", ".sum(1).mean() / 2", after)):
            assert old in before
            path.write_text(before.replace(old, new))
            assert would_run(repository, "--configfile", str(work / "method.yaml")) == +Counter(jobs)
    finally:
        path.write_text(before)


def test_a_bundle_gives_another_lab_equal_scores(finished):
    repository, work = finished
    for words in commands(4):
        run(words, repository, work)
    ours = "my-data/scores/digits/my-net/my-weights/seed0"
    theirs = "lab/scores/digits/my-net-bundle/my-weights-seed0/seed0"
    for score in SCORES:
        known, found = scores(repository, ours, score), scores(repository, theirs, score)
        assert found.keys() == {"digits.test", "my_grey.test"}
        for name, values in found.items():
            assert np.array_equal(values, known[name]), (score, name)
        with np.load(work / "lab" / "bundle" / "scores" / f"{score}.npz", allow_pickle=False) as file:
            assert set(file.files) == set(SETS)
            assert all(np.array_equal(file[name], known[f"{name}.test"]) for name in SETS)
    bundle = work / "lab" / "bundle"
    text = "".join(p.read_text() for p in bundle.rglob("*") if p.suffix in (".md", ".json", ".yaml", ".txt"))
    assert str(work) not in text and str(repository) not in text
    metrics = list(csv.DictReader((bundle / "metrics.csv").open()))
    auroc = next(float(r["value"]) for r in metrics if (r["score"], r["dataset"], r["metric"]) == (
        "spread", "my_photos", "auroc"))
    assert f"| Spread of the logits | My photographs | near | {100 * auroc:.2f} |" in (bundle / "MODEL.md").read_text()
    assert "CC BY 4.0" in (bundle / "DATA.md").read_text()
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {"weights.safetensors", "code/network/net.py", "code/network/blocks.py", "code/spread/my_score.py",
            "lists/digits.train.txt", "entry.yaml", "CITATION.cff"} < manifest["files"].keys()
    assert manifest["licence"] == "CC BY 4.0" and manifest["packages"]["torch"]


def test_a_bundle_that_was_changed_is_refused(finished, tmp_path, monkeypatch, capsys):
    repository, work = finished
    monkeypatch.chdir(repository)
    out = tmp_path / "bundle.zip"
    words = [str(out) if word.endswith("bundle") else word.replace("/my/work", str(work)) for word in commands(4)[0]]
    export.main(words[5:])
    export.main(["--check", str(out)])
    assert "files, all as the manifest says" in capsys.readouterr().out
    first = out.read_bytes()
    with pytest.raises(SystemExit):
        export.main(words[5:])
    assert "exists already; remove it, or give another name" in capsys.readouterr().err
    out.unlink()
    export.main(words[5:])
    assert out.read_bytes() == first
    unpack.extract(out, tmp_path / "unpacked")
    capsys.readouterr()
    for change, message in ((lambda path: path.write_text("score\n"), "first metrics.csv (another file)"),
                            (lambda path: path.unlink(), "first metrics.csv (missing)")):
        change(tmp_path / "unpacked" / "bundle" / "metrics.csv")
        with pytest.raises(SystemExit) as error:
            export.main(["--check", str(tmp_path / "unpacked" / "bundle")])
        said = capsys.readouterr().err
        assert error.value.code == 1 and message in said and said.count("\n") == 1


@pytest.mark.parametrize(("words", "message"), [
    (["digits/my-net/my-weight/seed0"], "did you mean 'digits/my-net/my-weights/seed0'"),
    (["digits/my-net/my-weights/seed0"], "is not there; run the workflow first"),
    (["--check", "nothing.zip"], "nothing.zip: no whole bundle"),
])
def test_what_cannot_be_exported(tmp_path, monkeypatch, capsys, words, message):
    work = user(tmp_path / "work")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        export.main([*words, "--configfile", str(work / "data.yaml"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert error.value.code == 1 and message in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"work"}


def test_beside_the_papers(default_run, tmp_path):
    """The first example in a checkout where the default run has finished: its networks are not touched."""
    repository, work = checkout.copy(tmp_path / "repository"), user(tmp_path / "work")
    checkout.take_over(with_terminal(default_run), repository)
    words = commands(1)[0]
    jobs = would_run(repository, *(word.replace("/my/work", str(work)) for word in words[5:]))
    assert jobs["import_weights"] == jobs["import_scores"] == jobs["extract_features"] == 1, jobs
    assert "train_network" not in jobs and "prepare_dataset" not in jobs and jobs["score_sets"] == 4
    assert jobs["make_tables"] == jobs["draw_figures"] == 1 and "draw_picture" not in jobs  # of that paper alone
    run(words, repository, work)
    rows = list(csv.DictReader((repository / "results" / "small" / "tables" / "posthoc.csv").open()))
    auroc = {(r["label"], r["score"], r["dataset"]): float(r["mean"]) for r in rows if r["metric"] == "auroc"
             and r["mean"]}
    assert ("Cross-entropy", "energy", "faces") in auroc and ("My network", "spread", "faces") in auroc
    with np.load(work / "theirs.npz") as file:
        expected = ood_metrics(-file["id"], -file["ood"])["auroc"]
    assert auroc["Their detector [imported]", "score", "faces"] == expected > 0.5
    page = (repository / "results" / "small" / "report.html").read_text()
    assert "My network" in page and "Their detector [imported]" in page


def with_terminal(finished: Path) -> Path:
    """A finished checkout in the form that ``take_over`` reads."""
    kept = finished / ".snakemake" / "terminal.txt"
    if not kept.is_file():
        kept.write_text((finished / "terminal.txt").read_text())
    return finished
