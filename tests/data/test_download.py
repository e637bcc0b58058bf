"""Downloads against a server on this machine that does what bad servers do."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.web_server import (
    BODY,
    GIT,
    MD5,
    PAGE,
    SHA256,
    Handler,
    Server,
    chunked,
    fetcher,
    fixed,
    good,
    in_turn,
    left,
    serving,
)
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.archives import download as module
from workflow_scripts.data.archives import drive
from workflow_scripts.data.archives.download import download

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture
def fetch(tmp_path, monkeypatch) -> Callable[..., Path]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return fetcher(tmp_path)


# ---- good servers ----------------------------------------------------------------------------------------------------

def test_a_file_arrives_whole(server, fetch):
    path = fetch(server.url("/x", good()), size=len(BODY), checksum=[MD5, SHA256])
    assert path.read_bytes() == BODY
    assert left(path.parent) == ["x.tar"]


def test_a_file_that_is_there_is_verified_not_fetched(server, fetch):
    url = server.url("/x", good())
    path = fetch(url, checksum=[MD5])
    assert fetch(url, checksum=[MD5]) == path
    assert len(server.asked) == 1
    path.write_bytes(BODY[:-1])
    with pytest.raises(OODError, match=rf"x.tar: {MD5.replace(':', ' ')} expected, found [0-9a-f]{{32}}. Move it away"):
        fetch(url, checksum=[MD5])
    assert path.read_bytes() == BODY[:-1]  # a user's file is never deleted


def test_redirects_are_followed(server, fetch):
    server.url("/final", good())
    assert fetch(server.url("/x", fixed(302, b"", Location="/final"))).read_bytes() == BODY


def test_content_is_not_decoded(server, fetch):
    """Some servers label a .tar.gz as gzip-encoded; it must reach the disk as it is."""
    path = fetch(server.url("/x", fixed(200, b"\x1f\x8b\x08 not to be touched", Content_Encoding="gzip")))
    assert path.read_bytes() == b"\x1f\x8b\x08 not to be touched"


# ---- bad servers -----------------------------------------------------------------------------------------------------

def test_404_then_a_good_mirror(server, fetch):
    path = fetch(server.url("/bad", fixed(404, b"no")), server.url("/x", good()), checksum=[MD5])
    assert path.read_bytes() == BODY
    assert [path for path, _, _ in server.asked] == ["/bad", "/x"]  # a 404 is not tried again


def test_all_mirrors_bad_names_each_and_what_to_do(server, fetch):
    bad, page = server.url("/bad", fixed(404, b"no")), server.url("/page", fixed(200, PAGE))
    gone = "http://127.0.0.1:9/x"  # nobody listens on the discard port
    with pytest.raises(OODError) as error:
        fetch(bad, page, gone, "/nowhere/x.tar", size=len(BODY), checksum=[MD5], retries=0)
    message = str(error.value)
    assert message.startswith("dataset 'x': x.tar could not be fetched:")
    assert f"\n  {bad}: HTTP status 404 Not Found" in message
    assert f"\n  {page}: an HTML page instead of the file ('Quota exceeded')" in message
    assert f"\n  {gone}: ConnectionRefusedError" in message.replace("NewConnectionError", "ConnectionRefusedError")
    assert "\n  /nowhere/x.tar: no such file" in message
    assert f"archives/x.tar (512,000 bytes, {MD5})" in message
    assert "HTTPS_PROXY" in message


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_faults_are_tried_again(server, fetch, status):
    busy = fixed(status, b"", Retry_After="0")
    assert fetch(server.url("/x", in_turn(busy, busy, good()))).read_bytes() == BODY
    assert len(server.asked) == 3


def test_attempts_are_bounded_and_paused(server, fetch, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    with pytest.raises(OODError, match="HTTP status 503"):
        fetch(server.url("/x", fixed(503, b"")), retries=4, backoff=8.0)
    assert len(server.asked) == 5
    assert pauses == [8.0, 16.0, 32.0, 60.0]


def test_the_pause_a_server_asks_for(server, fetch, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    fetch(server.url("/x", in_turn(fixed(429, b"", Retry_After="7"), fixed(503, b"", Retry_After="999"), good())))
    assert pauses == [7.0, 60.0]


def test_truncated_body_is_continued(server, fetch):
    """The connection breaks after 200,000 bytes: only the rest is asked for."""
    broken = fixed(200, BODY[:200_000], len(BODY), ETag='"1"')
    path = fetch(server.url("/x", in_turn(broken, good())), checksum=[MD5])
    assert path.read_bytes() == BODY
    assert server.asked == [["/x", None, 200_000], ["/x", "bytes=200000-", len(BODY) - 200_000]]


def test_truncated_without_a_checksum_is_noticed(server, fetch):
    with pytest.raises(OODError, match="the connection ended 511,000 bytes early"):
        fetch(server.url("/x", fixed(200, BODY[:1000], len(BODY))))
    assert len(server.asked) == 3


def test_interrupted_run_is_continued_by_the_next(server, fetch, tmp_path):
    url = server.url("/x", in_turn(fixed(200, BODY[:300_000], len(BODY), ETag='"1"'), good()))
    with pytest.raises(OODError, match=r"Run again \(300,000 bytes are kept and continued\)"):
        fetch(url, retries=0)
    assert left(tmp_path / "archives") == ["x.tar.partial", "x.tar.partial.json"]
    assert fetch(url).read_bytes() == BODY
    assert server.asked[1] == ["/x", "bytes=300000-", len(BODY) - 300_000]
    assert left(tmp_path / "archives") == ["x.tar"]


def test_a_killed_process_leaves_a_part_to_continue(server, tmp_path):
    killed = threading.Event()

    def half(request: Handler) -> None:
        request.answer(200, BODY[:300_000], len(BODY), ETag='"1"')
        killed.wait(120)

    url, target = server.url("/x", in_turn(half, good())), tmp_path / "x.tar"
    code = f"from workflow_scripts.data.archives.download import download; download([{url!r}], {str(target)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "NO_PROXY": "127.0.0.1"})
    partial, end = tmp_path / "x.tar.partial", time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size >= 250_000) and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    killed.set()
    kept = partial.stat().st_size
    assert kept >= 250_000 and not target.exists()
    assert download([url], target, timeout=60).read_bytes() == BODY
    assert server.asked[1] == ["/x", f"bytes={kept}-", len(BODY) - kept]


def test_another_version_on_the_server_starts_again(server, fetch):
    """If-Range: the part of the old version is not continued with the new one, though no checksum is known."""
    old = fixed(200, b"old" * 1000, len(BODY), ETag='"0"')
    assert fetch(server.url("/x", in_turn(old, good()))).read_bytes() == BODY


def test_server_without_ranges_starts_again(server, fetch):
    whole = fixed(200, BODY)
    url = server.url("/x", in_turn(fixed(200, BODY[:200_000], len(BODY)), whole))
    path = fetch(url, checksum=[MD5])
    assert path.read_bytes() == BODY
    assert server.asked[1] == ["/x", "bytes=200000-", len(BODY)]


def test_server_that_answers_another_range(server, fetch):
    wrong = fixed(206, BODY[5:], Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}")
    url = server.url("/x", in_turn(fixed(200, BODY[:200_000], len(BODY), ETag='"1"'), wrong, good()))
    assert fetch(url).read_bytes() == BODY  # noticed without a checksum


def test_a_part_of_another_mirror_needs_a_checksum(server, fetch):
    def mirrors(name: str) -> list[str]:
        broken = fixed(200, BODY[:200_000], len(BODY), ETag='"a"')
        return [server.url(f"/{name}1", broken), server.url(f"/{name}2", good(etag='"b"'))]

    path = fetch(*mirrors("known"), checksum=[SHA256], retries=0)
    assert path.read_bytes() == BODY
    assert server.asked[-1] == ["/known2", "bytes=200000-", len(BODY) - 200_000]
    path.unlink()
    assert fetch(*mirrors("unknown"), retries=0).read_bytes() == BODY
    assert server.asked[-1] == ["/unknown2", None, len(BODY)]


def test_a_whole_part_is_only_verified(server, fetch, tmp_path):
    """Killed between the last byte and the rename: nothing is transferred again."""
    url = server.url("/x", good())
    partial = tmp_path / "archives" / "x.tar.partial"
    for options in ({"size": len(BODY)}, {}):  # known size: no request; else the server answers 416
        partial.parent.mkdir(exist_ok=True)
        partial.write_bytes(BODY)
        fetch(url, checksum=[MD5], **options).unlink()
    assert server.asked == [["/x", f"bytes={len(BODY)}-", 0]]


def test_the_id_of_a_git_blob_is_a_checksum(server, fetch):
    path = fetch(server.url("/bad", good(BODY[::-1])), server.url("/x", good()), checksum=[GIT])
    assert path.read_bytes() == BODY
    with pytest.raises(OODError, match="checksum 'git:12' is not of the form .* or git:<40 hex digits>"):
        fetch(server.url("/x", good()), checksum=["git:12"])


def test_wrong_checksum_then_a_good_mirror(server, fetch):
    path = fetch(server.url("/bad", good(BODY[::-1])), server.url("/x", good()), checksum=[MD5])
    assert path.read_bytes() == BODY


def test_wrong_checksum_everywhere(server, fetch, tmp_path):
    wrong = hashlib.sha256(BODY[::-1]).hexdigest()
    with pytest.raises(OODError, match=f"/x: sha256 {SHA256[7:]} expected, found {wrong}"):
        fetch(server.url("/x", good(BODY[::-1])), checksum=[SHA256])
    assert len(server.asked) == 1  # the same address would give the same
    assert left(tmp_path / "archives") == []


def test_a_damaged_part_is_fetched_again_from_the_start(server, fetch, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "x.tar.partial").write_bytes(b"rubbish")
    assert fetch(server.url("/x", good()), checksum=[MD5]).read_bytes() == BODY
    assert [asked[1] for asked in server.asked] == ["bytes=7-", None]


def test_wrong_size_is_refused_before_it_is_fetched(server, fetch, tmp_path):
    with pytest.raises(OODError, match="511,999 bytes expected, 512,000 offered"):
        fetch(server.url("/x", good()), size=len(BODY) - 1)
    assert left(tmp_path / "archives") == []


def test_html_instead_of_an_archive(server, fetch, tmp_path):
    path = fetch(server.url("/page", fixed(200, PAGE, Content_Type="application/x-gzip")), server.url("/x", good()))
    assert path.read_bytes() == BODY
    for page in (PAGE, b"<html>", b"\xef\xbb\xbf<!doctype html>"):
        assert module.is_html(page)
    assert not any(module.is_html(start) for start in (b"", b"PK\3\4", b"\x1f\x8b", b"<htm", BODY[:100]))


def test_html_does_not_destroy_the_part(server, fetch, tmp_path):
    url = server.url("/x", in_turn(fixed(200, BODY[:200_000], len(BODY), ETag='"1"'), fixed(200, PAGE), good()))
    with pytest.raises(OODError, match="200,000 bytes are kept"):
        fetch(url)
    assert fetch(url).read_bytes() == BODY


def test_stalled_connection(server, fetch):
    over = threading.Event()

    def stall(request: Handler) -> None:
        request.answer(200, BODY[:200_000], len(BODY), ETag='"1"')
        over.wait(120)

    started = time.monotonic()
    path = fetch(server.url("/x", in_turn(stall, good())), timeout=1)
    assert path.read_bytes() == BODY
    assert time.monotonic() - started < 60  # it did not wait for the server
    with pytest.raises(OODError, match=r"stalled: no byte for 1 s"):
        download([server.url("/silent", lambda request: over.wait(120))], path.with_name("y"), timeout=1, retries=0)
    over.set()


def test_progress_forgives_earlier_faults(server, fetch, monkeypatch):
    """With one retry, a connection that breaks nine times still gets there: each attempt brought enough."""
    monkeypatch.setattr(module, "PROGRESS", 40_000)

    def breaks(request: Handler) -> None:
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        part = BODY[start:start + 60_000]
        status, headers = (206, {"Content_Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}) if start else (200, {})
        request.answer(status, part, len(BODY) - start, ETag='"1"', **headers)

    assert fetch(server.url("/x", breaks), retries=1).read_bytes() == BODY
    assert len(server.asked) == 9
    assert sum(sent for _, _, sent in server.asked) == len(BODY)


# ---- the disk --------------------------------------------------------------------------------------------------------

def test_disk_too_small(server, fetch, monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**9, 0, module.RESERVE + len(BODY) - 1))
    with pytest.raises(OODError, match=r"x.tar needs 17,289,216 more bytes on the disk of .*archives, 17,289,215 are"):
        fetch(server.url("/x", good()), server.url("/y", good()))
    assert len(server.asked) == 1  # another mirror would not help
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**9, 0, module.RESERVE + len(BODY)))
    assert fetch(server.url("/x", good())).read_bytes() == BODY


def test_answer_without_a_length(server, fetch, monkeypatch, tmp_path):
    path = fetch(server.url("/x", chunked(BODY[:1000], BODY[1000:])), checksum=[MD5])
    assert path.read_bytes() == BODY
    path.unlink()
    with pytest.raises(OODError, match="1,000 bytes expected, more offered"):
        fetch(server.url("/x", chunked(BODY)), size=1000)
    assert left(tmp_path / "archives") == []
    monkeypatch.setattr(module, "PROGRESS", 100_000)
    monkeypatch.setattr(module, "RESERVE", 10**18)  # more than any disk has
    with pytest.raises(OODError, match="more bytes on the disk"):
        fetch(server.url("/x", chunked(BODY)))
    assert (tmp_path / "archives" / "x.tar.partial").stat().st_size < len(BODY)


def test_disk_full_while_writing(server, fetch, monkeypatch, tmp_path):
    class Full(io.FileIO):
        """A file on a disk that takes 100,000 bytes."""

        def write(self, block: bytes) -> int:
            if self.tell() + len(block) > 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(block)

    with monkeypatch.context() as patched:
        patched.setattr(module, "open", lambda path, mode, buffering: Full(path, mode), raising=False)
        with pytest.raises(OODError, match=r"no space left on the disk of .*archives after 65,536 bytes of x.tar; "):
            fetch(server.url("/x", good()), server.url("/y", good()))
    assert (tmp_path / "archives" / "x.tar.partial").stat().st_size == 65_536
    assert fetch(server.url("/x", good())).read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=65536-"


def test_proxy_of_the_environment(server, fetch, monkeypatch):
    server.routes["http://files.example.org/x"] = good()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.http.server_port}")
    assert fetch("http://files.example.org/x").read_bytes() == BODY
    assert server.asked[0][0] == "http://files.example.org/x"


def test_two_processes_fetch_once(server, tmp_path):
    def slow(request: Handler) -> None:
        time.sleep(0.4)
        good()(request)

    url, found = server.url("/x", slow), []
    threads = [threading.Thread(target=lambda: found.append(download([url], tmp_path / "x").read_bytes()))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BODY] * 3
    assert len(server.asked) == 1


# ---- Google Drive ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("url", ["gdrive:1ab-C_d", "https://drive.google.com/file/d/1ab-C_d/view?usp=sharing"])
def test_drive_addresses(url):
    assert drive.direct(url) == "https://drive.usercontent.google.com/download?id=1ab-C_d&export=download&confirm=t"
    assert drive.direct("https://example.org/file/d/1") == "https://example.org/file/d/1"


def test_drive_asks_to_confirm_and_is_continued(server, fetch):
    form = (b'<!DOCTYPE html><html><form id="download-form" action="/go?x=1"><input type="hidden" name="id" value="7">'
            b'<input type="hidden" name="confirm" value="t"><input type="submit" value="Go"></form></html>')
    server.url("/go", in_turn(fixed(200, BODY[:200_000], len(BODY), ETag='"1"'), good()))
    assert fetch(server.url("/x", fixed(200, form))).read_bytes() == BODY
    assert [asked[:2] for asked in server.asked] == [
        ["/x", None], ["/go?id=7&confirm=t", None], ["/x", "bytes=200000-"], ["/go?id=7&confirm=t", "bytes=200000-"]]


def test_drive_form_to_another_host_is_not_followed():
    form = b'<form id="download-form" action="https://evil.example.org/"></form>'
    assert drive.confirmation(form, "https://drive.usercontent.google.com/download?id=1") == ""
    assert drive.confirmation(PAGE, "https://drive.usercontent.google.com/") == ""
