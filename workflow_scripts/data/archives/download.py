"""Fetch one raw file: several addresses in order, resumed, verified, finished atomically.

The part that has arrived lies beside the target as ``NAME.partial`` (``NAME.partial.json`` says from where) and is
continued by HTTP range; it becomes the target only when size and checksum hold. Proxies and certificates are taken from
the environment (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE). Local files are used in place through a symbolic link.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import requests
import urllib3
from filelock import Timeout
from tqdm import tqdm

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic, put_in_place
from workflow_scripts.core.locks import file_lock
from workflow_scripts.core.mistaken import is_html, page_title
from workflow_scripts.data.archives import drive
from workflow_scripts.data.archives.checksums import Expected

BLOCK = 2**16  # bytes per read: no more than that is lost when a connection breaks
RESERVE = 2**24  # bytes of the disk that a download leaves free
PROGRESS = 2**24  # an attempt that brought so many bytes does not count against the retries
LONGEST_PAUSE = 60.0  # s between attempts
EVERY = 10.0  # s between lines of progress
_BUSY = {408, 425, 429, 500, 502, 503, 504}  # statuses that may pass
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Failure(Exception):
    """Why an address did not give the file; ``again``: another attempt may; ``wait``: seconds the server asks for."""

    def __init__(self, reason: str, again: bool = False, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.wait = wait


@dataclass(frozen=True)
class _Job:
    what: str
    target: Path
    expected: Expected
    timeout: float
    retries: int
    backoff: float
    progress: bool

    @property
    def partial(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial")

    @property
    def origin(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial.json")

    def arrived(self) -> int:
        """Bytes of the part that is there."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def drop(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)


def download(urls: Sequence[str], target: str | os.PathLike, *, what: str = "", size: int | None = None,
             checksum: Sequence[str] = (), lock: str | os.PathLike | None = None, timeout: float = 30.0,
             retries: int = 4, backoff: float = 1.0, offline: bool = False, progress: bool = True) -> Path:
    """Make ``target`` the wanted file and return it; a file that is there is verified, not fetched.

    Args:
        urls: addresses in order of preference: http(s):// and file:// URLs, paths of this machine, ``gdrive:ID``.
        target: the file to make. A local source is not copied: the target becomes a symbolic link to it.
        what: whom it is for, e.g. ``dataset 'svhn'``; opens every message.
        size: bytes, where known.
        checksum: published checksums (``md5:...``, ``sha256:...``, ``git:...``), all verified.
        lock: lock file for files without a published checksum, see :mod:`workflow_scripts.data.archives.checksums`.
        timeout: seconds without a byte after which a connection counts as stalled.
        retries: further attempts per address after a passing fault; one that brought 16 MiB is not counted.
        backoff: seconds before the first further attempt; doubled each time, at most a minute.
        offline: use only what is on this machine.
        progress: report on stderr: a bar on a terminal, else a line each ten seconds.

    Raises:
        OODError: no address gave the file (each with its reason), a wrong file at ``target``, a full disk, or
            ``offline`` and the file is not there; says what to place where.
    """
    target = Path(target)
    expected = Expected(target.name, size, tuple(checksum), None if lock is None else Path(lock))
    job = _Job(what or target.name, target, expected, timeout, retries, backoff, progress)
    if target.exists():  # before anything is written: the folder may be read-only
        return _settled(job)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with _alone(job):
        if target.exists():
            return _settled(job)
        with requests.Session() as session:
            for url in urls:
                try:
                    path = local_path(url)
                    if path is not None:
                        _use_in_place(path, job)
                    elif offline:
                        continue
                    else:
                        _fetch(session, url, job)
                    expected.record(target, url)
                    return target
                except _Failure as failure:
                    failures.append(f"\n  {url}: {failure}")
    facts = f" ({expected.described()})" if expected.described() else ""
    reasons = "".join(failures)
    if offline:
        raise OODError(f"{job.what}: offline: true, so nothing is downloaded. Place this file by hand:"
                       f"\n  {target}{facts}, from {' or '.join(urls)}{f'{chr(10)}Tried:{reasons}' if reasons else ''}")
    kept = f" ({job.arrived():,} bytes are kept and continued)" if job.arrived() else ""
    raise OODError(f"{job.what}: {target.name} could not be fetched:{reasons}\nRun again{kept}, check the network and "
                   f"the proxy (HTTPS_PROXY), add an address, or place the file by hand at {target}{facts}")


