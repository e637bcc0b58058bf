"""What a run shows of itself: bars on a terminal, a line for each paper in a log, never an end of the run."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from tests.planning.test_progress import FAILED, make, mark, name, named, write
from workflow_scripts.core.digest import ROOT
from workflow_scripts.planning import dag, screen, setting
from workflow_scripts.planning.dag import Jobs
from workflow_scripts.planning.snapshot import Snapshot, stamp


@pytest.fixture(scope="module")
def jobs() -> Jobs:
    return dag.read(setting.read(ROOT / "config.yaml"), setting.words(ROOT / "config.yaml"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(snapshot: Snapshot) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(screen.bars(snapshot, "small"))
    return console.file.getvalue()


def test_a_bar_for_each_paper_with_epoch_and_time_left(tmp_path, jobs):
    for job in jobs.paper("dfb"):
        make(tmp_path, job, 3)
    running = named(jobs.page(), "models/digits/resnet-small/goe/seed0")
    mark(tmp_path, running, 81)
    write(tmp_path / running.log, "epoch 2/6  loss 1.0\nepoch 3/6  loss 0.9\n")
    write(tmp_path / ".snakemake/locks/0.output.lock", "")
    failed = named(jobs.page(), "models/digits/resnet-small/npos/seed1")
    write(tmp_path / ".snakemake/log/1.snakemake.log", FAILED.format(outputs=failed.outputs[0], log=failed.log))
    *lines, last = drawn(Snapshot(jobs, tmp_path)).splitlines()
    assert last == f"  failed: {failed.log}"
    done = len(jobs.paper("dfb"))
    assert lines[0].startswith(f"small: {done} of {len(jobs.page())} jobs done, 1 running, 1 failed")
    rows = {line.split()[0]: line for line in lines[1:-1]}
    assert list(rows) == [*jobs.plan.papers, "all"]
    assert rows["dfb"].split()[2:] == [f"{done}/{done}", "done"] and rows["goe"].rstrip().endswith("left")
    assert lines[-1].startswith(f"  {name(running)}  epoch 3/6, ") and lines[-1].endswith("2.0 min left")
    assert len(lines) < 24, "one screen"


def test_within_a_run_what_is_to_be_made_anew_is_not_done(tmp_path, jobs):
    paper = jobs.paper("dfb")
    for job in paper:
        make(tmp_path, job)
    due = {output: stamp(tmp_path / output) for job in paper[-3:] for output in job.outputs}
    assert [found.state for found in Snapshot(jobs, tmp_path, due).found.values()] == ["waiting"] * 3
    for output in paper[-3].outputs:
        (tmp_path / output).unlink()
        (tmp_path / output).write_text("made again")
    snapshot = Snapshot(jobs, tmp_path, due)
    assert sorted(found.state for found in snapshot.found.values()) == ["done", "waiting", "waiting"]
    assert [paper for paper, own in snapshot.papers.items() if own] == ["dfb"]


def test_a_log_gets_a_line_for_each_paper_that_is_done(tmp_path, jobs, monkeypatch):
    monkeypatch.setattr(screen, "PAUSE_IN_LOGS", 0.01)
    monkeypatch.setattr(screen, "SHARE", 0)
    looked, log = threading.Event(), io.StringIO()

    def look() -> Snapshot:
        snapshot = Snapshot(jobs, tmp_path)
        looked.set()
        return snapshot

    follower = screen.Follower(look, "small", log)
    follower.start()
    assert looked.wait(30)
    for job in jobs.paper("dfb"):
        make(tmp_path, job)
    follower.stop()
    first, *papers = log.getvalue().splitlines()
    total = f"{len(jobs.page())} jobs for {len(jobs.plan.papers)} papers"
    assert first == f"{total}; to see each with its command: snakemake --printshellcmds"
    assert [line.split(",")[0] for line in papers] == [f"dfb: {len(jobs.paper('dfb'))} jobs done"]
    assert "\x1b" not in log.getvalue()


def test_a_terminal_gets_bars_and_messages_above_them(tmp_path, jobs, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    looked, streams, terminal = threading.Event(), [], Terminal()

    def look() -> Snapshot:
        looked.set()
        return Snapshot(jobs, tmp_path)

    follower = screen.Follower(look, "small", terminal, streams.append)
    follower.start()
    assert looked.wait(30)
    streams[0].write("a warning of Snakemake\n")
    follower.stop()
    assert streams[1:] == [terminal], "given back"
    said = terminal.getvalue()
    assert "a warning of Snakemake" in said and "0/" in said and "━" in said and said.endswith("\x1b[?25h")


def test_what_goes_wrong_is_one_line_and_no_end_of_the_run():
    log = io.StringIO()

    def look() -> Snapshot:
        raise OSError("the disk is away")

    follower = screen.Follower(look, "small", log)
    follower.start()
    follower.stop()
    assert log.getvalue() == "progress is not shown (OSError: the disk is away); uv run ood progress shows it\n"


