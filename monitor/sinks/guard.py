"""Who may ask the HTTP server, and the headers that every answer carries.

Three things stand between a stranger's web page and this server on a loopback address: the Host
check (a name that was made to point here is not one of ours), the Origin check of the websocket,
and that no answer allows another origin to read it. The bearer token is for servers that listen
beyond loopback.
"""

import base64
import binascii
import hmac
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from monitor.config import HttpConfig

HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "cascade-monitor",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer."""

POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""What an answer may load: nothing."""

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own files, and nothing inline."""

DEFAULTS: Final = {"Cache-Control": "no-store", "Content-Security-Policy": POLICY}
"""On every answer that does not say otherwise."""

PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Asked by supervisors, by whatever name and without a token; they tell a verdict and no figure."""

PROTOCOL: Final = "cascade.v1"
"""Subprotocol of the websocket."""

BEARER: Final = "bearer."
"""A browser cannot send the token in a header with a websocket: it offers ``bearer.`` and the
token in unpadded base64url as a second subprotocol, which is never the one chosen."""

_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  (compared, not bound)


class Guard:
    """Decides whether a request may be answered."""

    def __init__(self, config: HttpConfig) -> None:
        named = {host.lower().rstrip(".") for host in config.allowed_hosts}
        own = set() if config.host in _WILDCARDS else {config.host.lower()}
        self._hosts = frozenset({"localhost"} | named | own)
        self._token = config.token.encode()

    def refuses_host(self, request: web.Request) -> str | None:
        """Why the name it was asked by is not one of ours; None if it is.

        An address is always ours: only a name can be made to point somewhere else.
        """
        host = _name(request.host)
        if host in self._hosts or host.endswith(".localhost") or _is_address(host):
            return None
        return f"host {host[:100]!r} is not ours; name it in http.allowed_hosts"

    def refuses_origin(self, request: web.Request) -> str | None:
        """Why the page that asks is not ours; None if it is, or nobody's (no browser)."""
        origin = request.headers.get("Origin")
        if origin is None:
            return None
        try:
            asking = urlsplit(origin).netloc.lower()
        except ValueError:
            asking = ""
        if asking and asking == request.host.lower():
            return None
        return f"origin {origin[:100]!r} is not ours"

    def admits(self, request: web.Request) -> bool:
        """Whether the token is right, where one is configured."""
        if not self._token:
            return True
        kind, _, offered = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return hmac.compare_digest(offered.strip().encode(), self._token)
        return hmac.compare_digest(_offered(request), self._token)


def _offered(request: web.Request) -> bytes:
    """The token among the offered subprotocols."""
    for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        text = protocol.strip()
        if text.startswith(BEARER):
            coded = text.removeprefix(BEARER)
            try:
                return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
            except (ValueError, binascii.Error):
                return b""
    return b""


def _name(host: str) -> str:
    """The host without its port, brackets and final dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
