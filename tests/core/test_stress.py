"""What-if over venues, and insurance funds."""

from math import log

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.cascade.curves import DISTANCES, POINTS
from monitor.core.cascade.impact import stop_of_flow, stop_of_requote
from monitor.core.cascade.insurance import VenueFund, executed, runway, shortfall
from monitor.core.cascade.stress import (
    CLOSED,
    SETTLED,
    Held,
    Missing,
    Stress,
    VenueCurves,
    stress,
)

MILLION = 1e6
PERCENT = DISTANCES * 100


def venue(name="a", *, mark=100.0, depth=20.0, fuel=8.0, maintenance=0.005):
    """A venue with so many million USD of depth and fuel per percent."""
    return VenueCurves(name, mark, depth * MILLION * PERCENT, fuel * MILLION * PERCENT, maintenance)


def survives_json(result):
    return msgspec.json.decode(msgspec.json.encode(result), type=type(result)) == result


# ------------------------------------------------------------------------------------ what-if


def test_a_sub_critical_shock_is_amplified_by_one_over_one_minus_gain():
    result = stress(-0.03, [venue("a"), venue("b")], survival=1.0, psi=1.5)
    assert result.side == "long"
    assert result.amplification == pytest.approx(1 / (1 - 1.5 * 0.4), rel=1e-3)
    end = -log(0.97) * 2.5
    assert result.landing_ratio == pytest.approx(np.exp(-end) - 1, rel=1e-3)
    assert result.landing_price == pytest.approx(100 * np.exp(-end), rel=1e-3)
    assert result.liquidated_usd == pytest.approx(2 * 8 * MILLION * end * 100, rel=1e-3)
    assert result.path[0].move_ratio == pytest.approx(-0.03)
    assert result.path[0].liquidated_usd == 0.0
    assert result.path[-1].forced_flow_usd == pytest.approx(1.5 * result.liquidated_usd, rel=1e-3)
    assert (result.survival, result.psi, result.beta) == (1.0, 1.5, 1.0)
    assert survives_json(result)


def test_mirrored_shocks_travel_the_same_log_distance():
    down = stress(-0.03, [venue("a"), venue("b", fuel=2.0)], survival=0.9, psi=1.5)
    up = stress(1 / 0.97 - 1, [venue("a"), venue("b", fuel=2.0)], survival=0.9, psi=1.5)
    assert up.side == "short"
    assert up.landing_ratio > 0 > down.landing_ratio
    assert log(1 + up.landing_ratio) == pytest.approx(-log(1 + down.landing_ratio))
    assert up.liquidated_usd == pytest.approx(down.liquidated_usd)
    assert len(up.path) == len(down.path)


def test_one_venue_alone_agrees_with_the_solver_of_one_pair():
    v = venue(fuel=9.0)
    result = stress(-0.02, [v], survival=0.8, psi=1.2)
    stop = stop_of_requote(v.depth, v.fuel, -log(0.98), survival=0.8, psi=1.2)
    assert -log(1 + result.landing_ratio) == pytest.approx(stop, abs=2e-5)


def test_an_unstoppable_shock_has_no_landing():
    result = stress(-0.03, [venue("a", fuel=30.0), venue("b")], survival=1.0, psi=1.5)
    assert result.beyond
    assert result.landing_price is None
    assert result.amplification is None
    assert result.liquidated_usd > 0
    assert stress(-0.5, [venue()], survival=1.0, psi=1.5).landing_ratio is None


def test_the_venues_that_can_be_seen_to_their_end_have_a_landing_of_their_own():
    thin = venue("thin", depth=0.1, fuel=30.0)
    deep = [venue("a", depth=1e4), venue("b", depth=1e4)]
    result = stress(-0.03, [thin, *deep], survival=1.0, psi=1.5, alphas={"thin": 0.0})
    assert [v.beyond for v in result.venues] == [True, False, False]
    assert result.landing_price is None
    assert result.seen_ratio == pytest.approx(result.venues[1].landing_ratio, abs=1e-9)
    assert result.seen_price == pytest.approx(result.venues[1].landing_price)
    whole = stress(-0.03, deep, survival=1.0, psi=1.5)
    assert (whole.seen_price, whole.seen_ratio) == (whole.landing_price, whole.landing_ratio)
    gone = stress(-0.03, [thin], survival=1.0, psi=1.5)
    assert (gone.seen_price, gone.seen_ratio) == (None, None)


