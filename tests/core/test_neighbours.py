"""What assets do to each other is not forgotten by a restart or when another asset comes."""

import pytest

from monitor.backtest.tape import instrument_of
from monitor.core.asset import Asset
from monitor.core.cascade.coupling import StressRow
from monitor.core.engine import Engine
from monitor.core.heatmap.calibration import ThrottleCorrection
from monitor.core.neighbours import Neighbours
from monitor.events import NS, Candles, Listed, MarkPrice, OpenInterest, Restored, Tick
from monitor.sim.parameters import ASSETS
from monitor.sim.rules import VENUES
from tests.builders import engine_config

START = 1_790_000_000 * NS
ROW = StressRow(at=START, count=900, variance=1e-7, follows={"BTC": (0.0, 0.0), "ETH": (4e3, 1e4)})
"""Bitcoin has moved 0.4 times as far as ether in its violent minutes."""


def assets(*names):
    correction = ThrottleCorrection()
    return {name: Asset(name, correction) for name in names}


def test_how_an_asset_follows_others_is_taken_over_from_its_saved_state():
    known = assets("BTC", "ETH")
    known["BTC"].recalled = ROW
    neighbours = Neighbours()
    neighbours.advance(START, known)
    assert known["BTC"].neighbourhood.stress_betas["ETH"] == pytest.approx(0.4, abs=0.01)
    assert known["ETH"].neighbourhood.stress_betas == {}, "nothing is known of the other"
    assert known["ETH"].neighbourhood.learnt == pytest.approx(0.5, abs=0.01), "one way of two"
    assert known["BTC"].recalled is None
    neighbours.advance(START + 60 * NS, known)
    assert neighbours.row("BTC").count == ROW.count


def test_a_new_asset_makes_none_of_the_others_forget():
    known = assets("BTC", "ETH")
    known["BTC"].recalled = ROW
    neighbours = Neighbours()
    neighbours.advance(START, known)
    more = known | assets("SOL")
    neighbours.advance(START + 60 * NS, more)
    assert more["BTC"].neighbourhood.stress_betas["ETH"] == pytest.approx(0.4, abs=0.01)
    assert set(more["BTC"].neighbourhood.stress_betas) == {"ETH"}, "of the new one nothing is told"


def test_the_row_of_an_asset_outlives_the_process():
    spec = instrument_of(VENUES[0], ASSETS[0].name)

    def started():
        engine = Engine(engine_config())
        engine.process(START, Listed(spec))
        engine.process(START - 5 * NS, Candles(spec.name, 300, []))
        engine.process(START, MarkPrice(spec.name, START, 100_000.0, 100_000.0))
        engine.process(START, OpenInterest(spec.name, START, 1_000.0, None))
        return engine

    first = started()
    first.assets[spec.asset].recalled = ROW
    first.process(START + 60 * NS, Tick(START + 60 * NS))
    data = first.state(spec.asset, START + 61 * NS)
    assert data
    second = Engine(engine_config())
    second.process(START + 70 * NS, Restored(START + 70 * NS, spec.asset, data))
    assert not second.refused
    row = second.assets[spec.asset].recalled
    assert (row.count, row.variance) == (ROW.count, ROW.variance)
