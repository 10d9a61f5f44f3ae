"""`heatmap` and `backtest` as their user calls them: what is printed, and the exit codes."""

import json
import logging
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from redis import Redis

from monitor import ask, cli
from monitor.backtest import command, heatmap
from monitor.events import Message
from monitor.sinks.embedded import Embedded, EmbeddedError, find_binary
from monitor.sinks.envelope import encode
from monitor.summary import clusters, dollars
from tests.test_picture import AT, history
from tests.test_picture import heatmap as a_map

MAP = a_map(missing=["okx:BTC-USDT-SWAP"])


def message(kind, data, *, at_us=AT, venue=""):
    return encode(
        Message(kind=kind, asset="BTC", seq=1, at=at_us * 1000, data=data, venue=venue), "r"
    )


NOW = message("heatmap", MAP)
ROWS = [message("heatmap:log", row, at_us=at_us) for at_us, row in history(rows=7)]


@pytest.fixture(autouse=True)
def quiet():
    """The command line sets up logging; leave none of it behind."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@contextmanager
def daemon(answers, authorization=None):
    """An HTTP server that gives (status, body) by path; the queries it was asked, as they come.

    With an `authorization` it answers those only who send that header.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlsplit(self.path)
            asked.append((url.path, parse_qs(url.query)))
            status, body = answers.get(url.path, (404, b'{"error":"no such asset or state"}'))
            if authorization not in {None, self.headers.get("Authorization", "")}:
                status, body = 401, b'{"error":"a bearer token is needed"}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


MAP_PATH = "/api/v1/assets/BTC/heatmap"
LOG_PATH = f"{MAP_PATH}/log"


def test_a_table_tells_what_is_at_risk_where_and_what_is_missing(capsys):
    with daemon({MAP_PATH: (200, NOW)}) as (url, asked):
        assert cli.main(["heatmap", "BTC", "--url", url]) == 0
    out = capsys.readouterr().out
    (peak,) = clusters(MAP, "long", count=1, reach=0.1)
    for needed in (
        "BTC", "UTC", "mark 100,000", "confidence 42 %", "0.60 to 1.67", "okx:BTC-USDT-SWAP",
        "longs closed", "$10.0M", "largest clusters", dollars(peak.usd), f"{peak.low:,.6g}",
    ):  # fmt: skip
        assert needed in out, needed
    assert asked == [(MAP_PATH, {})]


@pytest.mark.parametrize("typed", ["btc", "Btc"])
def test_an_asset_may_be_typed_without_capitals(typed):
    with daemon({MAP_PATH: (200, NOW)}) as (url, asked):
        assert cli.main(["heatmap", typed, "--url", url]) == 0
    assert asked == [(MAP_PATH, {})]


def test_assets_that_differ_in_capitals_only_are_told_apart(tmp_path):
    both = '{ BTCUSDT = "BTC", "btcusdt" = "btc" }'
    (tmp_path / "both.toml").write_text(f"[venues.bybit]\ninstruments = {both}\n")
    paths = {f"/api/v1/assets/{name}/heatmap": (200, NOW) for name in ("BTC", "btc")}
    with daemon(paths) as (url, asked):
        for name in ("BTC", "btc"):
            options = ["--config", str(tmp_path / "both.toml"), "--url", url]
            assert cli.main(["heatmap", name, *options]) == 0
    assert [path for path, _ in asked] == list(paths)