def folded(at=3.6, width=1.0):
    """Venues with a cluster of fuel in one percent around 3.6 %, past which little stops a fall."""
    ramp = np.clip((PERCENT - at) / width + 0.5, 0.0, 1.0)
    return [
        VenueCurves(
            name, 100.0, d * MILLION * PERCENT, MILLION * (PERCENT + f * ramp), maintenance=0.005
        )
        for name, d, f in (("a", 20.0, 40.0), ("b", 12.0, 22.0), ("c", 8.0, 9.0))
    ]


def test_beside_an_answer_near_a_fold_stands_how_differently_its_neighbours_end():
    found = stress(-0.0235, folded(), survival=0.5, psi=1.5)
    below, above = found.nearby
    for near, factor in ((below, 0.9), (above, 1.1)):
        assert log(1 + near.shock_ratio) == pytest.approx(factor * log(1 - 0.0235))
        alone = stress(near.shock_ratio, folded(), survival=0.5, psi=1.5)
        assert near.landing_ratio == pytest.approx(alone.landing_ratio, abs=1e-9)
        assert near.liquidated_usd == pytest.approx(alone.liquidated_usd, abs=1.0)
    assert below.landing_ratio > -0.03
    assert above.landing_ratio < -0.09


def test_a_neighbour_that_runs_beyond_what_is_seen_has_no_landing():
    v = venue(depth=20.0, fuel=0.0)
    endless = VenueCurves("a", 100.0, v.depth, 40 * MILLION * np.maximum(PERCENT - 4, 0), 0.005)
    below, above = stress(-0.0395, [endless], survival=1.0, psi=1.5).nearby
    assert (below.beyond, above.beyond) == (False, True)
    assert below.landing_ratio == pytest.approx(below.shock_ratio)
    assert above.landing_ratio is None


def test_what_a_venue_has_closed_and_what_it_has_not_are_its_map():
    result = stress(-0.03, [venue("a"), venue("b", fuel=3.0)], survival=1.0, psi=1.5)
    for row, fuel in zip(result.venues, (8.0, 3.0), strict=True):
        assert row.liquidated_usd + row.unclosed_usd == pytest.approx(fuel * MILLION * 30)


def test_what_is_not_known_is_listed_and_never_counted():
    known = venue("a")
    blind = [
        msgspec.structs.replace(venue("b"), depth=None),
        msgspec.structs.replace(venue("c"), fuel=None, mark=None),
        msgspec.structs.replace(venue("d"), mark=float("nan")),
    ]
    result = stress(-0.03, [known, *blind], survival=1.0, psi=1.5)
    assert [v.name for v in result.venues] == ["a"]
    assert [(m.name, m.unknown) for m in result.missing] == [
        ("b", ["depth"]), ("c", ["mark", "fuel"]), ("d", ["mark"]),
    ]  # fmt: skip
    assert result.landing_ratio == stress(-0.03, [known], survival=1.0, psi=1.5).landing_ratio
    nothing = stress(-0.03, blind, survival=1.0, psi=1.5)
    assert (nothing.landing_ratio, nothing.liquidated_usd, nothing.beyond) == (None, None, False)


def test_a_venue_of_unknown_margin_leaves_the_shortfall_unknown():
    known, blind = venue("a"), venue("b", maintenance=None)
    result = stress(-0.03, [known, blind], survival=1.0, psi=1.5)
    assert result.venues[0].shortfall_usd is not None
    assert result.venues[1].shortfall_usd is None
    assert result.shortfall_usd is None


def test_the_last_round_told_is_the_landing_and_none_before_it_adds_nothing():
    result = stress(-0.03, [venue("a"), venue("b")], survival=1.0, psi=1.5)
    assert result.path[-1].price == result.landing_price
    assert result.path[-1].liquidated_usd == pytest.approx(result.liquidated_usd, rel=1e-4)
    before, last = result.path[-2:]
    moved = abs(log(last.price / before.price))
    assert moved >= SETTLED or last.liquidated_usd > (1 + CLOSED) * before.liquidated_usd
    assert len(result.path) > 5


def test_a_shock_that_closes_nothing_is_told_in_one_round():
    bare = msgspec.structs.replace(venue(), fuel=np.zeros(POINTS))
    result = stress(-0.03, [bare], survival=1.0, psi=1.5)
    assert [step.liquidated_usd for step in result.path] == [0.0]


