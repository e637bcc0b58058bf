"""What a user reads when something is wrong, and how a stage ends with it.

Every error that a user can cause or mend is an :class:`OODError` with one message that names the file or key, says what
was expected and found, and what to do. Stages are wrapped by :func:`stage`, which prints that message without a
traceback and exits with 1; any other exception is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import functools
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec

LISTED = 1000  # characters of a list in a message


class OODError(Exception):
    """An error a user can act on; its text is the whole message."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest of ``allowed``, or an empty string."""
    match = difflib.get_close_matches(name, [str(a) for a in allowed], n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def unknown(where: str, name: str, allowed: Iterable[str]) -> OODError:
    """The error for a name that is not one of ``allowed``: key, what was found, what is allowed, the nearest match.

    Of a long list the names that fill :data:`LISTED` characters are given, and how many there are.
    """
    options = sorted(str(a) for a in allowed)
    hint, listed = nearest(name, options) or ".", ", ".join(options) or "none"
    if len(listed) > LISTED:
        listed = f"{listed[:LISTED].rpartition(', ')[0]}, ... ({len(options)} in all)"
    return OODError(f"{where}: '{name}' is not known{hint} Allowed: {listed}.")


def stage(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a stage's ``main`` so that a user's error ends as one line on stderr and exit status 1.

    The last line of a job's log says how long it took, without the start of Python and its imports.
    """

    @functools.wraps(main)
    def run(*args: object, **kwargs: object) -> None:
        started = time.perf_counter()
        try:
            main(*args, **kwargs)
            if _logged():
                print(f"done in {time.perf_counter() - started:.2f} s", flush=True)
        except OODError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except (OSError, RuntimeError) as error:  # HDF5 wraps the system's error in its own text
            number = getattr(error, "errno", None)
            named = getattr(error, "filename", None)
            if number in (errno.EROFS, errno.EACCES, errno.EFBIG) and isinstance(named, str | bytes | os.PathLike):
                print(f"error: {os.fsdecode(named)}: {os.strerror(number)}; see to the permissions and the "
                      "file system of this place, or choose another: snakemake --directory, key resources",
                      file=sys.stderr)
                raise SystemExit(1) from None
            if number not in (errno.ENOSPC, errno.EDQUOT) and "No space left" not in str(error):
                raise
            where = getattr(error, "filename", None) or "the results"
            print(f"error: no space left on the disk while writing {where}; free some and run again, "
                  "finished outputs are kept", file=sys.stderr, flush=True)
            os._exit(1)  # HDF5 may crash while it closes a file it could not flush

    return run


def _logged() -> bool:
    """Whether both outputs go to one file, as a job's do."""
    try:
        out, err = os.fstat(1), os.fstat(2)
    except OSError:
        return False
    return stat.S_ISREG(out.st_mode) and os.path.samestat(out, err)


def command(spec: ModuleSpec, text: str) -> argparse.ArgumentParser:
    """The parser of a module that is run as ``python -m``: ``__spec__`` names it, its docstring's first line says what
    it does."""
    return argparse.ArgumentParser(prog=f"python -m {spec.name}", description=text.splitlines()[0])
