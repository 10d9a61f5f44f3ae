"""Posts alerts to web addresses, each behind an outbox of its own: a slow one holds up no other.

The contract with receivers is `docs/webhook.md`. Alerts reach an address in their order, so one
that is being tried again holds up the later ones for the same address. It is given up after a
number of attempts, or at once when the answer says that trying again is of no use; then `dead` is
told. An answer that is lost means a second delivery, under the same delivery id.

An address may hold a secret in its path (those of chat services do), so that nothing but scheme,
host and port is ever logged or told to `dead`.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import aiohttp
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar
from msgspec import Struct

from monitor import __version__
from monitor.config import ConfigError, WebhookConfig
from monitor.events import Alert, Message, Severity
from monitor.sinks.envelope import encode
from monitor.sinks.outbox import Entry, Outbox
from monitor.sinks.redis import masked

Reason: TypeAlias = Literal[
    "connection",  # refused, reset, no such host
    "timeout",  # no answer in time, or 408
    "tls",  # a certificate that is not accepted
    "redirect",  # 3xx: never followed, and given up
    "client_error",  # 4xx: given up
    "throttled",  # 429
    "server_error",  # 5xx
    "unexpected",  # an exception the client library should not have raised
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
PERMANENT: Final[frozenset[Reason]] = frozenset({"redirect", "client_error"})
"""Reasons for which the same request will be refused again."""

Dead: TypeAlias = Callable[[Message, str, str], None]
"""Is told an alert that was given up, the masked address and the reason; never waits."""

RANKS: Final[dict[Severity, int]] = {name: rank for rank, name in enumerate(get_args(Severity))}
"""Severities by how much they matter."""

EPISODES_MAX: Final = 1000
"""Open episodes remembered; the engine has at most a few an asset."""

BACKOFF_FIRST_S, BACKOFF_MAX_S = 1.0, 60.0
"""The wait after an attempt doubles from the first to the second; both are jittered."""

RETRY_AFTER_MAX_S: Final = 300.0
"""A receiver may ask for a longer wait than ours, but not for one longer than this."""

_log = logging.getLogger(__name__)


class Answer(Struct, frozen=True):
    """What came of one attempt: None as a reason means that it was delivered."""

    reason: Reason | None
    text: str = ""
    retry_after_s: float = 0.0


def delivery_id(message: Message, run: str) -> str:
    """The same for every attempt and every address, and never that of another message."""
    return f"{run}-{message.kind}-{message.asset}-{message.seq}"


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The hexadecimal HMAC-SHA256 of ``timestamp.body``."""
    return hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()


