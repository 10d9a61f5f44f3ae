"""The page's files: read once, served from memory with a tag, compressed where the client can."""

import gzip
import hashlib
from importlib.resources import files
from typing import Final

from aiohttp import web
from msgspec import Struct

from monitor.sinks.guard import PAGE_POLICY

TYPES: Final = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
"""Content types by the end of the name; other files are not served."""


class File(Struct, frozen=True):
    """One file, as it is and compressed."""

    kind: str
    tag: str
    plain: bytes
    packed: bytes


def page_files() -> dict[str, File]:
    """The files of the page by their path; ``/`` is the page itself."""
    found = {}
    for item in sorted(files("monitor.sinks").joinpath("page").iterdir(), key=lambda i: i.name):
        kind = TYPES.get(item.name.rpartition(".")[2])
        if kind is None:
            continue
        data = item.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()[:20]}"'
        packed = gzip.compress(data, 9, mtime=0)
        path = "/" if item.name == "index.html" else f"/page/{item.name}"
        found[path] = File(kind, tag, data, packed)
    return found


def served(request: web.Request, file: File) -> web.Response:
    """The answer with a file, or that the client has it already."""
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
        "ETag": file.tag,
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("If-None-Match") == file.tag:
        return web.Response(status=304, headers=headers)
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    if packed:
        headers["Content-Encoding"] = "gzip"
    body = file.packed if packed else file.plain
    return web.Response(body=body, headers=headers, content_type=file.kind, charset="utf-8")