def local_path(url: str) -> Path | None:
    """The path an address names on this machine; None for addresses on the network."""
    if url.startswith("file://"):
        return Path(url2pathname(urlparse(url).path))
    return None if "://" in url or url.startswith("gdrive:") else Path(url).expanduser()


@contextmanager
def _alone(job: _Job) -> Iterator[None]:
    """One process at a time works on the target; others wait and then find it there."""
    lock = file_lock(job.target.with_name(f".{job.target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{job.target.name}: another process fetches it; waiting", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _settled(job: _Job) -> Path:
    """The target that is there, verified (and recorded where nothing was known)."""
    problem = job.expected.problem(job.target) if job.target.is_file() else "it is a folder"
    if problem:
        raise OODError(f"{job.what}: {job.target}: {problem}. Move it away and run again to fetch it, or put the right "
                       "file there")
    job.expected.record(job.target, job.target.resolve().as_uri())
    return job.target


def _use_in_place(path: Path, job: _Job) -> None:
    if not path.is_file():
        raise _Failure("no such file" if not path.exists() else "a folder, not a file")
    problem = job.expected.problem(path)
    if problem:
        raise _Failure(problem)
    with atomic(job.target) as partial:
        try:
            partial.symlink_to(path.resolve())
        except OSError:  # a file system without links
            shutil.copyfile(path, partial)


def _fetch(session: requests.Session, url: str, job: _Job) -> None:
    """All attempts at one address. Raises _Failure."""
    failed = 0
    while True:
        before = job.arrived()
        try:
            resumed = _transfer(session, drive.direct(url), job)
            problem = job.expected.problem(job.partial)
            if not problem:
                break
            job.drop()  # a continued part may be from another version of the file: once more from the start
            raise _Failure(problem, again=resumed)
        except _Failure as failure:
            failed = 1 if job.arrived() - before >= PROGRESS else failed + 1
            if not failure.again or failed > job.retries:
                raise
            pause = min(max(failure.wait, job.backoff * 2 ** (failed - 1)), LONGEST_PAUSE)
            print(f"{job.target.name}: {failure}; attempt {failed} of {job.retries} to continue in {pause:.3g} s",
                  file=sys.stderr)
            time.sleep(pause)
    put_in_place(job.partial, job.target)
    job.origin.unlink(missing_ok=True)


def _transfer(session: requests.Session, url: str, job: _Job) -> bool:
    """One attempt: bring the part up to the whole file.

    Returns:
        Whether it continued an earlier part.

    Raises:
        _Failure: the address is no good, or the connection broke.
        OODError: the disk is full.
    """
    offset, headers = _resume(url, job)
    if offset and offset == job.expected.size:
        return True  # whole, but not yet verified
    try:
        response, first, blocks = _open(session, url, headers, job.timeout)
        with response:
            answered = response.headers.get("Content-Range", "")
            if response.status_code == 416 and answered.endswith(f"/{offset}"):
                return True  # nothing after the part: it is whole
            if response.status_code == 200:
                offset = 0
            elif not answered.startswith(f"bytes {offset}-"):
                job.drop()
                raise _Failure("the part that is here does not fit the file there", again=True)
            _write(response, first, blocks, offset, url, job)
            return offset > 0
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _explained(error, job.timeout) from None


def _resume(url: str, job: _Job) -> tuple[int, dict[str, str]]:
    """Where to continue, and the request's headers. A part is continued only if a mixture would be noticed."""
    headers = {"Accept-Encoding": "identity"}
    offset = job.arrived()
    if not offset:
        return 0, headers
    try:
        origin = json.loads(job.origin.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        origin = {}
    validator = origin.get("validator") if origin.get("url") == url else None
    if not (validator or job.expected.known) or offset > (job.expected.size or offset):
        job.drop()
        return 0, headers
    return offset, headers | {"Range": f"bytes={offset}-"} | ({"If-Range": validator} if validator else {})


def _open(session: requests.Session, url: str, headers: dict[str, str],
          timeout: float) -> tuple[requests.Response, bytes, Iterator[bytes]]:
    """The open response (status 200, 206 or 416), its first block and the others, as they are sent."""
    for confirmed in (False, True):
        response = session.get(url, headers=headers, stream=True, timeout=(min(timeout, 10.0), timeout))
        status = response.status_code
        if status not in (200, 206, 416):
            response.close()
            wait = response.headers.get("Retry-After", "")
            raise _Failure(f"HTTP status {status} {response.reason}", again=status in _BUSY,
                           wait=float(wait) if wait.isdecimal() else 0.0)
        blocks = response.raw.stream(BLOCK, decode_content=False)  # undecoded: a .tar.gz stays compressed
        first = next(blocks, b"")
        if status != 200 or not is_html(first):
            return response, first, blocks
        page = first + b"".join(islice(blocks, 3))
        response.close()
        if confirmed or not (url := drive.confirmation(page, response.url)):
            raise _Failure(f"an HTML page instead of the file{page_title(page)}")
    raise AssertionError("unreachable")


def _write(response: requests.Response, first: bytes, blocks: Iterator[bytes], offset: int, url: str,
           job: _Job) -> None:
    """Append to the part from ``offset``. Raises as :func:`_transfer`."""
    length = response.headers.get("Content-Length", "")
    total = offset + int(length) if length.isdecimal() else None
    if total is not None and job.expected.size not in (None, total):
        raise _Failure(f"{job.expected.size:,} bytes expected, {total:,} offered")
    _check_space(job, (total or job.expected.size or 0) - offset)
    if not offset:
        etag, date = response.headers.get("ETag", ""), response.headers.get("Last-Modified")
        job.drop()
        job.origin.write_text(json.dumps({"url": url, "validator": etag if etag.startswith('"') else date}))
    arrived = looked = offset
    with open(job.partial, "ab", buffering=0) as file, _Progress(job, offset, total) as report:
        while first:
            try:
                file.write(first)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise OODError(f"{job.what}: no space left on the disk of {job.target.parent} after {arrived:,} bytes "
                               f"of {job.target.name}; free some and run again, what arrived is continued") from None
            arrived += len(first)
            report(arrived)
            if total is None and arrived - looked >= PROGRESS:  # no length given: it may never end
                looked = arrived
                _check_space(job, 1)
            if arrived > (job.expected.size or arrived):
                job.drop()
                raise _Failure(f"{job.expected.size:,} bytes expected, more offered")
            first = next(blocks, b"")
        os.fsync(file.fileno())
    if total is not None and arrived != total:
        raise _Failure(f"the connection ended {total - arrived:,} bytes early", again=True)


def _check_space(job: _Job, wanted: int) -> None:
    free = shutil.disk_usage(job.target.parent).free
    if wanted and wanted + RESERVE > free:
        raise OODError(f"{job.what}: {job.target.name} needs {wanted + RESERVE:,} more bytes on the disk of "
                       f"{job.target.parent}, {free:,} are free; free some, or put the archives on another disk")


def _explained(error: Exception, timeout: float) -> _Failure:
    """A library's exception in few words."""
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ReadTimeout |
                  urllib3.exceptions.ReadTimeoutError):
        return _Failure(f"stalled: no byte for {timeout:g} s", again=True)
    cause: Any = error
    for _ in range(4):  # requests wraps urllib3, which wraps the system's error
        inner = getattr(cause, "reason", None) or next((a for a in cause.args if isinstance(a, Exception)), None)
        if not isinstance(inner, Exception):
            break
        cause = inner
    if isinstance(cause, urllib3.exceptions.IncompleteRead):
        return _Failure(f"the connection ended {cause.expected:,} bytes early", again=True)
    final = (requests.exceptions.SSLError, requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
             requests.exceptions.TooManyRedirects, requests.exceptions.InvalidProxyURL)
    return _Failure(f"{type(cause).__name__}: {str(cause)[:200]}", again=not isinstance(error, final))


class _Progress:
    """Reports on stderr: a bar on a terminal, else a line each ten seconds."""

    def __init__(self, job: _Job, start: int, total: int | None) -> None:
        self.name, self.total, self.start = job.target.name, total, start
        self.began = self.last = time.monotonic()
        self.bar = None
        self.quiet = not job.progress
        if job.progress and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=self.name)

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, arrived: int) -> None:
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(arrived - self.bar.n)
        elif not self.quiet and now - self.last >= EVERY:
            self.last = now
            rate = (arrived - self.start) / max(now - self.began, 1e-9)
            of = f" of {self.total / 1e6:,.1f} MB ({arrived / self.total:.0%})" if self.total else " MB"
            print(f"{self.name}: {arrived / 1e6:,.1f}{of}, {rate / 1e6:,.1f} MB/s", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
