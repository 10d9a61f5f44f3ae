"""Markets for the wires: a small real one, and one that only changes when told to."""

import pytest

from monitor.sim.liquidation import Liquidation
from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS
from monitor.sim.scenarios import scenario
from tests.sim.wire.client import Quiet


@pytest.fixture(scope="session")
def model():
    return Market(scenario("calm"), seed=1, assets=ASSETS[:1], population=0.01, step_ms=1_000)


@pytest.fixture
def quiet(model):
    """BTC with 30 levels a side around 100,000 (ticks of every venue: 10 USD apart)."""
    market = Quiet(model)
    market.set(
        bids={1_000_000 - 100 * n: 1_000 + n for n in range(1, 31)},
        asks={1_000_000 + 100 * n: 2_000 + n for n in range(1, 31)},
    )
    return market


@pytest.fixture
def small():
    """A real market, small and lively; 100 ms steps."""
    return Market(scenario("calm"), seed=2, assets=ASSETS[:1], population=0.2, step_ms=100)


@pytest.fixture
def liquidation(quiet):
    def make(venue, **fields):
        defaults = {
            "at": quiet.at,
            "venue": venue,
            "asset": "BTC",
            "account": 77,
            "side": "long",
            "lots": 500,
            "trigger_tick": 999_000,
            "bankruptcy_tick": 990_000,
            "filled": 300,
            "fill_tick": 995_000.5,
            "taken": 200,
            "adl": 0,
            "fund_loss": 1_500_000,
            "is_partial": False,
            "is_final": True,
        }
        return Liquidation(**(defaults | fields))

    return make
