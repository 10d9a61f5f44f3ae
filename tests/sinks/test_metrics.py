import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from monitor.config import PipelineConfig
from monitor.events import (
    NS,
    BookSnapshot,
    Candles,
    Frame,
    Funding,
    Gap,
    InsuranceFund,
    Liquidation,
    Listed,
    MarkPrice,
    Message,
    OpenInterest,
    Rejected,
    Tick,
    Tier,
)
from monitor.feeds.http import HttpFeed
from monitor.feeds.inbox import Inbox
from monitor.feeds.websocket import WebSocketFeed
from monitor.pipeline import Pipeline
from monitor.sinks.families import BANDS, FAMILIES
from monitor.sinks.metrics import (
    CARRIERS,
    SAMPLE_EVERY,
    Identity,
    Latest,
    Meter,
    Queue,
    Sources,
    build_registry,
    exposition,
    watch_loop,
)
from monitor.sinks.outbox import Outbox
from monitor.sinks.redis import RedisSink
from monitor.venues import VENUES
from monitor.venues.base import REASONS, Codec, FeedSpec, HttpSpec, Stream
from tests.builders import AT, engine_config, instrument, risk, venue_config
from tests.sinks.builders import redis_config

GOLDEN = Path("tests/golden/metrics.txt")
DOCS = Path("docs/metrics.md")
FOUR = ("binance", "bybit", "okx", "hyperliquid")
TEN = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "LTC", "BNB")
CHANNELS = ("book", "trades", "mark", "liquidations", "open_interest")
IDENTITY = Identity(run="run1", version="0.1.0", revision="abc", config_sha256="feed")


class StubCodec(Codec):
    """A venue that has streams, and no wire."""

    def __init__(self, venue, assets, channels=CHANNELS):
        super().__init__(venue_config(instruments=assets), [])
        self.venue = venue
        self.feeds = [FeedSpec(f"{venue}.{part}.0", "ws://127.0.0.1:1") for part in ("a", "b")]
        self.http = HttpSpec("http://127.0.0.1:1", weight=100, window_s=60)
        for symbol in assets:
            for channel in channels:
                patience = None if channel in {"trades", "liquidations"} else 60 * NS
                topic = f"{channel}:{symbol}"
                self.streams[topic] = Stream(
                    topic, symbol, f"{venue}:{symbol}", channel, self.feeds[0].name, patience
                )

    def _decode(self, frame):
        raise NotImplementedError

    _answer = _message = _decode


SERIES_MAX = 3_600
"""1,500 for feeds, books and the daemon itself, for each of ten assets 150 for its risk
and 60 for the quantities beside it."""

TIERS = (Tier(0.0, None, 0.004, 0.0, 125.0),)


