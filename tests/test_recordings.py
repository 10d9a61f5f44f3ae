"""Public recordings come out right; what they do not hold is not invented."""

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest
import zstandard

from monitor.config import PipelineConfig, parse_instruments
from monitor.events import NS, Frame, Lost, Opened, Reply, Tick
from monitor.pipeline import Pipeline
from monitor.recordings import RecordingError, inputs, unspecified
from tests.builders import config, instrument

MARK = (
    '{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1700000001000,'
    '"s":"BTCUSDT","p":"50000","i":"50001","r":"0.0001","T":1700006400000}}'
)


def pipeline_config() -> PipelineConfig:
    whole = config()
    return PipelineConfig(whole.venues, whole.engine, [instrument()])


def shipped_config() -> PipelineConfig:
    whole = config()
    table = Path("config/instruments.toml").read_text(encoding="utf-8")
    return PipelineConfig(whole.venues, whole.engine, parse_instruments(table, "instruments"))


def replayed(kind, files, base=None) -> Pipeline:
    effective, records = inputs(kind, files, base or shipped_config())
    pipeline = Pipeline(effective)
    for record in records:
        pipeline.step(record)
    return pipeline


@cache
def replayed_once(*files) -> Pipeline:
    """What two tests look at, and neither changes."""
    return replayed("hftbacktest", files)


def test_tardis_lines_become_frames_and_an_empty_line_a_lost_connection(tmp_path):
    file = tmp_path / "r.txt"
    file.write_text(f"2023-11-14T22:13:20.0000001Z {MARK}\n\n2023-11-14T22:13:21.5000000Z {MARK}\n")
    effective, records = inputs("tardis", [file], pipeline_config())
    found = [r for r in records if not isinstance(r, Tick)]
    assert effective.venues["binance"].instruments == {"BTCUSDT": "BTC"}
    frames = [r for r in found if isinstance(r, Frame)]
    assert [r.at for r in frames] == [1_700_000_000_000_000_100, 1_700_000_001_500_000_000]
    assert frames[0].data == MARK.encode()
    kinds = [type(r) for r in found]
    assert kinds[:3] == [Opened, Opened, Frame]
    assert kinds[3:5] == [Lost, Lost]
    assert kinds[5:7] == [Opened, Opened]


def test_ticks_stand_at_whole_intervals_of_the_recordings_own_time(tmp_path):
    file = tmp_path / "r.gz"
    with gzip.open(file, "wt") as out:
        out.write(f"1700000000100000 {MARK}\n1700000000900000 {MARK}\n")
    _, records = inputs("hftbacktest", [file], pipeline_config())
    ticks = [r.at for r in records if isinstance(r, Tick)]
    assert [at % 250_000_000 for at in ticks] == [0, 0, 0, 0]
    assert ticks[0] == 1_700_000_000_250_000_000


def test_a_depth_snapshot_line_answers_the_request_for_its_symbol(tmp_path):
    file = tmp_path / "r.dat"
    snapshot = '{"lastUpdateId":1,"bids":[],"asks":[]}'
    file.write_text(f"1700000000000000 {snapshot}\n1700000000000001 {MARK}\n")
    _, records = inputs("hftbacktest", [file], pipeline_config())
    replies = [r for r in records if isinstance(r, Reply)]
    assert [(r.venue, r.key, r.status) for r in replies] == [("binance", "depth:BTCUSDT", 200)]


SNAPSHOT = '{"lastUpdateId":1,"bids":[],"asks":[]}'


@pytest.mark.parametrize(
    "line", [SNAPSHOT, f'{{"stream":"btcusdt@depthSnapshot","generated":true,"data":{SNAPSHOT}}}']
)
def test_tardis_depth_snapshots_are_known_bare_and_wrapped(tmp_path, line):
    file = tmp_path / "r"
    stamp = "2023-11-14T22:13:20.0000001Z"
    file.write_text(f"{stamp} {line}\n{stamp} {MARK}\n")
    _, records = inputs("tardis", [file], pipeline_config())
    replies = [r for r in records if isinstance(r, Reply)]
    assert [(r.key, json.loads(r.data)["lastUpdateId"]) for r in replies] == [("depth:BTCUSDT", 1)]


