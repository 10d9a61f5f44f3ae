import io
import json
import logging
import re
import threading
import time
import warnings

import pytest

from monitor import logs
from monitor.logs import KEYS_MAX, WINDOW_S, Handler, Limiter, configure, mask, mask_url


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def root():
    """The root logger, put back as it was."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    yield root
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)


class Written:
    """A logger of its own, whose lines can be read back."""

    def __init__(self, *, as_text=False):
        self.clock = Clock()
        self.stream = io.StringIO()
        self.handler = Handler(
            self.stream, as_text=as_text, limiter=Limiter(self.clock), clock=lambda: 0.0
        )
        self.log = logging.Logger("monitor.test")  # noqa: LOG001  (unknown to everybody else)
        self.log.addHandler(self.handler)

    def warn(self, event, **fields):
        self.log.warning(event, extra={"fields": fields})

    def info(self, event, **fields):
        self.log.info(event, extra={"fields": fields})

    @property
    def text(self):
        return self.stream.getvalue()

    @property
    def lines(self):
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def written():
    made = []

    def make(**options):
        made.append(Written(**options))
        return made[-1]

    yield make
    for one in made:
        one.handler.close()


# ------------------------------------------------------------------------------- a line


def test_a_json_line_has_time_level_event_and_the_fields(written):
    out = written()
    out.info("feed_lost", venue="bybit", attempt=3, delay_s=4.2, ok=True, none=None)
    (line,) = out.lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "INFO",
        "event": "feed_lost",
        "venue": "bybit",
        "attempt": 3,
        "delay_s": 4.2,
        "ok": True,
        "none": None,
    }


def test_a_line_on_a_terminal_is_readable_and_quotes_what_has_to_be(written):
    out = written(as_text=True)
    out.info("feed_lost", venue="bybit", detail="no route", delay_s=4.2000001)
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3} INFO    feed_lost venue=bybit detail="no route" delay_s=4.2\n',
        out.text,
    )


@pytest.mark.parametrize("as_text", [True, False])
def test_a_value_from_outside_cannot_forge_a_line(written, as_text):
    out = written(as_text=as_text)
    out.info("feed_lost", detail='x\n{"level":"ERROR"}\r\x1b[2J\u2028 level=ERROR')
    assert not as_text or len(out.text.splitlines()) == 1
    assert out.text.count("\n") == 1
    assert "\x1b" not in out.text


def test_a_field_cannot_take_the_place_of_our_own_keys(written):
    out = written()
    out.log.info("started", extra={"fields": {"level": "DEBUG", "ts": 1, "event": "other"}})
    assert out.lines[0]["level"] == "INFO"
    assert out.lines[0]["_level"] == "DEBUG"
    assert out.lines[0]["_ts"] == 1
    assert out.lines[0]["_event"] == "other"


def test_a_librarys_sentence_becomes_the_message_of_one_event(written):
    out = written()
    out.log.info("connection to %s failed", "x")
    assert out.lines[0]["event"] == "log"
    assert out.lines[0]["logger"] == "monitor.test"
    assert out.lines[0]["message"] == "connection to x failed"


def test_an_exception_keeps_its_traceback(written):
    out = written()
    try:
        int("redis://:hunter2@host")
    except ValueError:
        out.log.exception("it_broke")
    assert "test_logs.py" in out.lines[0]["traceback"]
    assert "ValueError" in out.lines[0]["traceback"]
    assert "hunter2" not in out.text


def test_a_traceback_on_a_terminal_is_indented(written):
    out = written(as_text=True)
    out.log.error("it_broke", exc_info=ValueError("x"))
    first, *rest = out.text.splitlines()
    assert first.endswith("it_broke")
    assert rest
    assert all(line.startswith("    ") for line in rest)


class Hostile:
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**80,
        b"\xff\xfe",
        "\ud800",
        {"a": [1, {2: 3}]},
        {1, 2},
        object(),
        Hostile(),
        "x" * 1_000_000,
        Exception("x"),
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_any_value_makes_a_line(written, value, as_text):
    out = written(as_text=as_text)
    out.info("event", value=value)
    assert out.handler.failed == 0
    assert len(out.text) < 5_000
    if not as_text:
        assert out.lines[0]["event"] == "event"


@pytest.mark.parametrize("fields", ["text", 7, None, [1], {7: 8}, {}])
def test_fields_that_are_none_do_not_raise(written, fields):
    out = written()
    out.log.info("event", extra={"fields": fields})
    assert out.lines[0]["event"] == "event"


def test_a_message_with_wrong_arguments_is_still_written(written):
    out = written()
    out.log.info("a %d b", "text")
    assert out.lines[0]["message"] == "a %d b"


def test_a_closed_stream_is_counted_and_does_not_raise(written):
    out = written()
    out.stream.close()
    out.info("event")
    out.warn("event")
    assert out.handler.failed == 2
    out.handler.flush()
    out.stream = io.StringIO()


def test_a_value_that_contains_itself_does_not_raise(written):
    out = written()
    loop = []
    loop.append(loop)
    out.info("event", value=loop)
    out.info("event")
    assert out.lines[-1]["event"] == "event"


# ------------------------------------------------------------------------------ repeats


def test_a_repeated_warning_is_written_once_and_then_summed_up(written):
    out = written()
    for _ in range(5):
        out.warn("feed_unreachable", feed="okx.public.0", reason="dns", attempt=1)
    assert len(out.lines) == 1
    out.clock.seconds = WINDOW_S
    out.info("something_else")
    summary = out.lines[1]
    assert summary["event"] == "feed_unreachable"
    assert summary["suppressed"] == 4
    assert (summary["feed"], summary["reason"]) == ("okx.public.0", "dns")
    assert summary["level"] == "WARNING"
    assert "attempt" not in summary
    assert out.lines[2]["event"] == "something_else"


def test_a_warning_after_the_window_is_a_first_one_again(written):
    out = written()
    out.warn("event", venue="okx")
    out.clock.seconds = WINDOW_S
    out.warn("event", venue="okx")
    assert [line.get("suppressed") for line in out.lines] == [None, None]


def test_warnings_that_differ_in_a_telling_field_are_not_repeats(written):
    out = written()
    out.warn("feed_lost", venue="okx", reason="cut")
    out.warn("feed_lost", venue="okx", reason="hung")
    out.warn("feed_lost", venue="bybit", reason="cut")
    out.warn("feed_other", venue="okx", reason="cut")
    assert len(out.lines) == 4


def test_warnings_that_differ_in_another_field_are_repeats(written):
    out = written()
    for attempt in range(4):
        out.warn("feed_lost", venue="okx", attempt=attempt, detail=f"x{attempt}")
    assert len(out.lines) == 1


def test_a_librarys_sentences_are_repeats_by_their_template(written):
    out = written()
    for number in range(4):
        out.log.warning("slow call %d", number)
    out.handler.flush()
    assert [line["message"] for line in out.lines] == ["slow call 0", "slow call %d"]
    assert out.lines[1]["suppressed"] == 3


def test_infos_are_never_suppressed(written):
    out = written()
    for _ in range(5):
        out.info("feed_opened", feed="x")
    assert len(out.lines) == 5


def test_the_kept_warnings_are_bounded():
    limiter = Limiter(Clock())
    for number in range(3 * KEYS_MAX):
        limiter.admits("WARNING", "event", {"reason": number})
    for number in range(3 * KEYS_MAX):
        limiter.admits("WARNING", f"event_{number}", {})
    assert len(limiter) == 2 * KEYS_MAX
    total = sum(fields["suppressed"] for *_, fields in limiter.summaries(all_=True))
    assert total == 2 * KEYS_MAX - 1, "the first events beyond the bound are counted"


def test_closing_writes_the_summaries_that_are_left(written):
    out = written()
    out.warn("event")
    out.warn("event")
    out.handler.close()
    assert out.lines[-1]["suppressed"] == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "log-summary"]


def test_a_summary_is_written_even_if_nothing_is_logged_any_more(written, monkeypatch):
    monkeypatch.setattr(logs, "WINDOW_S", 0.05)
    out = written()
    out.warn("event")
    out.warn("event")
    out.clock.seconds = 1.0
    deadline = time.monotonic() + 60
    while len(out.lines) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert out.lines[1]["suppressed"] == 1


def test_threads_lose_no_repeat(written):
    out = written()
    threads = [
        threading.Thread(target=lambda: [out.warn("event") for _ in range(200)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.handler.flush()
    assert len(out.lines) == 2
    assert out.lines[1]["suppressed"] == 799


# ------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://user:hunter2@host:6379/0", "redis://***@host:6379/0"),
        ("redis://:hunter2@host", "redis://***@host"),
        ("rediss://:hun/ter2@host:1/0", "rediss://***@host:1/0"),
        ("redis://user:12/hunter2@host", "redis://***@host"),
        ("redis://:hunt@er2@host", "redis://***@host"),
        ("redis://:hun?ter2#@[::1]:6379", "redis://***@[::1]:6379"),
        ("https://hunter2@host/path", "https://***@host/path"),
        ("https://u:hunt/er2@host/path", "https://***@host/path"),
        ("https://host/?api_key=hunter2&limit=5", "https://host/?api_key=***&limit=5"),
        ("https://host/?limit=5&Signature=hunter2", "https://host/?limit=5&Signature=***"),
        ("unix:///run/redis.sock?password=hunter2", "unix:///run/redis.sock?password=***"),
        ("redis+cluster://:hunter2@a:1", "redis+cluster://***@a:1"),
    ],
)
def test_a_secret_in_a_url_is_masked(url, masked):
    assert mask_url(url) == masked
    assert mask(f'("{url}")') == f'("{masked}")'
    assert "hunter2" not in mask(f"cannot reach {url}: refused; {url}")


@pytest.mark.parametrize(
    "url",
    [
        "wss://fstream.binance.com/stream?streams=btcusdt@depth@100ms",
        "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000",
        "http://127.0.0.1:9464/",
        "http://[::1]:9464/",
        "redis://127.0.0.1:6379/0",
        "no url at all",
        "",
    ],
)
def test_a_url_without_a_secret_stays_as_it_is(url):
    assert mask_url(url) == url
    assert mask(url) == url


@pytest.mark.parametrize("as_text", [True, False])
def test_no_field_however_deep_shows_a_secret(written, as_text):
    out = written(as_text=as_text)
    url = "redis://:hunter2@host"
    out.info(
        "event", url=url, more={"list": [url], url: 1}, error=ValueError(url), raw=url.encode()
    )
    out.log.info("cannot reach %s", url)
    assert "hunter2" not in out.text
    assert out.text.count("***@host") >= 5


def test_a_secret_is_masked_where_a_long_value_is_cut(written):
    out = written()
    out.info("event", value="x" * (logs.TEXT_MAX - 12) + " redis://:hunter2@host")
    assert "hunt" not in out.text


# ---------------------------------------------------------------------------- configure


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("text", io.StringIO, False),
    ],
)
@pytest.mark.usefixtures("root")
def test_auto_is_text_on_a_terminal_only(form, stream, is_json):
    out = stream()
    configure("INFO", form, out)
    logging.getLogger("monitor.x").info("started")
    assert out.getvalue().startswith("{") is is_json


@pytest.mark.usefixtures("root")
def test_the_level_is_heeded_and_an_unknown_one_is_info():
    out = io.StringIO()
    configure("WARNING", "json", out)
    logging.getLogger("monitor.x").info("hidden")
    configure("LOUD", "json", out)
    logging.getLogger("monitor.x").debug("hidden")
    logging.getLogger("monitor.x").info("shown")
    assert "hidden" not in out.getvalue()
    assert "shown" in out.getvalue()


@pytest.mark.usefixtures("root")
def test_configuring_again_replaces_and_does_not_double():
    first, second = io.StringIO(), io.StringIO()
    configure("INFO", "json", first)
    configure("INFO", "json", second)
    logging.getLogger("monitor.x").info("started")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


@pytest.mark.usefixtures("root")
def test_the_chatter_of_libraries_is_left_out():
    out = io.StringIO()
    configure("DEBUG", "json", out)
    logging.getLogger("websockets.client").debug("> TEXT '...'")
    logging.getLogger("websockets.client").warning("odd")
    assert json.loads(out.getvalue())["message"] == "odd"


@pytest.mark.usefixtures("root")
def test_pythons_own_warnings_are_logged():
    out = io.StringIO()
    configure("INFO", "json", out)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert json.loads(out.getvalue())["logger"] == "py.warnings"


@pytest.mark.usefixtures("root")
def test_without_a_stream_it_writes_to_standard_error(capsys):
    configure("INFO", "json")
    logging.getLogger("monitor.x").info("started")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "started"
