"""Build an archive of encoded images (:mod:`workflow_scripts.data.archives.lmdb_store`) from a collection of files.

Worker processes look at the files ahead of one writer, which commits every ``COMMIT`` files, in order, and opens the
file anew for each commit. So each page depends on the images alone: the bytes of the file depend neither on the number
of workers nor on where a run was killed, and the unfinished ``.{name}.partial`` is continued. (After a power failure
delete it: what was committed may not have reached the disk.)
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import mmap
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from filelock import Timeout

from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import put_in_place
from workflow_scripts.core.locks import file_lock
from workflow_scripts.core.sources import printable
from workflow_scripts.data.archives.collection import Collection
from workflow_scripts.data.archives.lmdb_store import FORMAT, RECORDS, STATE, key

COMMIT = 256  # files per commit
PAGE = mmap.PAGESIZE  # bytes; LMDB takes the system's
_AHEAD = 4  # commits whose files are looked at ahead of the writer
_TASKS = 4  # tasks a commit's files are divided into
_SLACK = 256 * PAGE  # for branches and the list of free pages
Problems = list[tuple[int, str]]


def whole(head: bytes, tail: bytes) -> bool:
    """Whether a file begins and ends as a whole JPEG or PNG does. False: only decoding can tell."""
    if head.startswith(b"\xff\xd8\xff"):
        return tail.endswith(b"\xff\xd9")
    return head.startswith(b"\x89PNG\r\n\x1a\n") and tail.endswith(b"IEND\xaeB`\x82")


def problems(part: Collection, start: int) -> Problems:
    """Images that cannot be decoded: number (the part's first is ``start``) and what is wrong.

    What begins and ends as it should is not decoded.
    """
    found = []
    try:
        for i in range(len(part)):
            if whole(*part.ends(i)):
                continue
            from workflow_scripts.data.decoding import decode  # PIL, only for what looks odd
            try:
                decode(part.read(i))
            except ValueError as error:
                found.append((start + i, str(error)))
            except OODError as error:
                raise OODError(f"{part.path(i)}: {part.names[i]}: {error}") from None
    finally:
        part.close()
    return found


@dataclass
class _Progress:
    """What an unfinished file holds; written with each commit."""

    identity: str
    """Hash of what is packed."""
    done: int = 0
    """Files dealt with."""
    written: int = 0
    """Images written."""
    left_out: Problems = field(default_factory=list)
    """Files that cannot be decoded."""


def pack(collection: Collection, out: Path, definition: dict[str, Any], *, workers: int = 1, allow_corrupt: int = 0,
         commit: int = COMMIT) -> list[str]:
    """Write all images of a collection to ``out``, continuing what an earlier run left; whole or not at all.

    Memory: 0.5 KB per image for names and places, and the images of one commit.

    Args:
        definition: how the set was made, plain JSON.
        workers: processes that look at the files, beside this one, which writes; 0: this one does that as well.
        allow_corrupt: so many images that cannot be decoded are left out.
        commit: files per commit; another number gives another file of the same content.

    Returns:
        Notes for the user: files left out.

    Raises:
        OODError: more than ``allow_corrupt`` images that cannot be decoded (all are counted, the first ones named),
            too little space, another process at the same file, a file that changed meanwhile.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.partial")
    lock = file_lock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OODError(f"{out}: another process is packing it; wait for it, or end it and run again") from None
    try:
        progress = _resume(unfinished, _identity(collection, commit))
        _check_space(collection, progress.done, out)
        chunks = [range(start, min(start + commit, len(collection)))
                  for start in range(progress.done, len(collection), commit)]
        with _pool(workers) as pool:
            looked_at = zip(chunks, _looked_at(pool, collection, chunks), strict=True)
            sources = pool.submit(_sources, collection.part(range(0)))
            for chunk, bad in looked_at:
                progress.left_out += bad
                if len(progress.left_out) <= allow_corrupt:  # beyond that, only count on
                    _write(collection, chunk, {i for i, _ in bad}, progress, unfinished)
            _stop_if_corrupt(collection, progress.left_out, allow_corrupt)
            _finish(collection, progress, unfinished, {"definition": definition, "sources": sources.result()})
        with open(unfinished, "r+b") as file:
            file.truncate(_committed(unfinished))  # a killed run may have left more
            os.fsync(file.fileno())
        put_in_place(unfinished, out)
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        collection.close()
        lock.release()
    notes = [f"left out: {text}" for text in collection.left_out.lines()]
    if progress.left_out:
        named = "; ".join(f"{collection.names[i]} ({why})" for i, why in progress.left_out)
        notes.append(f"left out {len(progress.left_out)} image(s) that cannot be decoded: {named}")
    return notes


# ---- looking at the files --------------------------------------------------------------------------------------------

class _Here(Executor):
    """Does a task when it is given."""

    def submit(self, task: Any, /, *arguments: Any) -> Future:
        future: Future = Future()
        future.set_result(task(*arguments))
        return future


@contextmanager
def _pool(workers: int) -> Iterator[Executor]:
    """Fresh processes, not forks: what the caller has open or running is none of theirs."""
    if not workers:
        yield _Here()
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise OODError("a worker process ended before its work was done (out of memory?); run again, what is "
                           "written is kept") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _sources(nothing: Collection) -> dict[str, str]:
    return nothing.sources


def _looked_at(pool: Executor, collection: Collection, chunks: list[range]) -> Iterator[Problems]:
    """The problems of each chunk, in order. Workers are a few chunks ahead; until they have started we look here."""
    waiting: deque[list[Future]] = deque()
    todo = iter(chunks)
    started = pool.submit(int)
    for _ in chunks:
        if started.done():
            for chunk in itertools.islice(todo, max(0, _AHEAD - len(waiting))):
                step = -(-len(chunk) // _TASKS)
                parts = [chunk[k:k + step] for k in range(0, len(chunk), step)]
                waiting.append([pool.submit(problems, collection.part(part), part.start) for part in parts])
        if waiting:
            yield [problem for future in waiting.popleft() for problem in future.result()]
        else:
            chunk = next(todo)
            yield problems(collection.part(chunk), chunk.start)


def _stop_if_corrupt(collection: Collection, left_out: Sequence[tuple[int, str]], allowed: int) -> None:
    if len(left_out) > allowed:
        named = "; ".join(f"{collection.names[i]} ({why})" for i, why in left_out[:5])
        raise OODError(f"{len(left_out)} image(s) cannot be decoded: {named}{'; ...' if len(left_out) > 5 else ''}. "
                       f"Fetch {', '.join(str(p) for p in collection.paths[:3])} again, or set allow_corrupt: "
                       f"{len(left_out)} in the dataset's options to leave them out")


# ---- writing ---------------------------------------------------------------------------------------------------------

def _identity(collection: Collection, commit: int) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, commit, PAGE, list(collection.classes)]).encode())
    digest.update("\0".join(collection.names).encode("utf-8", "surrogateescape"))
    digest.update(collection.size.tobytes() + collection.labels.tobytes() + collection.place.tobytes())
    return digest.hexdigest()


