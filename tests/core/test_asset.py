"""The maps of an asset's instruments, added up; and what outlives a restart."""

from dataclasses import dataclass, field
from itertools import groupby
from math import log

import numpy as np
import pytest
from msgspec.structs import replace

from monitor.backtest.tape import PRINTS, instrument_of, record
from monitor.core.alerts.reasons import Burst
from monitor.core.asset import STATE_KEPT_NS, Asset, Saved
from monitor.core.cascade.stress import Held, Missing
from monitor.core.engine import Engine
from monitor.core.heatmap.calibration import ThrottleCorrection
from monitor.core.instrument import InstrumentState
from monitor.core.saved import StateError, packed, unpacked
from monitor.events import (
    NS,
    BookSnapshot,
    Candle,
    Candles,
    Forecast,
    ForecastVerdict,
    Gap,
    Liquidation,
    Listed,
    MarkPrice,
    OpenInterest,
    Restored,
    Silence,
    Tick,
    Trade,
)
from monitor.sim.parameters import ASSETS
from monitor.sim.rules import VENUES
from tests.builders import engine_config

START = 1_790_000_000 * NS


def spec(venue=0, **fields):
    return replace(instrument_of(VENUES[venue], ASSETS[0].name), **fields)


def listed(*specs, at=START):
    engine = Engine(engine_config())
    for one in specs:
        engine.process(at, Listed(one))
        engine.process(at - 5 * NS, Candles(one.name, 300, []))
    return engine


def told(engine, name, price=100_000.0, base=1_000.0, at=START):
    engine.process(at, MarkPrice(name, at, price, price))
    engine.process(at, OpenInterest(name, at, base, None))


def published(engine, at, kind="heatmap", venue=""):
    messages = engine.process(at, Tick(at))
    found = [m.data for m in messages if m.kind == kind and m.venue == venue]
    return found[0] if found else None


def test_the_asset_holds_what_its_venues_hold():
    one, other = spec(0), spec(1)
    engine = listed(one, other)
    told(engine, one.name)
    told(engine, other.name)
    at = START + 5 * NS
    messages = {m.venue: m.data for m in engine.process(at, Tick(at)) if m.kind == "heatmap"}
    assert set(messages) == {"", one.venue, other.venue}
    apart = sum(sum(messages[v].long_usd) for v in (one.venue, other.venue))
    assert sum(messages[""].long_usd) == pytest.approx(apart, rel=1e-6)
    assert messages[""].missing == []


def test_an_instrument_without_margin_tiers_is_missing_and_not_empty():
    one, other = spec(0), spec(1, tiers=())
    alone, both = listed(one), listed(one, other)
    for engine in (alone, both):
        told(engine, one.name)
    told(both, other.name)
    alone, both = published(alone, START + 5 * NS), published(both, START + 5 * NS)
    assert both.missing == [other.name]
    assert both.venues == [one.venue]
    assert both.confidence == pytest.approx(alone.confidence / 2)


def test_nothing_is_published_when_no_mark_is_heard_any_more():
    one = spec(0)
    engine = listed(one)
    told(engine, one.name)
    assert published(engine, START + 5 * NS) is not None
    assert published(engine, START + 600 * NS) is None


def test_a_silent_venues_positions_stand_where_they_stood_while_the_price_moves_on():
    one, other = spec(0), spec(1)
    engine = listed(one, other)
    told(engine, one.name, base=2_000.0)
    told(engine, other.name, base=1_000.0)
    before = published(engine, START + 5 * NS, venue=other.venue)
    later = START + 120 * NS
    engine.process(later, MarkPrice(one.name, later, 97_000.0, 97_000.0))
    after = published(engine, later, venue=other.venue)
    assert after.mark == pytest.approx(97_000.0)
    # Nearer by three percent: what lay within 5 % of the old price lies within 2 % of the new.
    within = {r.distance: r.long_usd for r in after.at_risk}
    then = {r.distance: r.long_usd for r in before.at_risk}
    assert within[0.02] > 1.3 * then[0.02]


