"""Every benchmark at a tiny size: both sides agree in value, a target is decided from the numbers."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from benchmarks import (
    common,
    features,
    growth,
    kernels,
    many_scores,
    memory,
    papers,
    protocol,
    roofline,
    scoring,
    training,
    workflow,
)
from benchmarks.common import Figure, Report
from benchmarks.networks import SMALL
from workflow_scripts.networks.batching import TRIED, batch_size

CPU = torch.device("cpu")


@pytest.fixture
def report():
    return Report("test", "torch")


@pytest.fixture(autouse=True)
def as_before():
    """Benchmarks ask for deterministic algorithms and for threads, as stages do."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.mark.parametrize(("value", "at_most", "reached"), [(1.3, False, True), (1.29, False, False), (1.3, True, True),
                                                           (1.31, True, False), (float("nan"), True, False)])
def test_a_target_is_decided_from_the_number(value, at_most, reached):
    figure = Figure("x", value, target=1.3, at_most=at_most)
    assert figure.reached is reached
    assert ("not reached" in figure.line()) is not reached


def test_turns_alternate_and_ratios_are_of_one_turn():
    order = []
    times = common.turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b", "b", "a", "a", "b"] and [len(t) for t in times.values()] == [2, 2]
    assert common.ratio({"a": [2.0, 30.0, 4.0], "b": [1.0, 10.0, 1.0]}, "a", "b") == 3.0


def test_figures_are_written(report, tmp_path):
    report.add(Figure("x", 2.0, target=1.0, n=3))
    written = json.loads(report.write(tmp_path).read_text())
    assert written["figures"][0]["reached"] is True and "cores" in written["machine"]


@pytest.mark.parametrize("name", list(SMALL)[:2])
def test_features_agree_with_the_plain_pass(report, name):
    found = features.measure(name, report, 48, 1, SMALL, sizes=(16, 32))
    assert 0 <= found["difference"] < features.RELATIVE
    chosen = report.figures[-1].value
    assert chosen in TRIED["cpu"]


def test_a_batch_size_is_the_one_asked_for_or_measured(capsys):
    network = SMALL["resnet18"](3).eval()
    example = torch.zeros(1, 3, 16, 16)
    assert batch_size(7, network, example) == 7 and batch_size(None, network, example) == 32
    assert not capsys.readouterr().out
    chosen = batch_size("auto", network, example)
    assert capsys.readouterr().out.startswith(f"batch size {chosen} (images/s: 16: ")


def test_twenty_scores_agree_with_pytorch_ood(report):
    pytest.importorskip("pytorch_ood")
    torch.use_deterministic_algorithms(False)
    assert len(scoring.SCORES) == 20
    scoring.compare(report, "tiny", 200, 40, 1)
    passes = next(figure for figure in report.figures if "one more score" in figure.name)
    assert passes.value == 0


def test_scores_that_disagree_are_refused():
    same = {("knn", "ood0"): 0.9}
    scoring.disagreeing(same, dict(same))
    with pytest.raises(ValueError, match="differ"):
        scoring.disagreeing(same, {("knn", "ood0"): 0.89})


def test_forward_passes_are_counted():
    with scoring.Counted() as counted:
        torch.nn.Linear(2, 2)(torch.zeros(1, 2))
    assert counted.passes == 1


@pytest.mark.parametrize("paper", papers.PAPERS, ids=lambda paper: paper.name.split(":")[0])
def test_both_sides_of_a_step_have_the_same_loss(paper):
    both = papers.sides(papers.tiny(paper), CPU, small=True, count=64)
    assert training.difference(both) < training.RELATIVE["float32"]
    with torch.no_grad():
        for parameter in both["plain"].network.parameters():
            parameter.mul_(1.5)
    assert training.difference(both) > training.RELATIVE["float32"]
    for side in both.values():
        before = next(side.network.parameters()).clone()
        side.run()
        assert not torch.equal(before, next(side.network.parameters()))


