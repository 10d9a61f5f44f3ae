"""What the daemon writes about itself: JSON lines, or one readable line each on a terminal.

Feeds and sinks log with the standard library, a static event name as the message and the values in
``extra={"fields": {...}}``; only `app` and `cli` call `configure`. Nothing here ever raises: a log
that cannot be written is dropped and counted.
"""

import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from threading import Timer, current_thread
from typing import Any, Final, Literal, TextIO, TypeAlias

import msgspec
from msgspec import Struct

Form: TypeAlias = Literal["auto", "json", "text"]

WINDOW_S: Final = 10.0
"""A warning that repeats within this many seconds of its first appearance is counted instead."""

KEYS_MAX: Final = 1000
"""Different warnings told apart at once; beyond it they are told apart by their event only."""

TEXT_MAX: Final = 2000
"""Characters of one value. Payloads do not belong into a log; this is what is left of one."""

TRACEBACK_MAX: Final = 20_000
"""Characters of a traceback, counted from its end: that is where the error stands."""

TELLING: Final = (
    "venue",
    "feed",
    "instrument",
    "symbol",
    "channel",
    "sink",
    "kind",
    "reason",
    "status",
)
"""Fields that make two warnings of one event different ones. All are from closed sets."""

RESERVED: Final = frozenset(
    {"ts", "level", "event", "logger", "message", "suppressed", "traceback"}
)
"""Keys of our own; a field of the same name gets an underscore in front."""

QUIET: Final = ("aiohttp.access", "asyncio", "websockets", "redis")
"""Libraries of which only warnings are of interest."""

_Key: TypeAlias = tuple[str, ...]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s\"'<>\\]+")
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.\-]+)(?::\d*)?")
_WEB = frozenset({"http", "https", "ws", "wss"})
_SECRET = re.compile(
    r"(?i)(?P<key>[?&;#][^=&;#]*(?:pass|pwd|secret|token|key|sign|auth|cred)[^=&;#]*=)[^&;#]*"
)
_PLAIN = re.compile(r"[^\s\"=\\]+")


def configure(level: str, form: Form, stream: TextIO | None = None) -> None:
    """Send everything that is logged to a stream, standard error unless another is given.

    May be called again; the last call counts. An unknown level means INFO. ``auto`` is text on a
    terminal, else JSON.
    """
    out = sys.stderr if stream is None else stream
    handler = Handler(out, as_text=form == "text" or (form == "auto" and _is_terminal(out)))
    root = logging.getLogger()
    for other in list(root.handlers):
        if isinstance(other, Handler):
            root.removeHandler(other)
            other.close()
    root.addHandler(handler)
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    root.setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)


def plain(error: Exception) -> str:
    """What the system said is wrong: no number, no path, no wrappings of those who asked it."""
    inner: BaseException | None = error
    while inner is not None and not (isinstance(inner, OSError) and inner.strerror):
        reason = getattr(inner, "reason", None)
        inner = reason if isinstance(reason, Exception) else inner.__cause__ or inner.__context__
    text = str(error) if inner is None else str(inner.strerror)
    return text[:1].lower() + text[1:].rstrip(".")