def test_a_silent_thousandfold_contract_moves_with_the_price_of_a_thousand_units():
    one = spec(0)
    thousand = replace(spec(1), multiplier=1000.0, tick=1000.0 * one.tick)
    engine = listed(one, thousand)
    told(engine, one.name, price=100.0, base=2_000_000.0)
    told(engine, thousand.name, price=100_000.0, base=1_000.0)
    later = START + 120 * NS
    engine.process(later, MarkPrice(one.name, later, 97.0, 97.0))
    found = engine.assets[one.asset].estimates(later)
    assert found[one.name].mark == 97.0
    assert found[thousand.name].mark == pytest.approx(97_000.0)
    told(engine, thousand.name, price=90_000.0, base=1e9, at=later + 120 * NS)
    found = engine.assets[one.asset].estimates(later + 120 * NS)
    assert found[one.name].mark == pytest.approx(90.0)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_either_directions_abstention_is_a_fault_of_the_asset(direction):
    one = spec(0)
    engine = listed(one)
    asset = engine.assets[one.asset]
    for d, outlook in asset.outlooks.items():
        said = "worse than climatology over 20 days" if d == direction else ""
        for card in outlook.cards.values():
            card.assess = lambda *_, found=said: found
    alerts = []
    for second in range(60):
        at = START + second * NS
        told(engine, one.name, at=at)
        alerts += [m.data for m in engine.process(at, Tick(at)) if m.kind == "alerts"]
    assert [a.action for a in alerts if a.code == "abstaining"] == ["raised"]


def test_a_change_of_margin_tiers_leaves_positions_where_they_stand():
    one = spec(0)
    engine = listed(one)
    told(engine, one.name)
    before = published(engine, START + 5 * NS)
    tighter = tuple(replace(tier, rate=tier.rate * 1.5) for tier in one.tiers)
    engine.process(START + 6 * NS, Listed(replace(one, tiers=tighter)))
    after = published(engine, START + 7 * NS)
    assert sum(after.long_usd) == pytest.approx(sum(before.long_usd), rel=1e-3)
    assert engine.instruments[one.name].map.instrument.tiers == tighter


def test_each_direction_knows_the_others_cascade():
    one = spec(0)
    engine = listed(one)
    told(engine, one.name)
    asset = engine.assets[one.asset]
    state = asset.outlooks["down"].state()
    phases = replace(state.phases, origin=105_000.0, peak_usd=5e7, burst_at=START)
    asset.outlooks["down"].restore(replace(state, phases=phases))
    published(engine, START + 5 * NS, "risk")
    assert asset.situations["up"].opposite == Burst(105_000.0, 5e7)
    assert asset.situations["down"].opposite is None


def test_a_row_of_the_picture_is_the_map_near_the_mark_in_whole_dollars():
    one = spec(0)
    engine = listed(one)
    told(engine, one.name)
    at = START + 20 * NS
    messages = {m.kind: m.data for m in engine.process(at, Tick(at)) if not m.venue}
    row, full = messages["heatmap:log"], messages["heatmap"]
    first = full.first_price
    offset = round(log(row.first_price / first) / full.log_step)
    assert row.long_usd == [round(x) for x in full.long_usd[offset : offset + len(row.long_usd)]]
    assert row.first_price < 0.87 * row.mark
    assert all(isinstance(x, int) for x in row.short_usd)


BINANCE = "binance:BTC"


@pytest.mark.parametrize(
    ("event", "forgets"),
    [
        (Gap(BINANCE, "marks_lost"), True),
        (Silence(BINANCE, "mark", None), True),
        (Silence(BINANCE, "ticker", None), True),
        (Gap(BINANCE, "feed_lost"), False),
        (Gap(BINANCE, "sequence"), False),
        (Silence(BINANCE, "book", None), False),
        (Silence(BINANCE, "trades", None), False),
    ],
    ids=str,
)
def test_a_map_forgets_what_it_swept_when_marks_were_missed_and_only_then(event, forgets):
    engine = listed(spec(0))
    told(engine, BINANCE)
    told(engine, BINANCE, price=97_000.0, at=START + NS)
    heatmap = engine.instruments[BINANCE].map
    expected = heatmap._prints[0].expected
    assert expected > 0.0
    engine.process(START + 2 * NS, event)
    assert heatmap._prints[0].expected == (0.0 if forgets else expected)


def test_a_book_is_believed_while_only_marks_are_missed():
    engine = listed(spec(0))
    book = BookSnapshot(BINANCE, START, [(1.0, 1.0)], [(2.0, 1.0)], depth=1, maintained=True)
    engine.process(START, book)
    engine.process(START, Gap(BINANCE, "marks_lost"))
    assert engine.instruments[BINANCE].book.state == "synced"


def test_another_contract_size_is_another_margin_table():
    one = spec(0, tier_unit="contracts")
    engine = listed(one)
    told(engine, one.name)
    asset, state = engine.assets["BTC"], engine.instruments[one.name]
    engine.process(START, Listed(replace(one, contract=0.1)))
    quantity, price = np.array([50.0]), np.array([100_000.0])
    assert state.map.table.size(quantity, price) == [500.0]
    assert asset.quantifier.risk_limit_changes == 0
    engine.process(START, Listed(replace(one, contract=0.1, tiers=one.tiers[:1])))
    assert asset.quantifier.risk_limit_changes == 1


# ----------------------------------------------------------------------------- warm restart