def _resume(path: Path, identity: str) -> _Progress:
    """Where an unfinished file stands. One of something else, or none, gives way to an empty one."""
    with suppress(lmdb.Error, ValueError), _opened(path) as env, env.begin() as txn:
        state = json.loads(txn.get(STATE) or b"{}")
        if state.get("identity") == identity:
            return _Progress(identity, state["done"], state["written"], [tuple(item) for item in state["left_out"]])
    path.unlink(missing_ok=True)
    lmdb.open(str(path), subdir=False, lock=False, map_size=16 * PAGE).close()  # two header pages
    return _Progress(identity)


@contextmanager
def _opened(path: Path) -> Iterator[lmdb.Environment]:
    env = lmdb.open(str(path), subdir=False, lock=False, readonly=True, create=False)
    try:
        yield env
    finally:
        env.close()


def _pages(sizes: np.ndarray) -> int:
    """Bytes that records of these sizes need at most: their pages and their places in the leaves."""
    return int((-(-(sizes + 16) // PAGE) * PAGE).sum()) + 128 * len(sizes)


def _check_space(collection: Collection, done: int, out: Path) -> None:
    needed = _pages(collection.size[done:]) + _SLACK
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise OODError(f"{out}: up to {needed:,} bytes are needed and {free:,} are free; free some, or choose another "
                       "disk, and run again; what is written is kept")


@contextmanager
def _transaction(path: Path, room: int) -> Iterator[lmdb.Transaction]:
    """One commit, with ``room`` bytes to grow.

    Raises:
        OSError: no space left on the disk.
    """
    size = _committed(path) + -(-room // PAGE) * PAGE  # becomes part of the file: not what a killed run left behind
    env = lmdb.open(str(path), subdir=False, lock=False, map_size=size, sync=False, metasync=False)
    try:
        with env.begin(write=True) as txn:
            yield txn
    except lmdb.Error as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    finally:
        env.close()


def _committed(path: Path) -> int:
    """Bytes up to the last committed page."""
    with _opened(path) as env:
        return (env.info()["last_pgno"] + 1) * PAGE


def _write(collection: Collection, chunk: range, bad: set[int], progress: _Progress, path: Path) -> None:
    """One commit: the images of a chunk and the state after it."""
    after = _Progress(progress.identity, chunk.stop, progress.written + len(chunk) - len(bad), progress.left_out)
    state = json.dumps(asdict(after)).encode()
    with _transaction(path, _pages(collection.size[chunk.start:chunk.stop]) + len(state) + _SLACK) as txn:
        number = progress.written
        for i in chunk:
            if i not in bad:
                txn.put(key(number), collection.read(i), append=True)
                number += 1
        txn.put(STATE, state)
    progress.done, progress.written = after.done, after.written


def _finish(collection: Collection, progress: _Progress, path: Path, about: dict[str, Any]) -> None:
    """The last commit: labels, names and all other records in the place of the state."""
    kept = np.delete(np.arange(len(collection)), [i for i, _ in progress.left_out])
    about = {**about, "classes": list(collection.classes), "count": len(kept), "format": FORMAT,
             "corrupt": [[collection.names[i], why] for i, why in progress.left_out],
             "left_out": collection.left_out.records()}
    records = {name: json.dumps(value, sort_keys=True).encode() for name, value in about.items()} | {
        "labels": collection.labels[kept].astype("<i8").tobytes(),
        "names": printable("\0".join([collection.names[i] for i in kept.tolist()])).encode()}
    with _transaction(path, _pages(np.array([len(value) for value in records.values()])) + _SLACK) as txn:
        txn.delete(STATE)
        for name in RECORDS:
            txn.put(name.encode(), records[name], append=True)