# ----------------------------------------------------------------------------- mark pass-through


def test_a_shock_of_perpetuals_alone_closes_less_until_the_mark_has_followed():
    def closed(**asked):
        return stress(-0.03, [venue()], survival=1.0, psi=1.0, **asked).liquidated_usd

    at_once = closed(within_s=0.0, spot_share=0.0)
    soon = closed(within_s=30.0, spot_share=0.0)
    led_by_spot = closed(within_s=30.0, spot_share=0.9)
    assert at_once == 0.0 < soon < led_by_spot < closed()
    assert closed(within_s=150.0, spot_share=0.0) == closed()


def test_an_unknown_share_of_spot_never_makes_a_shock_look_smaller():
    plain = stress(-0.03, [venue()], survival=1.0, psi=1.0)
    asked = stress(-0.03, [venue()], survival=1.0, psi=1.0, within_s=5.0, spot_share=None)
    assert (asked.beta, asked.spot_share) == (1.0, None)
    assert asked.liquidated_usd == plain.liquidated_usd
    unasked = stress(-0.03, [venue()], survival=1.0, psi=1.0, spot_share=0.1)
    assert unasked == plain


@pytest.mark.parametrize("asked", [{"within_s": -1.0}, {"within_s": 1.0, "spot_share": 1.1}])
def test_a_time_or_share_that_is_none_is_refused(asked):
    with pytest.raises(ValueError):
        stress(-0.03, [venue()], survival=1.0, psi=1.0, **asked)


# -------------------------------------------------------------------------------- whatever comes


@pytest.mark.parametrize("shock", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shock_that_is_none_is_refused(shock):
    with pytest.raises(ValueError):
        stress(shock, [venue()], survival=1.0, psi=1.5)


densities = st.lists(st.sampled_from([0.0, 1.0, 1e3, 1e5, 1e6, 1e9]), min_size=6, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(densities, densities, st.floats(0, 1)), min_size=1, max_size=4),
    st.floats(-0.9, 3).filter(lambda x: abs(x) > 1e-6),
    st.floats(0.05, 1.2),
)
def test_whatever_the_curves_a_stress_answers_in_finite_numbers(rows, shock, survival):
    venues, alphas = [], {}
    for i, (depth, fuel, alpha) in enumerate(rows):
        curves = [np.concatenate(([0.0], np.cumsum(np.repeat(d, 100)))) for d in (depth, fuel)]
        venues.append(VenueCurves(f"v{i}", 100.0 + i, *curves, maintenance=0.01))
        alphas[f"v{i}"] = alpha
    result = stress(shock, venues, survival=survival, psi=1.5, alphas=alphas)
    assert survives_json(result)
    assert isinstance(result, Stress)
    assert result.beyond == (result.landing_price is None)
    assert all((v.landing_price is None) == v.beyond for v in result.venues)
    if result.landing_ratio is not None:
        assert abs(result.landing_ratio) >= abs(shock) - 1e-9
        assert result.amplification >= 1 - 1e-9
    assert result.shortfall_usd >= 0
    assert result.shortfall_usd <= result.liquidated_usd * max(1.0, 2.0 * abs(shock) + 1.0)


# ----------------------------------------------------------------------------- insurance fund


def test_closes_that_execute_within_their_margin_cost_the_fund_nothing():
    depth, fuel = 20 * MILLION * PERCENT, MILLION * PERCENT
    fills = executed(depth, fuel, 0.1, flow_usd=0.0, survival=1.0, psi=1.0)
    assert shortfall(fuel, fills, 0.1, maintenance=0.005, direction="down") == 0.0


def test_a_lump_that_slips_past_its_margin_costs_the_excess():
    depth = 20 * MILLION * PERCENT
    fuel = np.where(DISTANCES >= 0.01, 100 * MILLION, 0.0)
    stop = float(stop_of_flow(depth, fuel, np.array([21 * MILLION]), survival=1.0, psi=1.0)[0])
    fills = executed(depth, fuel, stop, flow_usd=20 * MILLION, survival=1.0, psi=1.0)
    loss = shortfall(fuel, fills, stop, maintenance=0.005, direction="up")
    part = shortfall(0.25 * fuel, fills, stop, maintenance=0.005, direction="up")
    assert part == pytest.approx(0.25 * loss)
    # From 1 % to 6 %: its closes execute 2.5 % beyond the trigger on average.
    expected = 100 * MILLION * (np.exp(0.025) - 1 - 0.005)
    assert loss == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("survival", [0.5, 0.2])
