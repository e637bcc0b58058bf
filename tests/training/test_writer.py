"""One job at a time writes the files of a training."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from workflow_scripts.core.errors import OODError
from workflow_scripts.training import writer as module
from workflow_scripts.training.resume import Resume
from workflow_scripts.training.writer import DEAD, Writer

RUN = {"seed": 0}


def until(condition, seconds=120):
    """Wait for ``condition()``, however slow the machine is."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


@pytest.fixture
def said(monkeypatch):
    """The lines that the jobs print; capturing a stream loses some where threads write while it is read."""
    lines: list[str] = []
    monkeypatch.setattr(module, "print", lambda line, **_: lines.append(line), raising=False)
    return lines


def second(out, run=RUN, **options):
    """A job that wants to write ``out`` while another does: (thread, what it found out)."""
    seen: dict[str, bool] = {}

    def job():
        with Writer(out, run, **options) as writer:
            seen["finished"] = writer.finished

    thread = threading.Thread(target=job)
    thread.start()
    return thread, seen


def foreign(out, **more):
    """The sign of a writer on another machine, as one job would leave it."""
    path = out.with_name(f"{out.name}.writer")
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "job": "7", "token": "t", "run": "r"} | more))
    return path


@pytest.mark.parametrize(("run", "made", "finished"), [
    (RUN, True, True),  # the same run, done
    (RUN, False, False),  # it was stopped: go on from its progress
    ({"seed": 1}, True, False),  # another run's result is not ours
])
def test_a_second_job_waits_and_takes_the_result_of_the_same_run(run, made, finished, tmp_path, said):
    out = tmp_path / "models" / "seed0.pt"
    with Writer(out, RUN) as first:
        assert not first.finished
        thread, seen = second(out, run)
        until(lambda: said)
        assert thread.is_alive() and not seen
        if made:
            out.write_text("weights")
    thread.join(120)
    assert seen == {"finished": finished}
    assert said[0].startswith(f"{out} is being written by process ") and said[0].endswith("; waiting for it")
    assert [line for line in said[1:] if line.startswith(f"{out} was finished by process ")] == said[1:]
    assert len(said) == 1 + finished
    assert [path.name for path in out.parent.iterdir()] == (["seed0.pt"] if made else [])


def test_a_result_that_was_there_before_is_not_taken(tmp_path, said):
    out = tmp_path / "seed0.pt"
    out.write_text("of an earlier configuration")
    with Writer(out, RUN):
        thread, seen = second(out)
        until(lambda: said)
    thread.join(120)
    assert seen == {"finished": False}


def test_the_place_of_a_process_that_was_killed_is_taken_at_once(tmp_path, capsys):
    out = tmp_path / "seed0.pt"
    program = ("import time; from workflow_scripts.training.writer import Writer; "
               f"Writer({str(out)!r}, {RUN}).__enter__(); print('in', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", program],
                          stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"in\n"
        process.kill()
    begin = time.monotonic()
    with Writer(out, RUN) as writer:
        assert not writer.finished
    assert time.monotonic() - begin < DEAD / 2  # it did not wait
    said = capsys.readouterr().out
    assert f"process {process.pid} on " in said and "is gone; continuing in its place" in said


def test_one_on_another_machine_counts_as_dead_when_it_is_silent_and_not_before(tmp_path):
    out = tmp_path / "seed0.pt"
    path = foreign(out)
    thread, seen = second(out, dead=3.0)
    begin = time.monotonic()
    while time.monotonic() - begin < 4:  # signs of life for longer than that
        path.touch()
        time.sleep(0.1)
    assert not seen
    thread.join(120)
    assert seen == {"finished": False} and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "not JSON", "[]"])
def test_an_unreadable_sign_is_waited_for_and_then_taken_over(content, tmp_path):
    out = tmp_path / "seed0.pt"
    out.with_name("seed0.pt.writer").write_text(content)
    with Writer(out, RUN, dead=0.5) as writer:
        writer.check()


def test_a_writer_that_lost_its_place_writes_nothing_more(tmp_path):
    out = tmp_path / "seed0.pt"
    with Writer(out, RUN) as writer:
        resume = Resume(out, RUN, 0, check=writer.check)
        resume.save({"epoch": 1, "step": 0})
        kept = resume.path.read_bytes()
        foreign(out)
        with pytest.raises(OODError, match="now being written by job 7, process 1 on elsewhere, since this"):
            resume.save({"epoch": 2, "step": 0})
        assert resume.path.read_bytes() == kept
    assert out.with_name("seed0.pt.writer").exists()  # the other's


def test_signs_of_life_go_on_while_it_writes(tmp_path):
    out = tmp_path / "seed0.pt"
    with Writer(out, RUN, beat=0.05) as writer:
        before = writer.path.stat().st_mtime_ns
        until(lambda: writer.path.stat().st_mtime_ns > before)


@pytest.mark.parametrize("round", range(20))
def test_of_many_that_find_a_dead_writer_one_at_a_time_writes(round, tmp_path):
    """No bound on time: the dead one is a process of this machine that has ended, which all find at once."""
    out, inside, most = tmp_path / "seed0.pt", [], []
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    foreign(out, host=socket.gethostname(), pid=ended.pid)

    def job(number):
        with Writer(out, {"seed": number}, beat=0.001) as writer:
            inside.append(number)
            most.append(len(inside))
            writer.check()
            time.sleep(0.001)
            inside.remove(number)

    jobs = [threading.Thread(target=job, args=(number,)) for number in range(8)]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join(120)
    assert most == [1] * 8
    assert not list(tmp_path.iterdir())


KILLED = r"""
import os, random, signal, sys, time
from pathlib import Path
from workflow_scripts.training.writer import Writer
out, number = sys.argv[1], int(sys.argv[2])
for turn in range(5):
    with Writer(out, {"seed": number}, beat=0.001) as writer:
        with open(f"{out}.log", "a") as log:
            log.write(f"+{os.getpid()}\n")
            log.flush()
            time.sleep(0.002)
            writer.check()
            if turn == 3 and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            log.write(f"-{os.getpid()}\n")
            log.flush()
"""


def test_processes_that_are_killed_while_they_write_are_followed_one_at_a_time(tmp_path):
    out = tmp_path / "seed0.pt"
    jobs = [subprocess.Popen([sys.executable, "-c", KILLED, str(out), str(number)], stdout=subprocess.DEVNULL)
            for number in range(6)]
    while None in [job.poll() for job in jobs]:  # polling all reaps the killed ones, as a shell does
        time.sleep(0.01)
    assert [job.returncode for job in jobs] == [0, -signal.SIGKILL] * 3
    inside, turns = None, 0
    for line in Path(f"{out}.log").read_text().split():
        if line[0] == "+":
            turns += 1
            assert inside is None or inside in {job.pid for job in jobs if job.returncode}
            inside = int(line[1:])
        else:
            assert inside == int(line[1:])
            inside = None
    assert turns == 3 * 5 + 3 * 4
    with Writer(out, RUN):  # where the last one was killed
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["seed0.pt.log"]


def test_a_silent_writer_that_ends_after_all_leaves_its_follower_alone(tmp_path):
    out = tmp_path / "seed0.pt"
    silent = Writer(out, RUN, beat=1000)
    silent.__enter__()
    with Writer(out, {"seed": 1}, beat=0.01, dead=0.05) as follower:
        silent.__exit__()
        follower.check()
        with pytest.raises(OODError, match="now being written by"):
            silent.check()
    assert not list(tmp_path.iterdir())
