"""Files on Google Drive: the direct address, and the page that asks to confirm the download of a large file.

Two facts of one host, so the downloader's resuming, time-outs and checks serve Drive too (gdown has its own transfer
and brings beautifulsoup4 and PySocks for it).
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlparse

_ADDRESS = re.compile(r"^gdrive:(?P<a>[\w-]+)$|^https://(?:drive|docs)\.google\.com/file/d/(?P<b>[\w-]+)")


def direct(url: str) -> str:
    """The address that serves the file of ``gdrive:ID`` or of a share link; other addresses as they are."""
    match = _ADDRESS.match(url)
    if not match:
        return url
    return f"https://drive.usercontent.google.com/download?id={match['a'] or match['b']}&export=download&confirm=t"


class _Form(HTMLParser):
    """Collects the form named ``download-form`` and its hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("id") == "download-form":
            self.action = values.get("action") or ""
        elif tag == "input" and self.action and values.get("type") == "hidden" and values.get("name"):
            self.fields[values["name"]] = values.get("value") or ""


def confirmation(page: bytes, url: str) -> str:
    """The address behind Drive's "download anyway" button; empty when ``page`` (served at ``url``) has none.

    The button may lead only to the host that showed it, or to another of Google's.
    """
    form = _Form()
    form.feed(page.decode("utf-8", "replace"))
    action = urljoin(url, form.action)
    host = urlparse(action).hostname or ""
    if not form.action or not (host == urlparse(url).hostname or host.endswith(".google.com")):
        return ""
    return f"{action.split('?')[0]}?{urlencode(form.fields)}"