def test_thinner_books_cost_the_fund_more(survival):
    usual = stress(-0.03, [venue("a", fuel=3), venue("b")], survival=1.0, psi=1.0)
    thin = stress(-0.03, [venue("a", fuel=3), venue("b")], survival=survival, psi=1.0)
    assert thin.shortfall_usd > usual.shortfall_usd


def test_runway_is_unknown_without_the_fund_and_adl_threatens_below_one():
    ten = VenueFund(10.0, [])
    assert runway("v", None, 5.0).ratio is None
    assert runway("v", None, 5.0).adl_risk is None
    assert runway("v", ten, None).adl_risk is None
    assert runway("v", ten, 20.0).ratio == 0.5
    assert runway("v", ten, 20.0).adl_risk
    assert not runway("v", ten, 5.0).adl_risk
    assert (runway("v", ten, 0.0).ratio, runway("v", None, 0.0).adl_risk) == (None, False)
    overdrawn = runway("v", VenueFund(-3.0, ["BNB"]), 5.0)
    assert (overdrawn.fund_usd, overdrawn.ratio, overdrawn.adl_risk) == (-3.0, 0.0, True)
    assert overdrawn.unvalued == ["BNB"]
    assert runway("v", ten, 5.0, at_least=True).adl_risk is None
    assert runway("v", ten, 0.0, at_least=True).adl_risk is None
    assert runway("v", ten, 20.0, at_least=True).adl_risk


def test_a_fund_pays_for_all_instruments_of_its_venue():
    venues = [venue("x:one", fuel=3), venue("x:two", fuel=3), venue("y:one", fuel=3)]
    result = stress(
        -0.03, venues, survival=0.2, psi=1.0, funds={"x": VenueFund(1e12, [])}
    )  # fmt: skip
    lost = {v.name: v.shortfall_usd for v in result.venues}
    assert [f.name for f in result.funds] == ["x", "y"]
    assert result.funds[0].shortfall_usd == pytest.approx(lost["x:one"] + lost["x:two"])
    assert result.funds[0].adl_risk is False
    assert (result.funds[1].fund_usd, result.funds[1].adl_risk) == (None, None)
    assert survives_json(result)


def test_a_fund_with_an_instrument_left_out_is_not_said_to_last():
    blind = msgspec.structs.replace(venue("x:two"), fuel=None)
    result = stress(
        -0.03, [venue("x:one"), blind], survival=0.2, psi=1.0, funds={"x": VenueFund(1e12, [])}
    )
    assert result.missing == [Missing("x:two", ["fuel"])]
    [fund] = result.funds
    assert (fund.shortfall_usd, fund.ratio, fund.adl_risk) == (None, None, None)


# ------------------------------------------------------------------------- what is not heard


def test_a_venue_counted_though_unheard_is_named_and_counts_as_it_did():
    fresh, other = venue("x:one"), venue("y:one")
    held = msgspec.structs.replace(other, unheard=["order book"])
    plain, result = (stress(-0.03, [fresh, v], survival=1.0, psi=1.2) for v in (other, held))
    assert result.unheard == [Held("y:one", ["order book"])]
    assert plain == msgspec.structs.replace(result, unheard=[])
    assert survives_json(result)


def test_a_venue_that_is_left_out_is_missing_and_not_also_counted_unheard():
    lost = VenueCurves("y:one", 100.0, None, DISTANCES, 0.005, unheard=["order book"])
    result = stress(-0.03, [venue("x:one"), lost], survival=1.0, psi=1.2)
    assert (result.missing, result.unheard) == ([Missing("y:one", ["depth"])], [])


def test_what_its_venue_has_not_listed_is_missing_and_leaves_the_funds_loss_unknown():
    known = [venue("x:one"), venue("y:one")]
    result = stress(-0.03, known, survival=1.0, psi=1.2, unlisted=["y:two"])
    assert result.missing == [Missing("y:two", ["specification"])]
    lost = {fund.name: fund.shortfall_usd for fund in result.funds}
    assert lost["x"] is not None
    assert lost["y"] is None
    nothing = stress(-0.03, [], survival=1.0, psi=1.2, unlisted=["y:two"])
    assert nothing.missing == [Missing("y:two", ["specification"])]