@pytest.mark.parametrize("time", ['"time":1700000000000', None])
def test_tardis_open_interest_is_heard_as_the_answer_that_it_was(tmp_path, time):
    body = ",".join(filter(None, ['"openInterest":"5.5"', '"symbol":"BTCUSDT"', time]))
    line = f'{{"stream":"btcusdt@openInterest","generated":true,"data":{{{body}}}}}'
    file, stamp = tmp_path / "r", "2023-11-14T22:13:2"
    file.write_text(f"{stamp}0Z {MARK}\n{stamp}1Z {line}\n{stamp}2Z {MARK}\n")
    pipeline = replayed("tardis", [file])
    state = pipeline.engine.instruments["binance:BTCUSDT"]
    assert (state.open_interest_base, state.open_interest_at // NS) == (5.5, 1_700_000_001)
    assert not pipeline.engine.rejected


def test_symbols_without_a_specification_anywhere_are_named(tmp_path):
    file = tmp_path / "r"
    file.write_text(f"1700000000000000 {MARK}\n1700000000000001 {MARK.replace('BTC', 'DOGE')}\n")
    effective, _ = inputs("hftbacktest", [file], pipeline_config())
    assert unspecified(effective, set()) == ["binance:DOGEUSDT"]
    assert unspecified(effective, {"binance"}) == []


def test_a_long_pause_is_a_lost_connection_and_not_a_million_ticks(tmp_path):
    file = tmp_path / "r"
    file.write_text(f"1600000000000000 {MARK}\n1700000000000000 {MARK}\n")
    _, records = inputs("hftbacktest", [file], pipeline_config())
    found = list(records)
    assert len(found) < 20
    assert sum(isinstance(r, Lost) for r in found) == 2
    assert sum(isinstance(r, Opened) for r in found) == 4


def test_a_damaged_source_is_refused_with_its_name(tmp_path):
    file = tmp_path / "r.gz"
    file.write_bytes(gzip.compress(f"1700000000000000 {MARK}\n".encode() * 1000)[:-20])
    with pytest.raises(RecordingError, match=r"r\.gz: damaged"):
        inputs("hftbacktest", [file], pipeline_config())


def cryptofeed_file(path: Path, rows: list[dict]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(zstandard.compress(text.encode()))
    return path


def test_a_cryptofeed_recording_keeps_its_order_of_time_and_leaves_out_other_products(tmp_path):
    stream, rest = "wss://stream.bybit.com/v5/public", "https://api.bybit.com/v5/market"
    ticker = '{"topic":"tickers.BTCUSDT","type":"snapshot","data":{"symbol":"BTCUSDT"},"ts":1}'
    instruments = f"{rest}/instruments-info?category=linear&limit=1000"
    rows = [
        {"t": "header", "format": 2, "exchange": "BYBIT"},
        {"t": "connect", "conn": "a", "ts": 1.0, "addr": f"{stream}/linear"},
        {"t": "connect", "conn": "b", "ts": 1.0, "addr": f"{stream}/spot"},
        {"t": "recv", "conn": "a", "ts": 3.0, "data": ticker},
        {"t": "recv", "conn": "b", "ts": 2.0, "data": ticker},
        {"t": "http", "conn": "h", "ts": 1.5, "url": instruments, "data": "{}"},
    ]
    file = cryptofeed_file(tmp_path / "BYBIT.jsonl.zst", rows)
    _, records = inputs("cryptofeed", [file], shipped_config())
    found = [r for r in records if isinstance(r, Frame | Reply)]
    assert [(type(r), r.at) for r in found] == [(Reply, 1_500_000_000), (Frame, 3_000_000_000)]


@pytest.mark.parametrize("ts", ["x", 1e300])
def test_a_bad_time_in_a_cryptofeed_recording_is_named_with_its_line(tmp_path, ts):
    rows = [{"t": "connect", "conn": "a", "ts": 1.0}, {"t": "recv", "conn": "a", "ts": ts}]
    file = cryptofeed_file(tmp_path / "X.jsonl.zst", rows)
    with pytest.raises(RecordingError, match=r"X\.jsonl\.zst:2: no time in"):
        inputs("cryptofeed", [file], pipeline_config())


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("tardis", "yesterday {}\n", "r:1: no time"),
        ("hftbacktest", "x {}\n", "r:1: no time"),
        ("hftbacktest", f"{1 << 63} {{}}\n", "r:1: no time"),
        ("hftbacktest", "-1 {}\n", "r:1: no time"),
        ("cryptofeed", "wss://stream.bybit.com/v5/public/linear <-> 1.2.3\n", "r:1: no time"),
        ("cryptofeed", "nan: {}\n", "r:1: no time"),
        ("cryptofeed", "inf: {}\n", "r:1: no time"),
        ("hftbacktest", '1 {"hello":1}\n', "no message of"),
        ("tardis", "", "no message of"),
    ],
)
def test_a_file_in_another_format_is_refused_with_its_line(tmp_path, kind, text, message):
    file = tmp_path / "r"
    file.write_text(text)
    with pytest.raises(RecordingError, match=message):
        inputs(kind, [file], pipeline_config())


# ------------------------------------------------------------------ real recordings, if there


