"""A wick of perpetuals alone is told from a fall that spot leads; a what-if knows which it was."""

import pytest

from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS
from monitor.sim.scenarios import scenario
from tests.sim.wire.desk import Desk


def fallen(name):
    """BTC as our engine knows it some seconds after the fall of a scenario, and when that is."""
    source = Market(scenario(name), seed=3, step_ms=500, assets=ASSETS[:1], population=0.05)
    desk = Desk(source)
    desk.run(80)
    return desk.pipeline.engine.assets["BTC"], desk.now


@pytest.fixture(scope="module")
def wick():
    return fallen("wick")


def test_in_a_wick_spot_has_hardly_moved_and_in_a_crash_it_leads(wick):
    crashed, _ = fallen("crash")
    assert wick[0].quantifier.taken.spot_share_ratio < 0.1
    assert crashed.quantifier.taken.spot_share_ratio > 0.6


def test_soon_after_a_wick_a_shock_of_its_kind_closes_less_than_in_the_end(wick):
    asset, at = wick
    soon, later, plain = (
        asset.stress(at, -0.05, within_s=s) if s else asset.stress(at, -0.05) for s in (30, 300, 0)
    )
    assert soon.beta == pytest.approx(soon.spot_share + (1 - soon.spot_share) * 0.2)
    assert soon.liquidated_usd < later.liquidated_usd == plain.liquidated_usd
    assert plain.spot_share is None