def mask_url(url: str) -> str:
    """A URL without what may be a secret: the user part, and query values with telling names."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # A raw slash in a password ends the authority early. Only a web address may rightly have an @
    # behind its host (wss://.../stream?streams=btcusdt@depth).
    whole = scheme.lower() not in _WEB or not _AUTHORITY.fullmatch(authority.rpartition("@")[2])
    end = rest.rfind("@") if whole else authority.rfind("@")
    if end >= 0:
        rest = "***" + rest[end:]
    return f"{scheme}://" + _SECRET.sub(r"\g<key>***", rest)


def mask(text: str) -> str:
    """A text with every URL in it masked."""
    return _URL.sub(lambda match: mask_url(match[0]), text) if "://" in text else text


class _Repeats(Struct):
    """One warning within its window."""

    since: float
    level: str
    fields: dict[str, Any]
    suppressed: int = 0


class Limiter:
    """Tells the first occurrence of a warning from its repeats, and how many those were."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._repeats: dict[_Key, _Repeats] = {}

    def __len__(self) -> int:
        return len(self._repeats)

    @property
    def suppressed(self) -> int:
        """Occurrences counted and not yet told."""
        return sum(known.suppressed for known in self._repeats.values())

    def admits(self, level: str, event: str, fields: Mapping[str, Any]) -> bool:
        """Whether this occurrence is to be written; if not, it has been counted.

        Ask `summaries` first: it ends the windows that are over.
        """
        telling = {name: _text(fields[name]) for name in TELLING if name in fields}
        key: _Key = (event, *(f"{name}={value}" for name, value in telling.items()))
        if len(self._repeats) >= KEYS_MAX and key not in self._repeats:
            key, telling = (event,), {}
            if len(self._repeats) >= 2 * KEYS_MAX and key not in self._repeats:
                return False
        repeats = self._repeats.get(key)
        if repeats is None:
            self._repeats[key] = _Repeats(self._clock(), level, telling)
            return True
        repeats.suppressed += 1
        return False

    def summaries(self, *, all_: bool = False) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(level, event, fields) of each window that is over and had repeats; or of all of them."""
        before = self._clock() - WINDOW_S
        over = [key for key, known in self._repeats.items() if all_ or known.since <= before]
        for key in over:
            known = self._repeats.pop(key)
            if known.suppressed:
                yield known.level, key[0], known.fields | {"suppressed": known.suppressed}


class Handler(logging.Handler):
    """Writes lines to a stream.

    Attributes:
        failed: lines that could not be written.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        as_text: bool,
        limiter: Limiter | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.failed = 0
        self._stream = stream
        self._line = _text_line if as_text else _json_line
        self._limiter = Limiter() if limiter is None else limiter
        self._clock = clock
        self._timer: Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless it is a repeat."""
        try:
            event, fields = _parts(record)
            self._summarise()
            if record.levelno >= logging.WARNING and not self._limiter.admits(
                record.levelname, event if event != "log" else str(record.msg), fields
            ):
                self._wake()
                return
            self._write(record.created, record.levelname, event, fields)
        except Exception:  # noqa: BLE001  (whatever a value's own methods raise)
            self.failed += 1

    def flush(self) -> None:
        """Write how often the warnings of windows that are still open were repeated."""
        self.acquire()
        try:
            self._summarise(all_=True)
            self._stream.flush()
        except (OSError, ValueError):
            self.failed += 1
        finally:
            self.release()

    def close(self) -> None:
        """Write the last summaries and stop."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            if timer is not current_thread():
                timer.join(1.0)
        self.flush()
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        """Count a record that could not be written."""
        self.failed += 1

    def _write(self, at: float, level: str, event: str, fields: Mapping[str, Any]) -> None:
        self._stream.write(self._line(at, level, event, fields) + "\n")
        self._stream.flush()

    def _summarise(self, *, all_: bool = False) -> None:
        for level, event, fields in self._limiter.summaries(all_=all_):
            self._write(self._clock(), level, *_named(event, fields))

    def _wake(self) -> None:
        """Have the summary written even if nothing is logged any more."""
        if self._timer is None:
            self._timer = Timer(WINDOW_S, self._woken)
            self._timer.name = "log-summary"
            self._timer.daemon = True
            self._timer.start()

    def _woken(self) -> None:
        self.acquire()
        try:
            if self._timer is None:
                return  # closed meanwhile
            self._timer = None
            self._summarise()
            if self._limiter.suppressed:
                self._wake()
        except (OSError, ValueError):
            self.failed += 1
        finally:
            self.release()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):
        return False


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Event and fields of a record; a library's sentence becomes the message of event ``log``."""
    given = getattr(record, "fields", None)
    fields: dict[str, Any] = {}
    if isinstance(given, Mapping):
        for name, value in given.items():
            fields[f"_{name}" if name in RESERVED else str(name)] = value
    if record.exc_info:
        error = record.exc_info[1]
        if error is not None:
            text = "".join(traceback.format_exception(error))
            fields["traceback"] = mask(text)[-TRACEBACK_MAX:]
    ours = record.name.partition(".")[0] == __package__ and not record.args
    if ours and isinstance(record.msg, str) and _NAME.fullmatch(record.msg):
        return record.msg, fields
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        message = str(record.msg)
    return "log", {"logger": record.name, "message": message} | fields


def _named(event: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A summary's event; of a library's sentence, the template is its message."""
    return (event, fields) if _NAME.fullmatch(event) else ("log", {"message": event} | fields)


def _text(value: object) -> str:
    """Any value as a text, masked and cut."""
    if isinstance(value, bytes | bytearray):
        value = value[:TEXT_MAX].decode(errors="replace")
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  (a value whose own text fails)
        text = f"({type(value).__name__})"
    text = text.encode(errors="replace").decode()  # a lone surrogate is no JSON
    # Masked before it is cut, since half a secret is one, too.
    masked = mask(text[: 4 * TEXT_MAX])
    return masked if len(masked) <= TEXT_MAX else masked[:TEXT_MAX] + "..."


def _plain(value: object) -> Any:  # noqa: ANN401  (anything JSON)
    """A value as numbers, texts, lists and dictionaries."""
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {_text(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return _text(value)


def _timestamp(at: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json_line(at: float, level: str, event: str, fields: Mapping[str, Any]) -> str:
    line: dict[str, Any] = {"ts": _timestamp(at), "level": level, "event": event}
    for name, value in fields.items():
        line[name] = value if name == "traceback" else _plain(value)
    return msgspec.json.encode(line).decode()


def _text_line(at: float, level: str, event: str, fields: Mapping[str, Any]) -> str:
    parts = [_timestamp(at)[11:23], f"{level:7}", event]
    for name, value in fields.items():
        if name == "traceback":
            continue
        text = f"{value:.6g}" if isinstance(value, float) else _text(_plain(value))
        if not (_PLAIN.fullmatch(text) and text.isprintable()):
            text = _printable(msgspec.json.encode(text).decode())
        parts.append(f"{_printable(name)}={text}")
    line = " ".join(parts)
    # A traceback of ours on a terminal is read by a person; each of its lines is indented, so that
    # none can pass for a line of the log.
    trace = str(fields.get("traceback", "")).rstrip("\n")
    return line + "".join(f"\n    {_printable(row)}" for row in trace.splitlines())


def _printable(text: str) -> str:
    """A text that does nothing to a terminal and cannot end a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
