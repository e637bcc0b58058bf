"""File systems without locks or renaming, full ones, files in use: made so by a library that is loaded first."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.checkout import HANGS, ROOT
from workflow_scripts.core import locks
from workflow_scripts.core.errors import OODError, stage
from workflow_scripts.core.files import not_to_blame
from workflow_scripts.core.locks import without_locks
from workflow_scripts.data.images.store import open_store

FAULTS = """
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static int fault(const char *name) { const char *text = getenv(name); if (text) errno = atoi(text); return text != 0; }
int flock(int file, int how) {
    if (fault("FAULT_FLOCK")) return -1;
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, how);
}
int rename(const char *old, const char *new) {
    if (fault("FAULT_RENAME")) return -1;
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(old, new);
}
int link(const char *old, const char *new) {
    if (fault("FAULT_LINK")) return -1;
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "link"))(old, new);
}
int fsync(int file) {
    if (fault("FAULT_FSYNC")) return -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}
static int late(const char *name) {  /* new files of the doctor, for so many seconds after the first look */
    static time_t first;
    const char *text = getenv("FAULT_LATE");
    if (!text || strncmp(name, ".doctor.", 8)) return 0;
    if (!first) first = time(0);
    return time(0) - first < atoi(text);
}
struct dirent64 *readdir64(DIR *folder) {
    struct dirent64 *found;
    do found = ((struct dirent64 *(*)(DIR *))dlsym(RTLD_NEXT, "readdir64"))(folder);
    while (found && late(found->d_name));
    return found;
}
struct dirent *readdir(DIR *folder) { return (struct dirent *)readdir64(folder); }
"""
WRITE = """
import sys, numpy as np
from workflow_scripts.data.images.store import load_store, write_store
from workflow_scripts.data.reading import Images, array_blocks
pixels = np.arange(4 * 48, dtype=np.uint8).reshape(4, 4, 4, 3)
images = Images(labels=np.zeros(4, int), names=list("abcd"), classes=("x",), sources={}, blocks=array_blocks(pixels, 2))
write_store(sys.argv[1], images, np.arange(4), ("x",), {"dataset": "d", "split": "test"}, lambda block: block)
assert (load_store(sys.argv[1]).images == pixels).all()
"""
READ = """
import sys
from concurrent.futures import ThreadPoolExecutor
from workflow_scripts.core.errors import OODError
from workflow_scripts.data.images.store import load_store
try:
    print(len(load_store(sys.argv[1]).labels), "images")
except OODError as error:
    print(error)
"""
LOCK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from workflow_scripts.core.locks import file_lock
from filelock import Timeout
path = Path(sys.argv[1])
with file_lock(path):
    try:
        file_lock(path).acquire(timeout=0)
    except Timeout:
        print("held")
with file_lock(path):
    print("free again")
"""
ATOMIC = """
import sys
from concurrent.futures import ThreadPoolExecutor
from workflow_scripts.core.errors import OODError
from workflow_scripts.core.files import atomic
try:
    with atomic(sys.argv[1]) as partial:
        partial.write_text("new")
except OODError as error:
    print(error)
"""
DOCTOR = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from workflow_scripts.planning import health
for finding in health.storage(Path(sys.argv[1])):
    print(finding.kind, finding.text)
"""


@pytest.fixture(scope="module")
def preload(tmp_path_factory) -> Path:
    """The library. Skipped where there is no C compiler for Linux."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler to make a faulty file system with")
    folder = tmp_path_factory.mktemp("preload")
    (folder / "faults.c").write_text(FAULTS)
    subprocess.run([compiler, "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", "faults.so", "faults.c", "-ldl"], cwd=folder,
                   check=True)
    return folder / "faults.so"


def said(preload: Path, code: str, *words: object, **environment: object) -> str:
    """What a program says where these calls fail."""
    known = {key: value for key, value in os.environ.items() if key != "HDF5_USE_FILE_LOCKING"}
    changed = {key: str(value) for key, value in environment.items()}
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, text=True, timeout=HANGS,
                          check=False, env={**known, "LD_PRELOAD": str(preload), **changed},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


NO_LOCKS = pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])


@NO_LOCKS
def test_stores_are_written_and_read_without_locks(preload, tmp_path, number):
    said(preload, WRITE, tmp_path / "x.h5", FAULT_FLOCK=number)
    assert said(preload, READ, tmp_path / "x.h5", FAULT_FLOCK=number) == "4 images\n"


def test_a_good_store_that_cannot_be_locked_is_not_called_corrupt(preload, tmp_path):
    said(preload, WRITE, tmp_path / "x.h5")
    out = said(preload, READ, tmp_path / "x.h5", FAULT_FLOCK=errno.ENOLCK, HDF5_USE_FILE_LOCKING="TRUE")
    assert out == (f"{tmp_path / 'x.h5'}: its file system has no locks (No locks available); set "
                   "HDF5_USE_FILE_LOCKING=FALSE, or unset it, which does the same here\n")


