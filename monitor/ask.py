"""What a running daemon knows of an asset: asked over HTTP, or read from Redis.

The answers are those of docs/messages.md. Nothing here guesses: what the daemon does not know is
`Unanswered`, a question that makes no sense is a `QuestionError`.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from ipaddress import ip_address
from typing import Final, Generic, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct
from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import AuthenticationError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from monitor.events import Depth, Heatmap, HeatmapRow, Risk
from monitor.logs import plain
from monitor.sinks.envelope import VERSION
from monitor.sinks.redis import masked

PATIENCE_S: Final = 5.0
"""How long one answer may take."""

CHUNK: Final = 500
"""Rows read from the stream at once, some 1 MB."""

MINUTE_US: Final = 60_000_000

DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Heeds no proxy of the environment, which would look for our loopback on its own machine."""

Data = TypeVar("Data", Depth, Heatmap, HeatmapRow, Risk)


class QuestionError(Exception):
    """The daemon has no such asset or venue, or the address is none; the message says which."""


class Unanswered(Exception):  # noqa: N818  (no fault: it is not known)
    """Nobody answers, or the answer is that it is not known now."""


class NotThereError(Unanswered):
    """Redis answers, and has no such key."""


class Told(Struct, Generic[Data], frozen=True):
    """The envelope of docs/messages.md around a state or a row of the picture."""

    v: int
    at_us: int
    asset: str
    data: Data
    venue: str = ""


Row: TypeAlias = Told[HeatmapRow]


class Rows(Struct, frozen=True):
    """Rows of the picture, oldest first, and why they do not reach back as far as was asked."""

    lacks: str
    entries: list[Row]


class OverHttp:
    """Asks the HTTP API of a daemon."""

    def __init__(self, url: str, token: str = "", *, own: bool = False) -> None:
        """Check the address; ask nothing yet.

        Args:
            url: such as ``http://127.0.0.1:9464``.
            token: what the daemon asks for, if it does.
            own: whether it is that of this configuration, hence reached without a proxy.

        Raises:
            QuestionError: it is no HTTP address.
        """
        try:
            parts = urlsplit(url)
            host = parts.hostname if parts.scheme in {"http", "https"} else None
        except ValueError:
            host = None
        if not host:
            raise QuestionError(f"--url {url}: no HTTP address, as http://127.0.0.1:9464 is one")
        self.url = url
        self._base = f"{url.rstrip('/')}/api/v1/assets"
        self._token = token
        is_direct = own or _is_here(host)
        self._opener = DIRECT if is_direct else urllib.request.build_opener()

    def heatmap(self, asset: str, venue: str) -> bytes:
        """The newest message of an asset's map, or of one venue's part of it."""
        query = f"?venue={quote(venue, safe='')}" if venue else ""
        return self._get(f"{self._base}/{quote(asset, safe='')}/heatmap{query}")

    def history(self, asset: str, minutes: float, until_us: int) -> list[Row]:
        """Rows of the picture, oldest first; none from a daemon that serves none."""
        where = f"{self._base}/{quote(asset, safe='')}/heatmap/log?minutes={minutes:g}"
        try:
            body = self._get(where)
        except (QuestionError, Unanswered):
            return []
        rows = _decoded(body, Rows).entries
        return [row for row in rows if row.at_us > until_us - minutes * MINUTE_US]

    def stress(self, asset: str, given: Mapping[str, float]) -> bytes:
        """The daemon's answer to a what-if with these parameters."""
        return self._get(f"{self._base}/{quote(asset, safe='')}/stress?{urlencode(given)}")

    def _get(self, url: str) -> bytes:
        request = urllib.request.Request(url)  # noqa: S310  (checked)
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=PATIENCE_S) as answer:
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            reason = f"{url}: {_reason(error)}"
            if error.code in {400, 404}:
                raise QuestionError(reason) from error
            raise Unanswered(reason) from error
        except (RemoteDisconnected, IncompleteRead) as error:
            raise Unanswered(f"{self.url}: the daemon broke off its answer") from error
        except (ValueError, HTTPException) as error:
            raise QuestionError(f"--url {self.url}: {error}") from error
        except OSError as error:
            raise Unanswered(
                f"no daemon answers at {self.url} ({plain(error)}): start one, or give the address "
                "that it printed with --url"
            ) from error
        return body