def test_json_is_the_message_as_the_daemon_sent_it(capsys):
    with daemon({MAP_PATH: (200, NOW)}) as (url, asked):
        assert cli.main(["heatmap", "BTC", "--venue", "okx", "--json", "--url", url]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(NOW)
    assert asked == [(MAP_PATH, {"venue": ["okx"]})]


@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_picture_has_the_past_where_the_daemon_serves_it(status, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(cli.picture, "draw", lambda *_, **fields: drawn.append(fields) or b"png")
    rows = b'{"lacks":"","entries":[' + b",".join(ROWS) + b"]}" if status == 200 else b"{}"
    with daemon({MAP_PATH: (200, NOW), LOG_PATH: (status, rows)}) as (url, asked):
        file = tmp_path / "map.png"
        assert cli.main(["heatmap", "BTC", "--png", str(file), "--minutes", "1", "--url", url]) == 0
    assert file.read_bytes() == b"png"
    assert asked[1] == (LOG_PATH, {"minutes": ["1"]})
    # A minute is the last five of the rows that came.
    assert len(drawn[0]["history"]) == (5 if status == 200 else 0)


def test_a_picture_is_drawn_and_one_of_a_venue_has_no_past(tmp_path):
    with daemon({MAP_PATH: (200, message("heatmap", MAP, venue="okx"))}) as (url, asked):
        file = tmp_path / "map.png"
        options = ["--venue", "okx", "--png", str(file), "--size", "640x400", "--dark"]
        assert cli.main(["heatmap", "BTC", *options, "--url", url]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert [path for path, _ in asked] == [MAP_PATH]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["DOGE"], cli.USAGE, "no such asset"),
        (["ETH"], cli.UNHEALTHY, "not known now"),
        (["SOL"], cli.UNHEALTHY, "not a message of ours"),
        (["XRP"], cli.UNHEALTHY, "version 2"),
        (["BTC", "--minutes", "5"], cli.USAGE, "only a picture"),
        (["BTC", "--png", "x.png", "--venue", "okx", "--minutes", "5"], cli.USAGE, "all venues"),
        (["BTC", "--png", "x.png", "--size", "10x10"], cli.USAGE, "640x400"),
        (
            ["BTC", "--png", "/no/such/folder/x.png"],
            cli.USAGE,
            "there is no folder /no/such/folder",
        ),
        (["BTC", "--png", "x.jpg"], cli.USAGE, "--png x.jpg: a PNG is drawn"),
        (
            ["BTC", "--config", "/no/such/file"],
            cli.CONFIGURATION,
            "--config /no/such/file: no such",
        ),
    ],
)
def test_what_cannot_be_shown_is_explained_and_has_its_exit_code(options, code, said, capsys):
    answers = {
        MAP_PATH: (200, NOW),
        "/api/v1/assets/ETH/heatmap": (503, b'{"error":"not known now"}'),
        "/api/v1/assets/SOL/heatmap": (200, b'{"v":1}'),
        "/api/v1/assets/XRP/heatmap": (200, NOW.replace(b'"v":1', b'"v":2')),
    }
    with daemon(answers) as (url, _):
        assert cli.main(["heatmap", *options, "--url", url]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [(["heatmap", "BTC"], "--png"), (["replay", "x"], "--summary"), (["record"], "--out")],
)
def test_a_result_that_cannot_be_written_is_said_before_any_work(
    command, option, tmp_path, monkeypatch, capsys
):
    file = tmp_path / "there.png"
    file.write_bytes(b"")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    bad = {file} if option == "--out" else {folder}
    if option != "--out":
        monkeypatch.setattr(cli.os, "access", lambda *_: False)
        bad.add(file)
    for path in bad:
        assert cli.main([*command, option, str(path)]) == cli.USAGE
        err = capsys.readouterr().err
        assert err.startswith(f"cascade-monitor: {option} {path}: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["replay", "/no/such"], "/no/such: no such file or directory"),
        (["replay", "FOLDER"], "FOLDER: no journal there"),
        (["import", "tardis", "FOLDER", "--out", "x"], "FOLDER: is a directory"),
        (["healthcheck", "--config", "FOLDER"], "--config FOLDER: is a directory"),
        (["backtest", "history", "--data", "FOLDER"], "FOLDER: no file named"),
        (["stress", "BTC", "--shock=-3%", "--within", "soon"], "--within: 'soon': seconds from 0"),
        (["demo", "--speed", "nan"], "--speed: 'nan' is not a number above 0"),
    ],
)
def test_what_is_wrong_is_told_in_one_plain_line(command, said, tmp_path, capsys):
    words = [word.replace("FOLDER", str(tmp_path)) for word in command]
    try:
        code = cli.main(words)
    except SystemExit as ended:
        code = ended.code
    assert code in {cli.USAGE, cli.CONFIGURATION}
    err = capsys.readouterr().err
    assert said.replace("FOLDER", str(tmp_path)) in err
    assert "Errno" not in err
    assert "Traceback" not in err


