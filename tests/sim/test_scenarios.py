import numpy as np
import pytest

from monitor.sim.market import Market
from monitor.sim.scenarios import scenario
from monitor.sim.truth import run_with_twin

SMALL = 0.2


@pytest.mark.parametrize(("name", "sign", "side"), [("crash", -1, "long"), ("squeeze", 1, "short")])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_cascade_of_the_named_side_makes_most_of_the_move_within_three_minutes(
    name, sign, side, seed
):
    found = run_with_twin(scenario(name), seed=seed, duration_s=180, population=SMALL)
    for a in range(3):
        worst = int(np.argmax(sign * found.actual[:, a]))
        move = sign * found.actual[worst, a]
        assert move > 0.02
        assert sign * found.endogenous[worst, a] > 0.5 * move
    usd = {s: sum(r.lots for r in found.records if r.side == s) for s in ("long", "short")}
    assert usd[side] > 0.7 * sum(usd.values())


@pytest.mark.parametrize("seed", [1, 2])
def test_calm_has_no_cascade(seed):
    found = run_with_twin(scenario("calm"), seed=seed, duration_s=400, population=SMALL)
    assert np.abs(found.endogenous).max() < 0.004
    assert np.abs(found.actual).max() < 0.015


def test_grind_declines_without_a_cascade_while_longs_are_closed():
    found = run_with_twin(scenario("grind"), seed=1, duration_s=1_800, population=SMALL)
    assert found.actual[-1, 0] < -0.004
    assert np.abs(found.endogenous).max() < 0.01
    minute = np.abs(found.actual[60:] - found.actual[:-60]).max()
    assert minute < 0.01


def test_a_wick_moves_the_book_further_than_the_mark():
    market = Market(scenario("wick"), seed=1, population=SMALL)
    start = {v.name: market.ticker(v.name, "BTC").mark for v in market.venues}
    deepest, marked = 0.0, 0.0
    for _ in range(90):
        market.step()
        deepest = min(deepest, float(market.log_price()[0]))
        moves = [market.ticker(n, "BTC").mark / m - 1 for n, m in start.items()]
        marked = min(marked, sum(moves) / len(moves))
    assert deepest < -0.008
    assert abs(marked) < 0.5 * abs(deepest)


def test_a_depeg_liquidates_on_its_venue_first():
    market = Market(scenario("depeg"), seed=1, population=1.0)
    by_venue = {v.name: 0.0 for v in market.venues}
    sides = {"long": 0, "short": 0}
    for _ in range(160):
        for record in market.step().liquidations:
            by_venue[record.venue] += 1
            sides[record.side] += 1
    # Longs stand on that collateral, so their forced sales push prices down.
    assert sides["long"] > 10 * sides["short"]
    assert (market.log_price() < -0.002).all()
    assert by_venue["binance"] > 10
    assert by_venue["binance"] > 3 * max(n for v, n in by_venue.items() if v != "binance")


def test_random_depends_on_its_seed_only():
    assert scenario("random", 1) == scenario("random", 1)
    assert scenario("random", 1) != scenario("random", 2)