class NaiveBook:
    """A dictionary a side, by the venue's documented rule, independent of the codec."""

    def __init__(self):
        self.sides = ({}, {})
        self.snapshot_id = None

    def levels(self, side, rows):
        for price, quantity in rows:
            if Decimal(quantity) == 0:
                self.sides[side].pop(Decimal(price), None)
            else:
                self.sides[side][Decimal(price)] = Decimal(quantity)

    def text(self):
        def plain(number):
            text = format(number, "f")
            return text.rstrip("0").rstrip(".") if "." in text else text

        bids = sorted(self.sides[0].items(), reverse=True)
        asks = sorted(self.sides[1].items())
        lines = [f"b {plain(p)} {plain(q)}" for p, q in bids]
        return "\n".join(lines + [f"a {plain(p)} {plain(q)}" for p, q in asks])


def naive_binance(files) -> tuple[str, int]:
    """Final book as text, and the number of trades in the order book."""
    book, trades, early = NaiveBook(), 0, []
    for file in files:
        with gzip.open(file, "rt") as lines:
            for line in lines:
                message = json.loads(line.split(" ", 1)[1])
                if "lastUpdateId" in message:
                    book.levels(0, message["bids"])
                    book.levels(1, message["asks"])
                    book.snapshot_id = message["lastUpdateId"]
                    for data in early:
                        if data["u"] >= book.snapshot_id:
                            book.levels(0, data["b"])
                            book.levels(1, data["a"])
                    continue
                data = message["data"]
                if data["e"] == "trade":
                    trades += data["X"] == "MARKET"
                elif data["e"] == "depthUpdate":
                    if book.snapshot_id is None:
                        early.append(data)
                    elif data["u"] >= book.snapshot_id:
                        book.levels(0, data["b"])
                        book.levels(1, data["a"])
    return book.text(), trades


@pytest.mark.parametrize(
    "names",
    [
        ("btcusdt_20230404.dat.gz", "btcusdt_20230405.dat.gz"),
        ("btcusdt_20240718.gz", "btcusdt_20240719.gz"),
    ],
)
def test_real_binance_recordings_give_a_true_book_through_the_file_boundary(shared, names):
    files = [shared / "hftbacktest_raw/usdm" / name for name in names]
    summary = replayed_once(*files)
    state = summary.engine.instruments["binance:BTCUSDT"]
    text, trades = naive_binance(files)
    assert (state.book.state, state.book.gaps, state.book.resyncs) == ("synced", 0, 0)
    assert state.book.text(state.quantity_decimals) == text
    assert state.trades == trades
    assert not summary.engine.rejected


@pytest.mark.parametrize(
    ("name", "venue", "count"),
    [
        ("BINANCE_FUTURES.jsonl.zst", "binance", 4),
        ("BYBIT.jsonl.zst", "bybit", 4),
        ("OKX.jsonl.zst", "okx", 2),
        ("OKX.ws.1.0@c62f742", "okx", 0),
    ],
)
def test_real_cryptofeed_recordings_sync_every_book_without_a_gap(shared, name, venue, count):
    pipeline = replayed("cryptofeed", [shared / "cryptofeed_sample" / name])
    states = list(pipeline.engine.instruments.values())
    assert [s.spec.venue for s in states] == [venue] * len(states)
    assert len(states) >= count
    for state in states:
        assert (state.book.state, state.book.gaps) == ("synced", 0), state.spec.name
    if venue == "bybit":
        assert all(s.funding is not None and s.open_interest_base for s in states)


def test_the_tardis_form_of_a_real_recording_gives_the_same_book(shared, tmp_path):
    names = ("btcusdt_20240718.gz", "btcusdt_20240719.gz")
    files = [shared / "hftbacktest_raw/usdm" / name for name in names]
    rewritten = tmp_path / "tardis.gz"
    with gzip.open(rewritten, "wt", compresslevel=1) as out:
        for file in files:
            with gzip.open(file, "rt") as lines:
                for line in lines:
                    at, _, data = line.partition(" ")
                    whole = datetime.fromtimestamp(int(at) // 10**9, UTC).strftime("%FT%T")
                    if data.startswith('{"lastUpdateId"'):
                        data = f'{{"stream":"btcusdt@depthSnapshot","data":{data.strip()}}}\n'
                    out.write(f"{whole}.{int(at) % 10**9:09d}Z {data}")
    there, again = (
        pipeline.engine.instruments["binance:BTCUSDT"].book
        for pipeline in (replayed_once(*files), replayed("tardis", [rewritten]))
    )
    assert again.checksum(3) == there.checksum(3)
    assert again.state == "synced"


def test_real_hyperliquid_frames_give_a_synced_book(shared):
    file = shared / "hftbacktest_raw/hyperliquid/btcusd_20250126.gz"
    pipeline = replayed("hftbacktest", [file])
    state = pipeline.engine.instruments["hyperliquid:BTC"]
    assert state.book.state == "synced"
    assert state.book.size() == (20, 20)


def test_coin_margined_frames_are_none_of_ours(shared):
    file = shared / "hftbacktest_raw/cm/btcusd_perp_20240808.gz"
    with pytest.raises(RecordingError, match="no message of"):
        inputs("hftbacktest", [file], shipped_config())