class Market:
    """A pipeline whose engine is told directly what the venues say."""

    def __init__(self, venues=("binance",), assets=("BTC",), codecs=()):
        self.at = AT
        self.pipeline = Pipeline(PipelineConfig({}, engine_config(), []))
        self.engine = self.pipeline.engine
        self.latest = Latest()
        for venue in venues:
            self.pipeline.codecs[venue] = StubCodec(venue, {f"{a}USDT": a for a in assets})
        for codec in codecs:
            self.pipeline.codecs[codec.venue] = codec
        for codec in self.pipeline.codecs.values():
            for stream in codec.streams.values():
                stream.active, stream.heard_at, stream.messages = True, self.at, 7
            for symbol, asset in codec.assets.items():
                spec = instrument(symbol, venue=codec.venue, asset=asset, tiers=TIERS)
                self.tell(Listed(spec))
                self.engine.process(self.at - 5 * NS, Candles(spec.name, 300, []))

    def tell(self, *events):
        for event in events:
            for message in self.engine.process(self.at, event):
                self.latest.put(message)

    def pass_time(self, seconds):
        self.at += int(seconds * NS)
        self.tell(Tick(self.at))

    def speak(self, *names):
        """Every instrument, or those named, says everything it can."""
        for name in names or tuple(self.engine.instruments):
            self.tell(
                book(name),
                MarkPrice(name, self.at - NS, 101.0, 100.0),
                Funding(name, self.at, 0.0001, 8.0, None),
                OpenInterest(name, self.at, 10.0, 1_000.0),
            )
            codec = self.pipeline.codecs[name.partition(":")[0]]
            for stream in codec.streams.values():
                if stream.instrument == name:
                    stream.heard_at = self.at
        return self

    def sources(self, **fields):
        return Sources(
            identity=IDENTITY,
            pipeline=self.pipeline,
            latest=self.latest,
            publish_interval_s=1.0,
            now=lambda: self.at,
            **fields,
        )

    def full_sources(self):
        """With every part there is."""
        inbox = Inbox(4096)
        clock = lambda: self.at  # noqa: E731
        codecs = self.pipeline.codecs.values()
        outbox = Outbox(100, 30.0)
        return self.sources(
            meter=Meter(0.25, clock),
            feeds={
                spec.name: WebSocketFeed(spec, inbox, clock)
                for codec in codecs
                for spec in codec.feeds
            },
            https={
                codec.venue: HttpFeed(codec.venue, codec.http, inbox, clock) for codec in codecs
            },
            queues={
                "inbox": Queue(lambda: len(inbox), inbox.limit, lambda: inbox.waits),
                "journal": Queue(lambda: 0, 16),
            },
            sinks={"redis": RedisSink(redis_config("redis://127.0.0.1:1"), "run1", outbox)},
            outboxes={"redis": outbox},
            journal=StubJournal(),
        )

    def read(self, **fields):
        registry = build_registry(self.sources(**fields))
        return lambda name, **labels: registry.get_sample_value(f"cascade_{name}", labels)


class StubJournal:
    records = 5
    lost_slow = 1
    lost_disk = 0
    errors = 0
    files = 1
    bytes_written = 100
    paused = False
    last_success_at = AT / NS


def book(name, levels=40, depth=1000):
    bids = [(100.0 - i, 1.0) for i in range(1, levels + 1)]
    asks = [(100.0 + i, 1.0) for i in range(1, levels + 1)]
    return BookSnapshot(name, 0, bids, asks, depth=depth, maintained=False)


def liquidation(name, side, usd):
    return Liquidation(name, 0, side, 1.0, usd, 100.0, "fill", None, "all", "Sell")


def graded(outlook, at):
    """Twenty minutes of forecasts and an alarm, then a cascade, then two hours of nothing."""
    minute = 60 * NS
    for n in range(20):
        outlook.alarms.step(at + n * minute, is_alarm=n >= 10)
        for card in outlook.cards.values():
            card.register(at + n * minute, 0.1, 0.05, 0.001)
    outlook.alarms.onset(at + 19 * minute)
    for card in outlook.cards.values():
        card.onset(at + 20 * minute)
    for n in range(20, 140):
        outlook.alarms.step(at + n * minute, is_alarm=False)
        outlook.alarms.mature(at + n * minute)
        for card in outlook.cards.values():
            card.mature(at + n * minute, at + n * minute)


@pytest.fixture(scope="module")
def full():
    """The sources of a full market of four venues and ten assets, everything heard."""
    market = Market(FOUR, TEN)
    for state in market.engine.instruments.values():
        for second in range(3601):
            state.volatility.sample(market.at + (second - 3601) * NS, 100.0 + second % 2, "mark")
    market.speak().pass_time(0)
    for venue in FOUR:
        covered = tuple(n for n in market.engine.instruments if n.startswith(f"{venue}:"))
        market.tell(InsuranceFund(venue, market.at, {"USDT": 1e9}, covered))
    market.engine._neighbours.radius = {"down": 0.4, "up": 0.3}
    for name, asset in market.engine.assets.items():
        market.latest.put(Message("risk", name, 99, market.at, risk()))
        for outlook in asset.outlooks.values():
            graded(outlook, market.at)
        for state in asset.instruments:
            state.map.liquidation(market.at, "long", 1e4, "all")
            state.map.expected_usd, state.map.observed_usd = [2e6, 2e6], [1e6, 1e6]
    sources = market.full_sources()
    sources.sinks["redis"].last_success_at = AT / NS
    return sources


@pytest.fixture(scope="module")
def families(full):
    page = exposition(build_registry(full), "")[1].decode()
    return {family.name: family for family in parse(page)}