def events(tape, *, since=0, until=10**30):
    """What the tape's public would have told an engine, in order."""
    for at, together in groupby(tape.seconds, key=lambda s: s.at):
        if not since <= at < until:
            continue
        for s in together:
            name = tape.instruments[s.venue].name
            completeness = PRINTS[tape.instruments[s.venue].venue]
            for price, base, taker in s.trades:
                yield at, Trade(name, at, price, base, taker)
            yield at, MarkPrice(name, at, s.mark, s.mark)
            for side, usd in s.prints:
                yield (
                    at,
                    Liquidation(
                        name, at, side, usd / s.mark, usd, s.mark, "mark", None, completeness, side
                    ),
                )
            if s.interest is not None:
                yield at, OpenInterest(name, at, s.interest, None)
        yield at, Tick(at)


@dataclass
class Heard:
    engine: Engine
    last: dict = field(default_factory=dict)

    def hear(self, told):
        for at, event in told:
            for message in self.engine.process(at, event):
                self.last[message.kind, message.venue] = message.data
        return self


def fresh(tape, at):
    heard = Heard(listed(*tape.instruments, at=at))
    for instrument, candles in zip(tape.instruments, tape.candles, strict=True):
        heard.engine.process(at, Candles(instrument.name, 300, candles))
    return heard


@pytest.fixture(scope="module")
def tape():
    return record(203, minutes=20)


@dataclass
class Half:
    """What an engine has heard of the first half of a tape, its state then, and the mark."""

    middle: int
    heard: Heard
    saved: bytes
    mark: float


@pytest.fixture(scope="module")
def half(tape):
    start = tape.seconds[0].at
    middle = start + 600 * NS
    heard = fresh(tape, start).hear(events(tape, until=middle))
    mark = heard.engine.instruments[tape.instruments[0].name].mark
    return Half(middle, heard, heard.engine.state(tape.asset, middle), mark)


def test_a_restart_in_mid_stream_ends_with_the_same_map(tape, half):
    middle, saved = half.middle, half.saved
    whole = half.heard.hear(events(tape, since=middle))
    second = Heard(Engine(engine_config()))
    second.engine.process(middle, Restored(middle, tape.asset, saved))
    for instrument in tape.instruments:
        second.engine.process(middle, Listed(instrument))
    second.hear(events(tape, since=middle))
    assert second.engine.refused == {}
    a, b = whole.last["heatmap", ""], second.last["heatmap", ""]
    assert b.provenance == a.provenance
    for side in ("long_usd", "short_usd"):
        one, other = getattr(a, side), getattr(b, side)
        # What was printed around the restart is not learnt from, so the level may differ a little.
        assert sum(abs(x - y) for x, y in zip(one, other, strict=True)) < 0.01 * sum(one)


def test_what_the_price_passed_while_nobody_listened_is_consumed(tape, half):
    middle, saved, mark = half.middle, half.saved, half.mark
    name = tape.instruments[0].name
    later = middle + 3600 * NS
    depths = {}
    for low in (mark, 0.97 * mark):
        engine = Engine(engine_config())
        engine.process(later, Restored(later, tape.asset, saved))
        engine.process(later, Listed(tape.instruments[0]))
        engine.process(later, MarkPrice(name, later, mark, mark))
        candle = Candle(middle + 600 * NS, low, mark, mark)
        engine.process(later, Candles(name, 300, [candle]))
        heatmap = published(engine, later + NS)
        depths[low] = {r.distance: r.long_usd for r in heatmap.at_risk}
    assert depths[0.97 * mark][0.02] < 0.6 * depths[mark][0.02]


def test_an_unusable_state_is_refused_with_its_reason_and_the_map_built_anew(tape):
    start = tape.seconds[0].at
    engine = fresh(tape, start).hear(events(tape, until=start + 120 * NS)).engine
    at = start + 120 * NS
    saved = engine.state(tape.asset, at)
    asset = Asset(tape.asset, ThrottleCorrection())
    for data, when, reason in (
        (saved[:200], at, "checksum"),
        (saved, at + STATE_KEPT_NS + NS, "old"),
        (saved, at - NS, "old"),
    ):
        with pytest.raises(StateError, match=reason):
            asset.resume(when, data)
    other = Asset("DOGE", ThrottleCorrection())
    with pytest.raises(StateError, match="expected DOGE"):
        other.resume(at, saved)
    again = fresh(tape, at)
    again.engine.process(at, Restored(at, tape.asset, saved[:200]))
    assert "checksum" in again.engine.refused[tape.asset]
    again.hear(events(tape, since=at, until=at + 60 * NS))
    assert sum(again.last["heatmap", ""].long_usd) > 0