def test_a_store_in_use_is_not_called_corrupt(preload, tmp_path):
    said(preload, WRITE, tmp_path / "x.h5")
    with open(tmp_path / "x.h5", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert said(preload, READ, tmp_path / "x.h5") == "4 images\n"
        out = said(preload, READ, tmp_path / "x.h5", HDF5_USE_FILE_LOCKING="TRUE")
        assert out == f"{tmp_path / 'x.h5'}: another process has it open to write; wait for it and run again\n"
        assert locks.in_use(tmp_path / "x.h5")
    assert not locks.in_use(tmp_path / "x.h5") and not locks.in_use(tmp_path / "none.h5")


@pytest.mark.parametrize("number", [None, errno.ENOLCK, errno.ENOSYS])
def test_one_process_at_a_time_downloads_also_without_locks(preload, tmp_path, number):
    fault = {} if number is None else {"FAULT_FLOCK": number}
    assert said(preload, LOCK, tmp_path / ".x.lock", **fault) == "held\nfree again\n"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_file_system_that_cannot_rename(preload, tmp_path, number):
    (tmp_path / "x").write_text("old")
    out = said(preload, ATOMIC, tmp_path / "x", FAULT_RENAME=number)
    assert out.startswith(f"{tmp_path / 'x'}: its file system cannot rename a file ({os.strerror(number)})")
    assert "put results on another: snakemake --directory" in out
    assert (tmp_path / "x").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(("environment", "line"), [
    ({}, "ok {}: files can be locked"),
    ({}, "ok {}: hard links can be made"),
    ({"FAULT_FLOCK": errno.ENOLCK}, "note {}: files cannot be locked (No locks available)"),
    ({"FAULT_FLOCK": errno.ENOSYS, "HDF5_USE_FILE_LOCKING": "TRUE"}, "problem {}: files cannot be locked (Function not "
     "implemented), and HDF5_USE_FILE_LOCKING asks for it"),
    ({"FAULT_LINK": errno.EPERM}, "ok {}: no hard links (Operation not permitted); none is needed"),
    ({}, "ok {}: a new file is listed at once"),
    ({"FAULT_LATE": 2}, "note {}: a new file is listed after "),
    ({"FAULT_LATE": 60}, "problem {}: a new file is not listed after 10 s"),
    ({"FAULT_RENAME": errno.ENOSYS}, "problem {}: a file cannot be renamed: Function not implemented"),
    ({"FAULT_FSYNC": errno.EDQUOT}, "problem {}: 1.0 MB cannot be written: Disk quota exceeded"),
    ({"FAULT_FSYNC": errno.ENOSPC}, "problem {}: 1.0 MB cannot be written: No space left on device"),
])
def test_doctor_tries_each(preload, tmp_path, environment, line):
    out = said(preload, DOCTOR, tmp_path, **environment)
    assert line.format(tmp_path) in out, out
    assert ("problem" in out) == line.startswith("problem") and not list(tmp_path.iterdir())


# -- whose fault an error is ----------------------------------------------------------------------------------------

@pytest.fixture
def stored(tmp_path, preload) -> Path:
    said(preload, WRITE, tmp_path / "x.h5")
    return tmp_path / "x.h5"


@pytest.mark.parametrize("error", [KeyError("mine"), OSError(errno.ENOSPC, "No space left on device", "out.h5"),
                                   OSError("of another file"), RuntimeError("CUDA out of memory"), ValueError("x")])
def test_an_error_of_what_is_done_with_a_store_is_not_the_stores(stored, error):
    with pytest.raises(type(error)) as caught, open_store(stored):
        raise error
    assert caught.value is error


def test_another_file_that_is_damaged_is_not_the_store(stored, tmp_path):
    other = shutil.copy(stored, tmp_path / "other.h5")
    with h5py.File(other, "r+") as file:
        place = file["images"].id.get_chunk_info(0).byte_offset
    content = bytearray(Path(other).read_bytes())
    content[place] ^= 1
    Path(other).write_bytes(content)
    with pytest.raises(OSError, match="read data"), open_store(stored), h5py.File(other) as file:
        file["images"][:]
    with pytest.raises(OODError, match=r"other.h5: not a whole image store"), open_store(other) as file:
        np.asarray(file["images"])


@pytest.mark.parametrize(("number", "blamed"), [(errno.EACCES, False), (errno.EIO, False), (errno.ESTALE, False),
                                                (errno.EMFILE, False), (None, True), (errno.EINVAL, True)])
def test_what_is_not_the_files_fault(number, blamed):
    error = OSError("truncated file") if number is None else OSError(number, "text")
    if blamed:
        not_to_blame("x.h5", error)
    else:
        with pytest.raises(OODError, match=r"x.h5: cannot be read \(.*the file may be whole"):
            not_to_blame("x.h5", error)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EFBIG])
def test_a_place_that_cannot_be_written_is_one_line(number, capsys):
    @stage
    def main() -> None:
        raise OSError(number, os.strerror(number), "results/x.h5")

    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().err
    assert out.startswith(f"error: results/x.h5: {os.strerror(number)}; ") and out.count("\n") == 1


def test_asking_at_once_finds_the_locks_that_there_are(tmp_path):
    """No thread takes the lock of another's probe for a file system without locks."""
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: without_locks(tmp_path), range(400))) == {""}
    assert not list(tmp_path.iterdir())
