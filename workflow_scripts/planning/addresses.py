"""Which addresses of raw files, image lists and published networks answer, and with how many bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import requests

from workflow_scripts.config import image_lists, zoo
from workflow_scripts.config.raw import Source
from workflow_scripts.data.archives import drive
from workflow_scripts.data.archives.download import local_path
from workflow_scripts.planning.health import Finding, note, problem

AT_ONCE = 16  # addresses asked at once
TIMEOUT = 20.0  # s without an answer


class Address(NamedTuple):
    """Where a file is published."""

    name: str
    url: str
    size: int | None
    """Bytes, where they are known."""


def known(sources: Mapping[str, Source]) -> list[Address]:
    """All addresses of raw files, of image lists and of the zoo, each once."""
    rows = {**sources, **image_lists.sources()}
    found = [Address(row.name, url, row.size) for row in rows.values() for url in row.urls]
    found += [Address(f"zoo/{name}", row.url, None) for name, row in zoo.read().items() if row.url != "unknown"]
    return list({one.url: one for one in reversed(found)}.values())[::-1]


def asked(addresses: list[Address], timeout: float = TIMEOUT) -> Iterator[Finding]:
    """A finding for each address, in their order: how many bytes it offers, or why it does not answer."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(partial(_ask, timeout=timeout), addresses)


def _ask(address: Address, timeout: float) -> Finding:
    path = local_path(address.url)
    what = f"{address.name}: {address.url}"
    if path is not None:
        return Finding(f"{what}: {path.stat().st_size:,} bytes") if path.is_file() else problem(
            f"{what}: no such file", "correct the address, or bring the file")
    try:
        with requests.get(drive.direct(address.url), headers={"Range": "bytes=0-0", "Accept-Encoding": "identity"},
                          stream=True, timeout=timeout) as answer:
            if answer.status_code not in (200, 206):
                return problem(f"{what}: HTTP status {answer.status_code} {answer.reason}", _MEND)
            size = _size(answer)
            html = answer.headers.get("Content-Type", "").startswith("text/html")
    except requests.RequestException as error:
        return problem(f"{what}: no answer ({type(error).__name__})", _MEND)
    if html:
        return note(f"{what}: answers with a web page",
                    "a host that asks to confirm, or the file is gone: open it in a browser")
    if address.size and size and size != address.size:
        return problem(f"{what}: {address.size:,} bytes expected, {size:,} offered",
                       "another file: use another address")
    return Finding(f"{what}: {f'{size:,} bytes' if size else 'answers, without its size'}")


_MEND = "try another address of the row, look again later, or bring the file by hand"


def _size(answer: requests.Response) -> int | None:
    """Bytes of the whole file, where the answer says."""
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    if answer.status_code == 200:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None