def test_a_step_in_bfloat16_has_nearly_the_same_loss():
    both = papers.sides(papers.tiny(papers.PAPERS[0]), CPU, small=True, count=64, precision="bfloat16")
    assert 1e-6 < training.difference(both) < training.RELATIVE["bfloat16"]
    both["ours"].run()


def test_the_roofline_counts_operations_and_bytes():
    a, b = torch.rand(4, 8), torch.rand(8, 16)
    with roofline.Counted(roofline.Peaks(1e3, 1e9)) as counted:
        (a @ b).t()
    assert counted.operations == 2 * 4 * 8 * 16 and counted.bytes == 4 * (32 + 128 + 64)
    assert counted.least == pytest.approx(1.024)  # bound by operations


def test_kernels_agree(report):
    kernels.distances(report, 1, 50)
    kernels.four_metrics(report, 1, 200)
    assert len(report.figures) == 5


def test_growth_of_small_sizes(report, tmp_path):
    found = growth.measure(report, {"classes": (5, 10), "seeds": (1, 2)}, 1)
    assert found["seeds"][2] > found["seeds"][1] > 0
    growth.picture(found, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").stat().st_size > 1000


def test_memory_of_a_bank(report):
    memory.bank([3000], 64, report, ("knn",))
    assert all(50 < figure.value < 1000 for figure in report.figures)


def test_overhead_from_logs_and_benchmark_files(report, tmp_path):
    log = tmp_path / ".snakemake" / "log" / "2026-01-02T030405.000000.snakemake.log"
    log.parent.mkdir(parents=True)
    log.write_text("Provided cores: 2\n10 of 10 steps (100%) done\n")
    results = tmp_path / "results"
    for name, inside in (("a", "6.00"), ("b", "2.00")):
        for kind, end, text in (("logs", "log", f"images\ndone in {inside} s\n"), ("benchmarks", "tsv", "s\n7.0\n")):
            path = results / kind / "scores" / f"{name}.{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    begun, _, cores = workflow.last_run(tmp_path)
    os.utime(log, (begun + 10, begun + 10))
    workflow.overhead(results, report, tmp_path)
    assert [round(figure.value, 3) for figure in report.figures] == [60.0, 30.0, 30.0, 10.0] and cores == 2
    assert report.figures[0].reached is False


def test_every_score_of_cached_features_is_timed(report):
    names, others = many_scores.cached_scores()
    assert len(names) >= 40 and {"odin", "gram", "fusion"} <= set(others)
    many_scores.measure(report, ["msp", "vim", "ctm"], 4, 4000, 20)
    (figure,) = report.figures
    assert set(figure.more) == {"class means", "msp", "vim", "ctm"} and figure.value > 0 and figure.target is None


def test_the_released_loop_and_the_stages_have_the_same_scores(tmp_path, monkeypatch):
    """On a small network: the formulas of the loop are those of the stages, so both sides do the same work."""
    import h5py
    import torch

    from workflow_scripts.networks import checkpoint
    from workflow_scripts.networks.architecture import Network
    from workflow_scripts.networks.load import build

    section = {"name": "densenet", "model": "densenet_bc", "options": {"depth": 10, "growth": 4}}
    monkeypatch.setattr(protocol, "SECTION", section)
    data = protocol.Data(tmp_path, 1000)
    torch.manual_seed(0)
    network = build(Network.of(**section), protocol.CLASSES).eval().requires_grad_(False)
    checkpoint.save(tmp_path / "network.pt", network, {
        "network": "densenet", "classes": [str(c) for c in range(protocol.CLASSES)], "seed": 0, "history": []})
    ours, theirs = protocol.Ours(data, tmp_path / "network.pt", True), protocol.Released(data, network, True)
    seen = theirs.run()
    ours.run()
    for name, parts in seen.items():
        with h5py.File(ours.folder / f"{name}.scores.h5") as file:
            found = file["svhn.test"][:]
        expected = parts["svhn.test"].double().numpy()
        assert abs(found - (np.log(expected) if name in ("msp", "odin") else expected)).max() < 1e-4, name