def ours(families):
    return {name: family for name, family in families.items() if name.startswith("cascade_")}


# ---------------------------------------------------------------------------- the page


def test_a_full_market_of_four_venues_and_ten_symbols_stays_within_the_budget(families):
    count = sum(len(family.samples) for family in families.values())
    assert count < SERIES_MAX
    assert count > 1000, "the market is not full"


def test_every_declared_metric_has_samples_with_its_labels_on_a_full_page(families):
    for family in FAMILIES:
        base = family.name.removesuffix("_total") if family.kind == "counter" else family.name
        samples = families[base].samples
        assert samples, family.name
        for sample in samples:
            assert set(sample.labels) - {"le"} == set(family.labels), sample


def test_no_series_appears_twice(families):
    for family in families.values():
        seen = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(seen) == len(set(seen)), family.name


def test_nothing_of_ours_is_on_the_page_undeclared(families):
    declared = {re.sub("_total$", "", f.name) for f in FAMILIES}
    assert set(ours(families)) <= declared


def test_there_are_no_created_series(full):
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        assert b"_created" not in exposition(build_registry(full), accept)[1]


def test_names_help_types_and_labels_are_the_golden_ones(families):
    lines = []
    for name, family in ours(families).items():
        lines += [f"# HELP {name} {family.documentation}", f"# TYPE {name} {family.type}"]
        shapes = {(sample.name, *sorted(sample.labels)) for sample in family.samples}
        lines += [f"{sample}{{{','.join(labels)}}}" for sample, *labels in sorted(shapes)]
    text = "\n".join(lines) + "\n"
    if os.environ.get("REWRITE") == "1":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "if this is meant: REWRITE=1 pytest, and read the diff"


def test_the_documented_table_is_what_the_collector_exposes():
    cells = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in cells.findall(DOCS.read_text())
    }
    assert documented == {family.name: (family.kind, family.labels) for family in FAMILIES}


def test_every_row_of_the_documented_table_is_complete():
    rows = [row for row in DOCS.read_text().splitlines() if row.startswith("| `cascade_")]
    assert len(rows) == len(FAMILIES)
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 6, row
        assert all(cells[i] for i in (0, 1, 3, 4, 5)), row


def test_promtool_finds_nothing_to_complain_about(full):
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is not installed (Debian: prometheus)")
        pytest.skip("promtool is not installed (Debian: prometheus)")
    page = exposition(build_registry(full), "")[1]
    check = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert check.returncode == 0, check.stderr.decode()