class WebhookSink:
    """Delivers to one address; `put` takes every message and keeps the alerts that matter.

    An alert matters if it is severe enough, or if an earlier turn of its episode was: who has been
    told of a warning is told when it is over.

    Attributes:
        outbox: what waits, for the metrics.
        sent: alerts that the receiver has accepted.
        errors: failed attempts by reason, each of `REASONS` from the start.
        dead: alerts given up; also counted as lost in the outbox.
        connected: whether the last attempt was answered with success; true before the first.
        last_success_at: seconds since the Unix epoch, 0 when never.
    """

    def __init__(self, config: WebhookConfig, url: str, run: str, dead: Dead) -> None:
        """Check the address; connect to nothing yet.

        Raises:
            ConfigError: not an http or https URL.
        """
        _check(url)
        self.outbox = Outbox(config.queue_length, state_ttl_s=1.0)
        self.sent = 0
        self.errors: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self.dead = 0
        self.connected = True
        self.last_success_at = 0.0
        self._config = config
        self._url = url
        self._shown = masked(url)
        self._run = run
        self._tell_dead = dead
        self._told: dict[str, None] = {}
        self._least = RANKS[config.severity_min]

    def put(self, message: Message) -> None:
        """Accept an alert that is severe enough and not silent. Never waits."""
        alert = message.data
        if not isinstance(alert, Alert) or alert.silent:
            return
        if RANKS[alert.severity] >= self._least or alert.id in self._told:
            self._remember(alert)
            self.outbox.put(message)

    def _remember(self, alert: Alert) -> None:
        """Note the episodes whose further turns, above all the last, are to be told as well."""
        self._told.pop(alert.id, None)
        if alert.action != "cleared":
            self._told[alert.id] = None
            if len(self._told) > EPISODES_MAX:
                del self._told[next(iter(self._told))]

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with self._session() as session:
            while True:
                await self.outbox.wait()
                await self._next(session)

    async def close(self, deadline_s: float) -> None:
        """Deliver what is pending, for at most `deadline_s`; then give up the rest.

        `run` must have been cancelled.
        """
        try:
            async with asyncio.timeout(deadline_s), self._session() as session:
                while len(self.outbox):
                    await self._next(session)
        except TimeoutError:
            pass
        while left := self.outbox.take_now():
            for entry in left:
                self._give_up(entry, "shutdown")

    def _session(self) -> ClientSession:
        return ClientSession(
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=self._config.timeout_s),
            headers={"User-Agent": f"cascade-monitor/{__version__}"},
        )

    async def _next(self, session: ClientSession) -> None:
        """Deliver the oldest alert or give it up; a cancellation puts it back."""
        (entry,) = self.outbox.take_now(1)
        settled = False
        try:
            reason = await self._deliver(session, entry)
            settled = True
        finally:
            if not settled:
                self.outbox.restore([entry])
        if reason is not None:
            self._give_up(entry, reason)

    async def _deliver(self, session: ClientSession, entry: Entry) -> Reason | None:
        """Attempt until it is delivered (None) or there is no use in going on (the reason)."""
        body = encode(entry.message, self._run)
        for attempt in range(1, self._config.attempts + 1):
            answer = await self._attempt(session, entry.message, body)
            self.connected = answer.reason is None
            if answer.reason is None:
                self.sent += 1
                self.last_success_at = time.time()
                return None
            self.errors[answer.reason] += 1
            last = attempt == self._config.attempts or answer.reason in PERMANENT
            delay_s = 0.0 if last else max(_backoff_s(attempt), answer.retry_after_s)
            fields = {
                "url": self._shown,
                "reason": answer.reason,
                "error": answer.text,
                "attempt": attempt,
                "delay_s": round(delay_s, 2),
            }
            _log.warning("webhook_failed", extra={"fields": fields})
            if last:
                return answer.reason
            await asyncio.sleep(delay_s)
        raise AssertionError("at least one attempt is configured")

    async def _attempt(self, session: ClientSession, message: Message, body: bytes) -> Answer:
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Cascade-Delivery": delivery_id(message, self._run),
            "Cascade-Timestamp": str(timestamp),
        }
        if self._config.secret:
            signed = signature(self._config.secret, timestamp, body)
            headers["Cascade-Signature"] = f"sha256={signed}"
        try:
            async with session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                retry_after_s = _retry_after_s(response.headers.get("Retry-After", ""))
                return Answer(
                    _reason_of_status(response.status), str(response.status), retry_after_s
                )
        # The text of these errors may contain the address, so only their kind is told.
        except aiohttp.ClientSSLError as error:
            return Answer("tls", type(error).__name__)
        except TimeoutError:
            return Answer("timeout")
        except (aiohttp.ClientError, OSError) as error:
            return Answer("connection", type(error).__name__)
        except Exception as error:  # noqa: BLE001  (a boundary: one address harms no other)
            return Answer("unexpected", type(error).__name__)

    def _give_up(self, entry: Entry, reason: str) -> None:
        self.dead += 1
        self.outbox.discarded_unintentional += 1
        delivery = delivery_id(entry.message, self._run)
        fields = {"url": self._shown, "reason": reason, "delivery": delivery}
        _log.error("webhook_given_up", extra={"fields": fields})
        self._tell_dead(entry.message, self._shown, reason)


def webhook_sinks(config: WebhookConfig, run: str, dead: Dead) -> dict[str, WebhookSink]:
    """A sink per configured address: ``webhook.1``, ``webhook.2``, ...

    Raises:
        ConfigError: an address is not an http or https URL, stands twice, or there is none.
    """
    if not config.urls:
        raise ConfigError("webhook.urls: webhook.enabled is set, but there is no address")
    sinks = {}
    for number, url in enumerate(config.urls, 1):
        try:
            sinks[f"webhook.{number}"] = WebhookSink(config, url, run, dead)
        except ConfigError as error:
            raise ConfigError(f"webhook.urls, number {number}: {error}") from None
        if url in config.urls[: number - 1]:
            raise ConfigError(f"webhook.urls, number {number}: the same address again")
    return sinks


def _check(url: str) -> None:
    """Raise without quoting the address, which may be a secret."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(character.isspace() for character in url):
        raise ConfigError("not an address that begins with http:// or https://")


def _backoff_s(attempt: int) -> float:
    # The exponent is capped only to keep the power finite.
    backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 16))
    jitter: float = random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
    return backoff_s * jitter


def _reason_of_status(status: int) -> Reason | None:
    """The reason under which an answer is counted, None for success (RFC 9110, section 15)."""
    match status:
        case 408:
            return "timeout"
        case 429:
            return "throttled"
        case _ if 200 <= status < 300:
            return None
        case _ if 300 <= status < 400:
            return "redirect"
        case _ if 400 <= status < 500:
            return "client_error"
        case _:
            return "server_error"


def _retry_after_s(text: str) -> float:
    """Seconds asked for by a Retry-After header, which has seconds or a date; 0 for neither."""
    try:
        if text.strip().isdecimal():
            seconds = float(text)
        else:
            moment = parsedate_to_datetime(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), RETRY_AFTER_MAX_S)