def test_a_state_of_which_the_last_part_does_not_fit_changes_nothing(tape, half):
    asset = Asset(tape.asset, ThrottleCorrection())
    state = InstrumentState(tape.instruments[0])
    asset.add(state)
    asset.specify(half.middle, state)
    state.map.mark(half.middle, half.mark)
    state.map.open_interest(half.middle, 1_000.0)
    before = asset.state(half.middle)
    saved = unpacked(half.saved, Saved)
    broken = packed(replace(saved, outlooks=saved.outlooks[:1]))
    with pytest.raises(StateError, match="does not fit"):
        asset.resume(half.middle, broken)
    assert asset.state(half.middle) == before
    asset.resume(half.middle, half.saved)
    assert asset.state(half.middle) != before


def test_the_state_of_an_asset_nobody_knows_anything_of_is_empty():
    asset = Asset("BTC", ThrottleCorrection())
    asset.add(InstrumentState(spec(0)))
    assert asset.state(START) == b""


def test_forecasts_are_graded_while_the_market_is_calm():
    one = spec(0)
    engine = listed(one)
    kinds = {}
    for second in range(12 * 60):
        at = START + second * NS
        told(engine, one.name, price=100_000.0 + second % 7, at=at)
        book = BookSnapshot(
            one.name,
            at,
            [(100_000.0 - 10 * n, 1.0) for n in range(1, 300)],
            [(100_010.0 + 10 * n, 1.0) for n in range(1, 300)],
            depth=1000,
            maintained=False,
        )
        engine.process(at, book)
        for message in engine.process(at, Tick(at)):
            if message.kind == "forecasts":
                kinds.setdefault(type(message.data), []).append(message.data)
    assert len(kinds[Forecast]) > 50
    graded = kinds[ForecastVerdict]
    # What cannot be told, in the first minutes, is unresolved; nothing happened in the others.
    assert {v.outcome for v in graded if v.horizon_s == 300} <= {False, None}
    assert len([v for v in graded if v.horizon_s == 300]) >= 10
    skill = engine.assets["BTC"].outlooks["down"].cards[300].skill()
    own = [v for v in graded if (v.horizon_s, v.direction) == (300, "down")]
    assert skill.matured == len([v for v in own if v.outcome is False]) > 0


# ----------------------------------------------------------------------------------- what if


def shown(engine, one, at):
    """A book of one instrument around 100 000, read once."""
    middle = round(100_000.0 / one.tick)
    levels = [
        [((middle + sign * n) * one.tick, 5.0 / one.multiplier) for n in range(1, 400, 4)]
        for sign in (-1, 1)
    ]
    engine.process(at, BookSnapshot(one.name, 0, *levels, depth=0, maintained=True))


def two_venues(wanted=()):
    """An asset of two venues, all of it heard at `START`."""
    one, other = spec(0), spec(1)
    engine = Engine(engine_config(), wanted)
    for each in (one, other):
        engine.process(START, Listed(each))
        engine.process(START - 5 * NS, Candles(each.name, 300, []))
        told(engine, each.name)
        shown(engine, each, START)
    engine.process(START, Tick(START))
    return engine, one, other


def test_what_stands_in_for_a_lost_venue_is_said_in_a_what_if():
    engine, one, other = two_venues()
    asset, at = engine.assets[one.asset], START + 30 * NS
    for each in (one, other):
        shown(engine, each, at)
    engine.process(at, Tick(at))
    heard = asset.stress(at, -0.03)
    assert (heard.missing, heard.unheard) == ([], [])
    engine.process(at, Gap(other.name, "sequence"))
    engine.process(at, Tick(at))
    found = asset.stress(at, -0.03)
    assert [venue.name for venue in found.venues] == [one.name, other.name]
    assert (found.missing, found.unheard) == ([], [Held(other.name, ["order book"])])
    later = START + 80 * NS
    engine.process(later, MarkPrice(one.name, later, 1e5, 1e5))
    shown(engine, one, later)
    engine.process(later, Tick(later))
    found = asset.stress(later, -0.03)
    assert found.unheard == [Held(other.name, ["order book", "mark price"])]


def test_a_mark_that_is_not_heard_is_said_where_its_book_still_is():
    engine, one, other = two_venues()
    at = START + 120 * NS
    for each in (one, other):
        shown(engine, each, at)
    engine.process(at, MarkPrice(one.name, at, 1e5, 1e5))
    engine.process(at, Tick(at))
    found = engine.assets[one.asset].stress(at, -0.03)
    assert (found.missing, found.unheard) == ([], [Held(other.name, ["mark price"])])


def test_what_its_venue_has_not_listed_is_missing_in_a_what_if():
    name = "okx:BTC-USDT-SWAP"
    engine, one, _ = two_venues([(name, spec(0).asset)])
    found = engine.assets[one.asset].stress(START, -0.03)
    assert found.missing == [Missing(name, ["specification"])]