def test_the_format_is_what_the_accept_header_asks_for(full):
    registry = build_registry(full)
    content_type, page = exposition(registry, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert {family.name for family in parse_open(page.decode())} >= {"cascade_book_synced"}
    for accept in ("", "text/html", "*/*"):
        assert exposition(registry, accept)[0] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("version", ["x", "1.x", "9" * 50, "1.0.0.x", "", "-1"])
def test_a_nonsensical_accept_header_gets_a_page_all_the_same(full, version):
    for kind in ("application/openmetrics-text", "text/plain"):
        _, page = exposition(build_registry(full), f"{kind}; version={version}")
        assert b"cascade_book_synced" in page


def test_an_unheard_daemon_has_every_counter_at_zero_and_no_market_figure():
    market = Market()
    sources = market.full_sources()
    page = exposition(build_registry(sources), "")[1].decode()
    families = {family.name: family for family in parse(page)}
    for family in FAMILIES:
        if family.kind == "counter" and family.name != "cascade_snapshot_sequence":
            base = family.name.removesuffix("_total")
            assert families[base].samples, family.name
    errors = families["cascade_feed_decode_errors"].samples
    assert {sample.labels["reason"] for sample in errors} >= set(REASONS)
    assert all(sample.value == 0 for sample in errors)
    for name in ("depth_usd", "mark_price_usd", "funding_rate_ratio", "open_interest_usd"):
        assert not families[f"cascade_{name}"].samples


def test_a_scrape_changes_nothing(full):
    registry = build_registry(full)
    before = full.pipeline.digest, dict(full.pipeline.inputs), dict(full.latest.sequences)
    pages = [exposition(registry, "")[1] for _ in range(2)]
    assert before == (full.pipeline.digest, dict(full.pipeline.inputs), full.latest.sequences)
    first, second = (
        [row for row in page.splitlines() if row.startswith(b"cascade_") and b"lag" not in row]
        for page in pages
    )
    assert first == second


def test_a_replay_without_feeds_has_market_metrics_and_feed_states():
    market = Market().speak()
    market.pass_time(1)
    market.engine.connected["binance.a.0"] = True
    read = market.read()
    assert read("mark_price_usd", venue="binance", asset="BTC") == 101.0
    assert read("feed_connected", venue="binance", feed="binance.a.0") == 1
    assert read("feed_connected", venue="binance", feed="binance.b.0") == 0
    assert read("engine_lag_seconds") is None
    assert read("depth_usd", asset="BTC", direction="down", band="0.05") is not None


def registered():
    """Every registered codec, with ten symbols."""
    names = {"okx": "{}-USDT-SWAP", "hyperliquid": "{}"}
    for venue, kind in VENUES.items():
        symbols = {names.get(venue, "{}USDT").format(asset): asset for asset in TEN}
        yield kind(venue_config(venue, instruments=symbols), [])


def test_the_registered_codecs_stay_within_the_budget():
    market = Market((), (), list(registered())).speak()
    market.pass_time(0)
    page = exposition(build_registry(market.full_sources()), "")[1].decode()
    assert sum(len(family.samples) for family in parse(page)) < SERIES_MAX


def test_every_registered_codec_has_the_channels_whose_freshness_counts():
    for codec in registered():
        symbol = next(iter(codec.assets))
        channels = {s.channel for s in codec.streams.values() if s.symbol == symbol}
        assert channels & set(CARRIERS["funding"]), codec.venue
        assert channels & {"mark", "ticker"}, codec.venue
        assert "book" in channels, codec.venue


# ---------------------------------------------------------------------- what is shown


def test_depth_is_by_band_and_direction_and_says_whether_it_is_complete():
    market = Market()
    market.speak().pass_time(1)
    read = market.read()
    for band in BANDS.values():
        for direction in ("down", "up"):
            assert read("depth_usd", asset="BTC", direction=direction, band=band) is not None
    assert read("depth_usd", asset="BTC", direction="down", band="0.005") == 0
    assert read("depth_usd", asset="BTC", direction="down", band="0.02") == 99 + 98
    assert read("depth_usd", asset="BTC", direction="up", band="0.02") == 101 + 102
    assert read("depth_complete", asset="BTC", direction="up", band="0.2") == 1


def test_depth_beyond_the_reach_of_a_book_is_a_lower_bound_and_says_so():
    market = Market()
    market.tell(book("binance:BTCUSDT", levels=5, depth=5))
    market.pass_time(1)
    read = market.read()
    assert read("depth_complete", asset="BTC", direction="down", band="0.01") == 1
    assert read("depth_complete", asset="BTC", direction="down", band="0.2") == 0
    assert read("depth_usd", asset="BTC", direction="down", band="0.2") > 0


def test_depth_lacks_an_unsynced_book_and_says_so():
    market = Market(("binance", "okx"))
    market.speak("binance:BTCUSDT").pass_time(1)
    read = market.read()
    assert read("depth_usd", asset="BTC", direction="down", band="0.01") == 99
    assert read("depth_complete", asset="BTC", direction="down", band="0.01") == 0


def test_depth_is_absent_as_soon_as_no_book_is_synced():
    market = Market()
    market.speak().pass_time(1)
    market.tell(Gap("binance:BTCUSDT", "sequence"))
    read = market.read()
    assert read("depth_usd", asset="BTC", direction="down", band="0.01") is None
    assert read("book_synced", venue="binance", symbol="BTCUSDT") == 0
    assert read("book_gaps_total", venue="binance") == 1


def test_depth_is_absent_when_nothing_is_published_any_more():
    market = Market()
    market.speak().pass_time(1)
    market.at += 11 * NS  # and no tick
    assert market.read()("depth_usd", asset="BTC", direction="down", band="0.01") is None


@pytest.mark.parametrize(
    "name",
    ["mark_price_usd", "funding_rate_ratio", "basis_ratio", "open_interest_usd"],
)
def test_a_value_older_than_two_minutes_is_absent_and_not_frozen(name):
    market = Market().speak()
    market.pass_time(119)
    assert market.read()(name, venue="binance", asset="BTC") is not None
    market.pass_time(2)
    assert market.read()(name, venue="binance", asset="BTC") is None


def test_volatility_is_absent_while_the_mark_is_stale():
    market = Market().speak()
    for _ in range(301):
        market.tell(MarkPrice("binance:BTCUSDT", 0, 100.0, None))
        market.pass_time(1)
    labels = {"venue": "binance", "asset": "BTC", "horizon": "5m"}
    assert market.read()("volatility_ratio", **labels) == 0
    assert market.read()("volatility_ratio", **(labels | {"horizon": "1h"})) is None
    market.at += 121 * NS
    assert market.read()("volatility_ratio", **labels) is None


def test_a_value_sent_only_on_change_is_as_fresh_as_its_channel():
    codec = StubCodec("bybit", {"BTCUSDT": "BTC"}, ("book", "ticker"))
    market = Market((), (), [codec]).speak()
    ticker = codec.streams["ticker:BTCUSDT"]
    market.pass_time(300)
    ticker.heard_at = market.at - NS
    read = market.read()
    for name in ("mark_price_usd", "funding_rate_ratio", "open_interest_usd", "basis_ratio"):
        assert read(name, venue="bybit", asset="BTC") is not None, name
    market.pass_time(121)
    for name in ("mark_price_usd", "funding_rate_ratio", "open_interest_usd", "basis_ratio"):
        assert read(name, venue="bybit", asset="BTC") is None, name


def test_a_channel_that_may_be_quiet_for_longer_keeps_its_value_for_longer():
    codec = StubCodec("okx", {"BTC-USDT-SWAP": "BTC"}, ("book", "mark", "open_interest"))
    market = Market((), (), [codec]).speak()
    codec.streams["open_interest:BTC-USDT-SWAP"].patience_ns = 600 * NS
    market.pass_time(500)
    assert market.read()("open_interest_usd", venue="okx", asset="BTC") is not None
    market.pass_time(101)
    assert market.read()("open_interest_usd", venue="okx", asset="BTC") is None


def test_a_frozen_index_takes_the_basis_away_and_leaves_the_mark():
    codec = StubCodec("okx", {"BTC-USDT-SWAP": "BTC"}, ("book", "mark", "index"))
    market = Market((), (), [codec]).speak()
    market.pass_time(121)
    market.tell(MarkPrice("okx:BTC-USDT-SWAP", 0, 101.0, None))
    read = market.read()
    assert read("mark_price_usd", venue="okx", asset="BTC") == 101.0
    assert read("basis_ratio", venue="okx", asset="BTC") is None


def test_a_dead_funding_stream_is_not_hidden_by_a_living_mark():
    codec = StubCodec("okx", {"BTC-USDT-SWAP": "BTC"}, ("book", "mark", "funding"))
    market = Market((), (), [codec]).speak()
    market.pass_time(121)
    codec.streams["mark:BTC-USDT-SWAP"].heard_at = market.at
    market.tell(MarkPrice("okx:BTC-USDT-SWAP", 0, 101.0, 100.0))
    assert market.read()("funding_rate_ratio", venue="okx", asset="BTC") is None


def test_a_symbol_that_is_no_longer_known_disappears():
    market = Market(("binance",), ("BTC", "ETH")).speak()
    market.pass_time(1)
    registry = build_registry(market.sources())
    assert b"ETH" in exposition(registry, "")[1]
    name = "binance:ETHUSDT"
    market.engine.assets.pop("ETH")
    market.engine.instruments.pop(name)
    for topic in [t for t in market.latest.sequences if t[1] == "ETH"]:
        del market.latest.sequences[topic]
    codec = market.pipeline.codecs["binance"]
    for topic in [t for t, stream in codec.streams.items() if stream.instrument == name]:
        del codec.streams[topic]
    assert b"ETH" not in exposition(registry, "")[1]


def test_several_instruments_of_one_asset_on_a_venue_make_one_series():
    codec = StubCodec("binance", {"BTCUSDT": "BTC", "BTCUSDC": "BTC"})
    market = Market((), (), [codec]).speak()
    market.tell(
        MarkPrice("binance:BTCUSDC", 0, 105.0, 100.0),
        liquidation("binance:BTCUSDT", "long", 10.0),
        liquidation("binance:BTCUSDC", "long", 5.0),
    )
    read = market.read()
    assert read("open_interest_usd", venue="binance", asset="BTC") == 2_000.0
    assert read("mark_price_usd", venue="binance", asset="BTC") == 101.0
    assert read("liquidations_usd_total", venue="binance", asset="BTC", side="long") == 15.0
    assert read("liquidations_usd_total", venue="binance", asset="BTC", side="short") == 0


def test_a_sum_of_open_interest_that_lacks_a_part_is_absent():
    codec = StubCodec("binance", {"BTCUSDT": "BTC", "BTCUSDC": "BTC"})
    market = Market((), (), [codec]).speak("binance:BTCUSDT")
    codec.streams["open_interest:BTCUSDC"].heard_at = 0
    assert market.read()("open_interest_usd", venue="binance", asset="BTC") is None


def test_the_mark_is_the_price_of_one_unit_of_the_asset():
    codec = StubCodec("binance", {"1000PEPEUSDT": "PEPE"})
    market = Market((), (), [codec])
    spec = instrument("1000PEPEUSDT", asset="PEPE", multiplier=1000.0)
    market.tell(Listed(spec), MarkPrice(spec.name, 0, 0.02, None))
    assert market.read()("mark_price_usd", venue="binance", asset="PEPE") == 0.02 / 1000


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_absent(bad):
    market = Market().speak()
    market.tell(Funding("binance:BTCUSDT", market.at, bad, 8.0, None))
    assert market.read()("funding_rate_ratio", venue="binance", asset="BTC") is None


def test_a_stream_that_is_silent_or_not_subscribed_is_shown():
    market = Market()
    codec = market.pipeline.codecs["binance"]
    codec.streams["mark:BTCUSDT"].silent = True
    codec.streams["open_interest:BTCUSDT"].active = False
    read = market.read()
    labels = {"venue": "binance", "symbol": "BTCUSDT"}
    assert read("stream_silent", channel="mark", **labels) == 1
    assert read("stream_silent", channel="open_interest", **labels) == 1
    assert read("stream_silent", channel="book", **labels) == 0
    assert read("stream_silent", channel="trades", **labels) is None, "it may be quiet"


def test_an_index_stream_shared_by_symbols_is_named_after_the_one_it_was_made_for():
    market = Market()
    streams = market.pipeline.codecs["binance"].streams
    streams["index:BTC"] = Stream("index:BTC", "", "binance:BTCUSDT", "index", "f", 60 * NS)
    assert market.read()("stream_silent", venue="binance", symbol="BTCUSDT", channel="index") == 1


def test_when_a_channel_was_last_heard_is_a_time_and_not_an_age():
    market = Market()
    codec = market.pipeline.codecs["binance"]
    codec.streams["trades:BTCUSDT"].heard_at = 0
    read = market.read()
    name = "feed_last_message_timestamp_seconds"
    assert read(name, venue="binance", channel="mark") == AT / NS
    assert read(name, venue="binance", channel="trades") is None
    assert read("feed_messages_total", venue="binance", channel="trades") == 7


def test_refusals_are_counted_by_reason_and_delays_by_venue():
    market = Market()
    market.tell(
        Rejected("binance", "binance.a.0", "schema"),
        MarkPrice("binance:BTCUSDT", market.at - NS // 5, 100.0, None),
        MarkPrice("binance:BTCUSDT", market.at + NS, 100.0, None),
    )
    read = market.read()
    assert read("feed_decode_errors_total", venue="binance", reason="schema") == 1
    assert read("feed_decode_errors_total", venue="binance", reason="not_json") == 0
    assert read("feed_delay_seconds_bucket", venue="binance", le="0.1") == 1
    assert read("feed_delay_seconds_bucket", venue="binance", le="0.25") == 2
    assert read("feed_delay_seconds_count", venue="binance") == 2
    assert read("feed_delay_seconds_sum", venue="binance") == pytest.approx(0.2)
    assert read("feed_clock_skew_total", venue="binance") == 1


def test_http_answers_are_counted_by_class_and_a_pause_is_shown():
    market = Market()
    sources = market.full_sources()
    http = sources.https["binance"]
    http.answers.update({200: 3, 204: 1, 429: 2, 777: 1})
    http.pauses[429] = 1
    http.paused_until = market.at + NS
    registry = build_registry(sources)

    def value(name, **labels):
        return registry.get_sample_value(f"cascade_{name}", {"venue": "binance"} | labels)

    assert value("http_answers_total", status="2xx") == 4
    assert value("http_answers_total", status="4xx") == 2
    assert value("http_answers_total", status="5xx") == 0
    assert value("http_answers_total", status="other") == 1
    assert value("http_pauses_total", status="429") == 1
    assert value("http_paused") == 1
    market.at += 2 * NS
    assert value("http_paused") == 0


def test_failures_of_a_venues_sockets_are_summed_by_reason():
    market = Market()
    sources = market.full_sources()
    for feed in sources.feeds.values():
        feed.failures["dns"] += 1
        feed.losses["cut"] += 2
    registry = build_registry(sources)
    for name, reason, count in (
        ("cascade_feed_connect_failures_total", "dns", 2),
        ("cascade_feed_losses_total", "cut", 4),
        ("cascade_feed_losses_total", "hung", 0),
    ):
        labels = {"venue": "binance", "reason": reason}
        assert registry.get_sample_value(name, labels) == count


def test_sinks_show_what_was_lost_apart_from_what_was_replaced():
    market = Market()
    sources = market.full_sources()
    outbox = sources.outboxes["redis"]
    outbox.discarded_intentional, outbox.discarded_unintentional = 4, 2
    registry = build_registry(sources)
    for intentional, count in (("true", 4), ("false", 2)):
        labels = {"sink": "redis", "intentional": intentional}
        assert registry.get_sample_value("cascade_sink_discarded_total", labels) == count
    assert registry.get_sample_value("cascade_queue_limit", {"queue": "redis"}) == 100
    assert registry.get_sample_value("cascade_sink_connected", {"sink": "redis"}) == 0
    name = "cascade_sink_last_success_timestamp_seconds"
    assert registry.get_sample_value(name, {"sink": "redis"}) is None, "it never succeeded"


# --------------------------------------------------------------------------- the meter


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds

    def ns(self):
        return int(self.seconds * NS)


def test_one_step_in_so_many_is_timed_and_every_result_is_returned():
    clock = Clock()
    meter = Meter(0.25, clock.ns, clock)

    def step(record):
        clock.seconds += 0.002
        return record.at

    for number in range(3 * SAMPLE_EVERY):
        assert meter.step(step, Frame(number, "f", b"")) == number
    assert sum(meter.steps.counts) == 3
    assert meter.steps.total == pytest.approx(0.006)
    assert meter.steps.counts[meter.steps.bounds.index(0.0025)] == 3


def test_the_lag_is_that_of_the_oldest_input_taken():
    clock = Clock()
    meter = Meter(0.25, clock.ns, clock)
    meter.advanced(clock.ns() - 3 * NS)
    assert meter.lag_s == pytest.approx(3.0)
    meter.advanced(clock.ns() + NS)  # a clock that stepped back
    assert meter.lag_s == 0


def test_the_lag_grows_while_the_pump_stands_still():
    clock = Clock()
    meter = Meter(0.25, clock.ns, clock)
    meter.advanced(clock.ns())
    clock.seconds += 0.2
    assert meter.lag_s == 0, "the next tick is not due"
    clock.seconds += 9.8
    assert meter.lag_s == pytest.approx(9.75)
    assert meter.idle_s == pytest.approx(10.0)


async def test_a_blocked_loop_is_measured():
    meter = Meter(0.25)
    watch = asyncio.create_task(watch_loop(meter, 0.01))
    await asyncio.sleep(0.025)
    import time

    time.sleep(0.08)  # noqa: ASYNC251  (the point)
    await asyncio.sleep(0.02)
    watch.cancel()
    late = meter.loop_lags.counts[meter.loop_lags.bounds.index(0.05) :]
    assert sum(late) >= 1
    assert sum(meter.loop_lags.counts) >= 2