class InRedis:
    """Reads what a daemon has written to Redis under `prefix`.

    Attributes:
        url: the address, without credentials.

    Raises:
        QuestionError: it is no Redis URL.
        Unanswered: it is a cluster that does not answer.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._prefix = prefix
        self.url = masked(url)
        try:
            self._redis: Redis | RedisCluster = (
                RedisCluster.from_url(url.replace("+cluster", "", 1), socket_timeout=PATIENCE_S)
                if "+cluster://" in url
                else Redis.from_url(url, socket_timeout=PATIENCE_S)
            )
        except ValueError:
            # The library's own text may quote a part of the password.
            raise QuestionError("--redis: not a Redis URL, as redis://127.0.0.1:6379/0") from None
        except (RedisError, RedisClusterException) as error:
            raise self._silent(error) from error

    def heatmap(self, asset: str, venue: str) -> bytes:
        """The newest message; the key is gone when it is stale."""
        return self._get(self._key(asset) + (f":{venue}" if venue else ""))

    def depth(self, asset: str) -> bytes:
        """The newest message of an asset's depth."""
        return self._get(f"{self._prefix}:{{{asset}}}:depth")

    def risk(self, asset: str) -> bytes:
        """The newest message of an asset's risk."""
        return self._get(f"{self._prefix}:{{{asset}}}:risk")

    def _get(self, key: str) -> bytes:
        try:
            body = self._redis.get(key)
        except (RedisError, RedisClusterException) as error:
            raise self._silent(error) from error
        if not isinstance(body, bytes):
            raise NotThereError(
                f"{self.url} has no {key}: no such asset or venue, or not known now"
            )
        return body

    def _silent(self, error: Exception) -> Unanswered:
        gone = (RedisConnectionError, RedisTimeoutError, RedisClusterException)
        if isinstance(error, gone) and not isinstance(error, AuthenticationError):
            return Unanswered(
                f"no Redis answers at {self.url} ({plain(error)}): give the address that the "
                "daemon printed with --redis"
            )
        return Unanswered(f"{self.url}: {error}")

    def history(self, asset: str, minutes: float, until_us: int) -> list[Row]:
        """Rows of the picture, oldest first."""
        since_us = until_us - minutes * MINUTE_US
        rows: list[Row] = []
        newest = "+"
        while True:
            try:
                read = self._redis.xrevrange(f"{self._key(asset)}:log", newest, count=CHUNK)
            except (RedisError, RedisClusterException) as error:
                raise self._silent(error) from error
            entries = msgspec.convert(read, list[tuple[bytes, dict[bytes, bytes]]])
            chunk = [_decoded(fields[b"m"], Row) for _, fields in entries]
            rows += [row for row in chunk if row.at_us > since_us]
            # Newest first: a chunk with an old row is the last of interest.
            if len(chunk) < CHUNK or chunk[-1].at_us <= since_us:
                return rows[::-1]
            newest = f"({entries[-1][0].decode()}"

    def _key(self, asset: str) -> str:
        return f"{self._prefix}:{{{asset}}}:heatmap"


def heatmap_in(message: bytes) -> Told[Heatmap]:
    """A message of kind ``heatmap``.

    Raises:
        Unanswered: it is of another version, or nothing we understand.
    """
    return _decoded(message, Told[Heatmap])


def depth_in(message: bytes) -> Told[Depth]:
    """A message of kind ``depth``.

    Raises:
        Unanswered: it is of another version, or nothing we understand.
    """
    return _decoded(message, Told[Depth])


def risk_in(message: bytes) -> Told[Risk]:
    """A message of kind ``risk``.

    Raises:
        Unanswered: it is of another version, or nothing we understand.
    """
    return _decoded(message, Told[Risk])


Answer = TypeVar("Answer")


def _decoded(body: bytes, kind: type[Answer]) -> Answer:
    try:
        found = msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise Unanswered(f"the answer is not a message of ours: {error}") from error
    for told in found.entries if isinstance(found, Rows) else [found]:
        if isinstance(told, Told) and told.v != VERSION:
            raise Unanswered(f"the daemon speaks version {told.v}, expected {VERSION}")
    return found


def _is_here(host: str) -> bool:
    """Whether a host is this machine's loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: urllib.error.HTTPError) -> str:
    """What the daemon said was wrong, else the status."""
    with suppress(ValueError, OSError):
        said = json.loads(error.read())
        if isinstance(said, dict) and "error" in said:
            return f"{error.code}, {said['error']}"
    return str(error)
