"""What a file is that lies where another was expected: a web page, a pointer, a part of a file, an archive."""

from __future__ import annotations

import os
import re
import zipfile

_START = 1 << 16  # bytes that are looked at
_ARCHIVES = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"7z\xbc\xaf'\x1c", "7z"),
             (b"Rar!", "rar"), (b"\x28\xb5\x2f\xfd", "zstd"))
_TEXT = re.compile(rb"[\t\n\f\r\x20-\x7e\x80-\xff]*")  # no control character


def is_html(start: bytes) -> bool:
    """Whether content that starts so is a web page."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def page_title(page: bytes) -> str:
    """The title of a web page in brackets; an empty text where it has none."""
    found = re.search(rb"<title[^>]*>(.*?)</title", page, re.IGNORECASE | re.DOTALL)
    return f" ('{' '.join(found[1].decode('utf-8', 'replace').split())[:100]}')" if found else ""


def other_file(path: str | os.PathLike, text: bool = False) -> str:
    """What the file is, in place of the expected one, and what to do; an empty text where nothing is known of it.

    Args:
        text: text was expected, so that text is nothing else.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(_START)
    except OSError:
        return ""
    if not start:
        return "it is empty: fetch or write it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer to the file: run `git lfs pull` in its repository, or download the file itself"
    if b"/annex/objects/" in start[:200]:
        return "it is a git-annex pointer to the file: run `git annex get` in its repository"
    if is_html(start):
        return f"it is an HTML page{page_title(start)}, which the server sent for the file: fetch it with a browser"
    if not start.strip(b"\0"):
        return "it begins with zeros alone, as a download does that was broken off: fetch it again"
    for magic, name in _ARCHIVES:
        if start.startswith(magic):
            return f"it is packed by {name}: unpack it"
    if start[257:262] == b"ustar":
        return "it is a tar archive: unpack it"
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "it is cut off, its end is missing: fetch or write it again"
    if start.startswith(b"\x89HDF"):
        return "it is an HDF5 file"
    if not text and _TEXT.fullmatch(start):
        return f"it is text that begins with '{' '.join(start[:60].decode('utf-8', 'replace').split())}'"
    return ""
