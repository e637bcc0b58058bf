"""doctor --urls: which addresses answer, with how many bytes."""

from __future__ import annotations

import pytest

from tests.checkout import ROOT
from tests.web_server import BODY, Server
from workflow_scripts.config import image_lists, zoo
from workflow_scripts.config.raw import load_sources
from workflow_scripts.planning import addresses
from workflow_scripts.planning.addresses import Address


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()


def kinds(found) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in found]


def test_each_address_of_the_tables_is_asked_once():
    sources = load_sources(ROOT / "config" / "sources.yaml")
    found = {one.url for one in addresses.known(sources)}
    assert found == {url for row in sources.values() for url in row.urls} | {
        url for row in image_lists.sources().values() for url in row.urls} | {
        row.url for row in zoo.read().values() if row.url != "unknown"}
    assert len(addresses.known(sources)) == len(found) > 250


def test_answers_are_told_apart(server, tmp_path):
    (tmp_path / "here").write_bytes(b"12345")
    rows = [Address("whole", server.url("/whole", lambda h: h.answer(200, BODY)), len(BODY)),
            Address("range", server.url("/part", lambda h: h.answer(206, b"x", Content_Range="bytes 0-0/77")), None),
            Address("other", server.url("/other", lambda h: h.answer(200, BODY)), 5),
            Address("gone", server.url("/gone", lambda h: h.answer(404, b"")), None),
            Address("page", server.url("/page", lambda h: h.answer(200, b"<html>", Content_Type="text/html")), None),
            Address("here", (tmp_path / "here").as_uri(), None),
            Address("absent", (tmp_path / "absent").as_uri(), None),
            Address("closed", "http://127.0.0.1:1/x", None)]
    found = kinds(addresses.asked(rows, timeout=5))
    assert [kind for kind, _ in found] == ["ok", "ok", "problem", "problem", "note", "ok", "problem", "problem"]
    for (_, text), words in zip(found, (f"{len(BODY):,} bytes", "77 bytes", "5 bytes expected, 512,000 offered",
                                        "HTTP status 404", "answers with a web page", "5 bytes", "no such file",
                                        "no answer (ConnectionError)"), strict=True):
        assert words in text