def test_the_help_of_a_report_on_recorded_history_says_which_columns_it_reads(capsys):
    with pytest.raises(SystemExit):
        cli.main(["backtest", "history", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for needed in ("t (Unix ms)", "oi (base units)", "oi_usd or price", "ts (Unix ms)", "rate"):
        assert needed in out, needed


@pytest.mark.parametrize(
    ("where", "code"),
    [
        (["--url", "http://127.0.0.1:1"], cli.UNHEALTHY),
        (["--url", "file:///etc/passwd"], cli.USAGE),
        (["--redis", "redis://127.0.0.1:1/0"], cli.UNHEALTHY),
        (["--redis", "http://user:hunter2@host"], cli.USAGE),
    ],
)
def test_a_daemon_that_is_not_there_is_told_from_an_address_that_is_none(where, code, capsys):
    assert cli.main(["heatmap", "BTC", *where]) == code
    assert "hunter2" not in capsys.readouterr().err


@pytest.fixture
def proxied(monkeypatch):
    """Tells the environment that a proxy is there."""

    def through(url):
        monkeypatch.setenv("http_proxy", url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)

    return through


NOBODY = "http://127.0.0.1:1"


def test_the_own_daemon_is_told_the_token_and_no_proxy_is_asked(proxied, monkeypatch, capsys):
    proxied(NOBODY)
    paths = {MAP_PATH: (200, NOW), "/api/v1/assets/BTC/stress": (404, b"{}")}
    with daemon(paths, "Bearer 123") as (url, asked):
        monkeypatch.setenv("CASCADE_HTTP__PORT", url.rpartition(":")[2])
        monkeypatch.setenv("CASCADE_HTTP__TOKEN", "123")
        assert cli.main(["heatmap", "BTC"]) == 0
        assert cli.main(["stress", "BTC", "--shock", "-3%"]) == cli.USAGE
    assert len(asked) == 2
    assert "401" not in capsys.readouterr().err


def test_a_daemon_that_was_named_is_not_told_the_token(proxied, monkeypatch):
    proxied(NOBODY)
    monkeypatch.setenv("CASCADE_HTTP__TOKEN", "123")
    with daemon({MAP_PATH: (200, NOW)}, "") as (url, _):
        assert cli.main(["heatmap", "BTC", "--url", url]) == 0


def test_a_daemon_far_away_is_reached_through_the_proxy(proxied):
    with daemon({MAP_PATH: (200, NOW)}) as (url, asked):
        proxied(url)
        assert cli.main(["heatmap", "BTC", "--url", "http://daemon.example:9464"]) == 0
    assert asked == [(MAP_PATH, {})]


def test_the_health_check_asks_the_daemon_and_no_proxy(proxied, monkeypatch):
    proxied(NOBODY)
    with daemon({"/readyz": (200, b"{}")}) as (url, _):
        monkeypatch.setenv("CASCADE_HTTP__PORT", url.rpartition(":")[2])
        assert cli.main(["healthcheck"]) == 0


EVERYWHERE = """
[redis]
url = "redis://real"
[mqtt]
enabled = true
[webhook]
enabled = true
urls = ["https://pager.example/x"]
"""


def test_a_recording_goes_to_the_journal_and_nowhere_else(tmp_path, monkeypatch):
    ran = []

    async def run(config, *_):
        ran.append(config)

    monkeypatch.setattr(cli.app, "run", run)
    (tmp_path / "f.toml").write_text(EVERYWHERE)
    words = ["record", "--config", str(tmp_path / "f.toml"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    (config,) = ran
    assert config.journal.enabled
    for sink in (config.redis, config.mqtt, config.webhook, config.http):
        assert not sink.enabled


@pytest.mark.parametrize("named", [False, True])
def test_a_demo_publishes_outside_only_where_the_environment_says_so(named, tmp_path, monkeypatch):
    ran = []

    async def run(config, *_, **__):
        ran.append(config)

    monkeypatch.setattr(cli.demo, "run", run)
    (tmp_path / "f.toml").write_text(EVERYWHERE)
    monkeypatch.setenv("CASCADE_CONFIG", str(tmp_path / "f.toml"))
    if named:
        monkeypatch.setenv("CASCADE_REDIS__URL", "redis://demos")
        monkeypatch.setenv("CASCADE_MQTT__ENABLED", "true")
    assert cli.main(["demo"]) == 0
    (config,) = ran
    assert config.redis.url == ("redis://demos" if named else "embedded")
    assert config.mqtt.enabled is named
    assert not config.webhook.enabled


def test_without_matplotlib_a_picture_is_refused_and_a_table_is_not(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(cli.sys.modules, "matplotlib.figure", None)
    with daemon({MAP_PATH: (200, NOW)}) as (url, _):
        assert cli.main(["heatmap", "BTC", "--url", url]) == 0
        file = tmp_path / "map.png"
        assert cli.main(["heatmap", "BTC", "--url", url, "--png", str(file)]) == cli.USAGE
    assert "cascade-monitor[picture]" in capsys.readouterr().err
    assert not file.exists()


async def test_redis_gives_the_same_map_and_all_rows_of_the_time_asked_for(tmp_path, monkeypatch):
    try:
        find_binary()
    except EmbeddedError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    monkeypatch.setattr(ask, "CHUNK", 2)  # so that the stream is read in several pieces
    server = Embedded(tmp_path / "redis")
    await server.start()
    try:
        source = ask.InRedis(server.url, "cascade")
        with pytest.raises(ask.Unanswered, match=r"cascade:\{BTC\}:heatmap"):
            source.heatmap("BTC", "")
        with Redis.from_url(server.url) as redis:
            redis.set("cascade:{BTC}:heatmap", NOW)
            redis.set("cascade:{BTC}:heatmap:okx", b"of okx")
            for row in ROWS:
                redis.xadd("cascade:{BTC}:heatmap:log", {"m": row})
        assert source.heatmap("BTC", "") == NOW
        assert source.heatmap("BTC", "okx") == b"of okx"
        every = source.history("BTC", 60.0, AT)
        assert [row.at_us for row in every] == [at_us for at_us, _ in history(rows=7)]
        assert [row.data for row in every] == [row for _, row in history(rows=7)]
        assert source.history("BTC", 1.0, AT) == every[-5:]
        assert source.history("ETH", 1.0, AT) == []
    finally:
        await server.stop(deadline_s=0.0)


# ---------------------------------------------------------------------------------- backtest


@pytest.mark.parametrize(
    ("text", "found"), [("3", [3]), ("100-103", [100, 101, 102, 103]), ("3,7-8", [3, 7, 8])]
)
def test_seeds_are_a_range_or_a_list(text, found):
    assert command.seeds(text) == found


@pytest.mark.parametrize(
    "options",
    [
        ["--seeds", "x"], ["--seeds", "5-3"], ["--seeds", "1,1"], ["--seeds", "0-5000"],
        ["--minutes", "5"], ["--variant", "third"], [],
    ],
)  # fmt: skip
def test_a_wrong_option_of_a_report_ends_at_once(options, capsys):
    name = ["heatmap"] if options else []
    with pytest.raises(SystemExit) as ended:
        cli.main(["backtest", *name, *options])
    assert ended.value.code == cli.USAGE
    assert "usage: cascade-monitor backtest" in capsys.readouterr().err


def test_the_accuracy_report_is_written_and_its_verdicts_printed(tmp_path, monkeypatch, capsys):
    asked = []

    def graded(seeds, *, variants, minutes, progress):
        asked.append((seeds, variants, minutes))
        progress("first 3")
        return {"verdicts": [
            {"target": "spearman above 0", "met": True, "value": 0.5, "low": 0.4, "high": 0.6},
            {"target": "mass right", "met": False, "value": 2.0, "low": 1.5, "high": 2.5},
        ]}  # fmt: skip

    monkeypatch.setattr(heatmap, "report", graded)
    monkeypatch.setattr(heatmap, "page", lambda _: "<p>page")
    out = tmp_path / "deep" / "report"
    options = ["--seeds", "3-4", "--variant", "first", "--minutes", "31", "--out", str(out)]
    assert cli.main(["backtest", "heatmap", *options]) == 0
    assert asked == [([3, 4], ("first",), 31)]
    assert (out / "heatmap.html").read_text() == "<p>page"
    assert "verdicts" in json.loads((out / "heatmap.json").read_text())
    printed = capsys.readouterr()
    assert "met    spearman above 0: 0.500 [0.400, 0.600]\nMISSED mass right: 2.000" in printed.out
    assert "first 3" in printed.err


def test_a_report_that_cannot_be_written_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(heatmap, "report", lambda *_, **__: pytest.fail("begun"))
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "below")
    assert cli.main(["backtest", "heatmap", "--out", out]) == cli.USAGE


def test_an_error_of_ours_has_its_own_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(heatmap, "report", lambda *_, **__: 1 / 0)
    assert cli.main(["backtest", "heatmap", "--out", str(tmp_path)]) == cli.INTERNAL
    assert "ZeroDivisionError" in capsys.readouterr().err
