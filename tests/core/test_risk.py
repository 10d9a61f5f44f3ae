"""From curves to the published risk of one direction: monotone, mirrored, finite, honest."""

import re
from math import exp, isfinite, sqrt

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.alerts.budget import Budget
from monitor.core.alerts.rules import AlertRules
from monitor.core.cascade.curves import DISTANCES, STEP
from monitor.core.cascade.loop import as_distance
from monitor.core.conditions import Conditions
from monitor.core.depth.supply import Curve
from monitor.core.forecast.label import Verdict
from monitor.core.heatmap.calibration import ThrottleCorrection
from monitor.core.instrument import InstrumentState
from monitor.core.risk import Outlook, Situation, foreseen
from monitor.events import NS, Candle, Liquidation
from tests.builders import instrument
from tests.plain_model import PLAIN

START = 1_790_000_040 * NS


def conditions(*, sign=1.0, minutes=10, liquidated=0.0, fall=0.0):
    """An asset whose price wanders by some basis points a second, and falls in the last minute."""
    state = InstrumentState(instrument())
    made = Conditions([state], ThrottleCorrection())
    made.history([Candle(START + (i - 300) * 300 * NS, 99.8, 100.2, 100.0) for i in range(300)])
    log_price = 0.0
    for second in range(60 * minutes):
        at = START + second * NS
        log_price += sign * 1e-4 * (1 if (second * 7919) % 13 < 6 else -1)
        log_price -= fall / 60.0 if second >= 60 * (minutes - 1) else 0.0
        state.mark, state.mark_at = 100.0 * exp(log_price), at
        made.advance(at)
        if liquidated and second % 10 == 0:
            side = "long" if sign > 0 else "short"
            event = Liquidation(
                state.spec.name, at, side, 1.0, liquidated, 100.0, "fill", None, "all", "x"
            )
            made.printed(at, state, event)
    return made, START + 60 * minutes * NS


def depth(usd=20e6, kappa=1.16):
    """A book that holds `usd` within one percent."""
    curve = usd * (DISTANCES / 0.01) ** kappa
    return Curve(curve, reach=0.02, kappa=kappa, age_s=0.0, stale=False)


def fuel(usd=60e6, at=0.02, width=0.004):
    """A cluster of `usd` around a distance."""
    raw = 1.0 / (1.0 + np.exp(-(DISTANCES - at) / width))
    return usd * (raw - raw[0])


def situation(at, made, **fields):
    known = {
        "at": at,
        "mark": 100.0,
        "volatility": made.forecast,
        "depth": depth(),
        "fuel": fuel(),
        "level_sd": 0.3,
        "interest_usd": 1e9,
        "map_confidence": 0.8,
        "coverage": 0.95,
        "quality": 1.0,
        "contagion": 0.2,
        "stale": None,
        "missing": (),
        "unheard": (),
        "venue_fuel": (("binance", 1.0),),
    }
    return Situation(**(known | fields))


def outlook(direction="down"):
    rules = AlertRules()
    return Outlook("BTC", direction, model=PLAIN, rules=rules, budget=Budget(rules))


def formed(own, direction, now, made):
    return own.update(now, foreseen({direction: now}, made), made)[0]


def judged(direction="down", made=None, at=0, **fields):
    if made is None:
        made, at = conditions()
    return formed(outlook(direction), direction, situation(at, made, **fields), made)


@pytest.fixture(scope="module")
def market():
    return conditions()


@pytest.fixture(scope="module")
def fallen_market():
    """The price has lost 4 % in the last minute, many standard deviations."""
    return conditions(fall=0.04)


def probabilities(risk):
    return [p.ratio for p in risk.probabilities]


@pytest.mark.parametrize("scale", [1.5, 3.0, 10.0])
def test_more_fuel_or_less_depth_never_lowers_the_probability(market, scale):
    made, at = market
    usual = judged(made=made, at=at)
    for worse in (
        judged(made=made, at=at, fuel=fuel(60e6 * scale)),
        judged(made=made, at=at, depth=depth(20e6 / scale)),
    ):
        for p, q in zip(probabilities(usual), probabilities(worse), strict=True):
            assert q >= p
        assert worse.score >= usual.score
        assert worse.mechanism.loop_gain >= usual.mechanism.loop_gain
        if usual.mechanism.critical_usd is not None:
            assert worse.mechanism.critical_usd <= usual.mechanism.critical_usd


@settings(max_examples=60, deadline=None)
@given(
    forced=st.builds(fuel, st.floats(1e6, 4e8), at=st.floats(0.003, 0.03)),
    resting=st.builds(depth, st.floats(2e6, 60e6)),
    level_sd=st.floats(0.05, 0.8),
)
def test_a_move_past_the_critical_one_is_amplified_to_where_that_one_lands(
    fallen_market, forced, resting, level_sd
):
    made, at = fallen_market
    now = situation(at, made, fuel=forced, depth=resting, level_sd=level_sd)
    chain = foreseen({"down": now}, made).chains["down"]
    move = 2.0 * now.volatility.sigma[2] * sqrt(900.0)
    if chain.critical is None or as_distance(chain.critical[0], "down") > move:
        return
    landing = chain.critical[2]
    if landing is None:
        assert chain.amplification is None
    elif chain.amplification is not None:
        assert chain.amplification * move >= as_distance(landing, "down") - STEP


def test_in_a_storm_the_ordinary_move_is_not_amplified_less_than_the_critical_one_says(
    fallen_market,
):
    made, at = fallen_market
    now = situation(at, made, fuel=fuel(6e6), depth=depth(30e6))
    risk = formed(outlook(), "down", now, made)
    assert risk.mechanism.critical_shock < 2.0 * now.volatility.sigma[2] * sqrt(900.0)
    (said,) = [r.text for r in risk.reasons if r.code == "amplification"]
    assert "is past the critical one" in said


def test_a_direction_is_solved_the_same_alone_and_beside_the_other(market):
    made, at = market
    down = situation(at, made, fuel=fuel(200e6, at=0.01))
    up = situation(at, made, depth=depth(5e6))
    both = foreseen({"down": down, "up": up}, made)
    for d, now in (("down", down), ("up", up)):
        alone = foreseen({d: now}, made)
        assert alone.passage == both.passage
        for name in ("critical", "reached", "gain", "fuel_ratio", "amplification", "psi"):
            assert getattr(alone.chains[d], name) == getattr(both.chains[d], name)
    assert both.chains["down"].reached != both.chains["up"].reached


def test_enough_fuel_at_hand_is_critical_and_none_is_calm(market):
    made, at = market
    heavy = judged(made=made, at=at, fuel=fuel(400e6, at=0.004, width=0.001))
    assert heavy.phase == "critical"
    assert heavy.mechanism.critical_shock < 0.01
    assert heavy.mechanism.jump.mean > 0.0075
    assert {r.code for r in heavy.reasons} >= {"probability", "fuel"}
    light = judged(made=made, at=at, fuel=fuel(1e5, at=0.1))
    assert light.phase == "calm"
    assert light.mechanism.critical_shock is None


def test_a_loop_gain_that_an_empty_book_leaves_unbounded_is_told_as_a_bound(market):
    made, at = market

    def told(**fields):
        reasons = judged(made=made, at=at, **fields).reasons
        return next(r.text for r in reasons if r.code == "loop_gain")

    assert " or more" in told(fuel=fuel(400e6, at=0.004, width=0.001), depth=depth(1e3))
    assert " or more" not in told()


def test_a_mirrored_market_gives_the_mirrored_risk():
    down, at = conditions(sign=1.0)
    up, _ = conditions(sign=-1.0)
    falls, rises = judged("down", down, at), judged("up", up, at)
    assert probabilities(falls) == pytest.approx(probabilities(rises), rel=1e-9)
    for name in ("critical_usd", "loop_gain", "supercritical_share", "psi"):
        ours, theirs = getattr(falls.mechanism, name), getattr(rises.mechanism, name)
        assert ours == pytest.approx(theirs)
    assert falls.mechanism.gain_from < 100.0 < rises.mechanism.gain_from


@pytest.mark.parametrize("lacking", ["depth", "fuel", "volatility"])
def test_what_is_not_known_is_unknown_and_not_calm(market, lacking):
    made, at = market
    reason = "no order book is believed"
    risk = judged(made=made, at=at, stale=reason, **{lacking: None})
    assert risk.mechanism is None
    assert probabilities(risk) == [None, None, None]
    assert risk.score is None
    assert risk.phase == "unknown"


def test_an_asset_alone_does_not_lack_contagion(market):
    made, at = market

    def unknown(**known):
        risk = judged(made=made, at=at, contagion=None, **known)
        return [r.text for r in risk.reasons if r.code == "unknown"]

    assert any("contagion" in text for text in unknown())
    assert not any("contagion" in text for text in unknown(is_alone=True))


def test_a_lost_map_leaves_the_baseline_to_be_shown_beside_nothing(market):
    made, at = market
    risk = judged(made=made, at=at, map_confidence=None, coverage=None)
    assert "coverage unknown" in risk.abstaining
    assert risk.probabilities[0].baseline is not None


def test_low_confidence_abstains_and_does_not_lower_the_score(market):
    made, at = market
    sure = judged(made=made, at=at)
    unsure = judged(made=made, at=at, map_confidence=0.1)
    assert unsure.score == sure.score
    assert unsure.abstaining
    assert not sure.abstaining


def test_one_horizon_that_is_not_stood_by_silences_no_other(market):
    made, at = market
    fragile = situation(at, made, fuel=fuel(600e6), depth=depth(2e6))

    def raised(horizon):
        one = outlook()
        one.cards[horizon].assess = lambda *_: "worse than climatology over 20 days"
        return formed(one, "down", fragile, made)

    for other in (300, 3600):
        assert (raised(other).phase, raised(other).abstaining) == ("critical", "")
    headline = raised(900)
    assert (headline.phase, headline.abstaining[:5]) == ("unknown", "worse")


def test_a_rivals_alarm_goes_on_while_the_baseline_is_unknown(market):
    made, at = market
    one, told = outlook(), []
    one.rival.step = lambda _, is_alarm: told.append(is_alarm)
    formed(one, "down", situation(at, made), made)
    formed(one, "down", situation(at + NS, made, stale="no order book is believed"), made)
    assert told == [False, None]


@settings(max_examples=40, deadline=None)
@given(
    usd=st.floats(0.0, 1e12),
    near=st.floats(0.0005, 0.3),
    book=st.floats(1.0, 1e12),
    kappa=st.floats(0.6, 2.0),
    level=st.floats(0.0, 2.0),
)
def test_nothing_published_is_ever_nan_or_infinite(usd, near, book, kappa, level):
    made, at = MARKET
    made_fuel, made_depth = fuel(usd, at=near), depth(book, kappa)
    risk = judged(made=made, at=at, fuel=made_fuel, depth=made_depth, level_sd=level)

    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            return [n for item in value for n in numbers(item)]
        return [value] if isinstance(value, float) else []

    found = numbers(msgspec.to_builtins(risk))
    assert all(isfinite(x) for x in found)
    assert all(p is None or 0.0 <= p <= 1.0 for p in probabilities(risk))
    assert not any(re.search(r"\bnan\b|None", r.text) for r in risk.reasons)


MARKET = conditions()


def test_where_most_nodes_run_beyond_what_is_seen_no_landing_is_told(market):
    made, at = market
    # The median node lands at 18 %, and 56 % of the weight runs on beyond the grid.
    far = judged(made=made, at=at, fuel=fuel(281e6, at=0.1, width=0.05), level_sd=1.0).mechanism
    assert far.beyond
    assert far.landing is None
    near = judged(made=made, at=at).mechanism
    assert not near.beyond
    assert near.landing is not None


def test_what_has_no_critical_shock_runs_nowhere_and_what_has_one_lands_or_runs_beyond(market):
    made, at = market
    # Some nodes run beyond the grid here, and the mean over them all has no critical shock.
    clusters = ([(69e6, 0.28, 0.012)], [(98e6, 0.183, 0.027), (3e6, 0.059, 0.004)])
    books = (depth(34e6), depth(9.3e6, kappa=1.08))
    some, most = (
        judged(
            made=made, at=at, depth=book, level_sd=level,
            fuel=sum(fuel(usd, at=away, width=width) for usd, away, width in forced),
        ).mechanism
        for forced, book, level in zip(clusters, books, (0.5, 0.52), strict=True)
    )  # fmt: skip
    assert (some.critical_shock, some.landing, some.beyond) == (None, None, False)
    # And here one, of which the mean has no landing although fewer than half run beyond.
    assert most.critical_shock is not None
    assert (most.landing, most.beyond) == (None, True)


def test_longer_horizons_are_never_less_likely(market):
    made, at = market
    p = probabilities(judged(made=made, at=at))
    assert p == sorted(p)


def test_forecasts_are_registered_before_and_graded_after(market):
    made, at = market
    one = outlook()
    formed(one, "down", situation(at, made), made)
    registered = one.register(at)
    assert [f.horizon_s for f in registered] == [300, 900, 3600]
    minute = 60 * NS
    graded = []
    for n in range(1, 90):
        end = at + n * minute
        one.minute(end)
        one.judged(Verdict(end, "down", (1, 2) if n == 3 else ()))
        graded += one.mature(end)
    assert [(v.horizon_s, v.outcome) for v in graded] == [(300, True), (900, True), (3600, True)]


def test_a_minute_that_cannot_be_told_is_no_verdict_and_no_false_alarm(market):
    made, at = market
    one = outlook()
    formed(one, "down", situation(at, made), made)
    one.register(at)
    one.alarms.step(at, is_alarm=True)
    graded = []
    for n in range(1, 90):
        end = at + n * 60 * NS
        one.alarms.step(end, is_alarm=n < 5)
        one.minute(end)
        doubt = ("liquidations_new", True) if n == 3 else (None, False)
        one.judged(Verdict(end, "down", None if n == 3 else (), *doubt))
        graded += one.mature(end)
    assert [(v.outcome, v.ungraded) for v in graded] == [(None, "liquidations_new")] * 3
    score = one.alarms.score()
    assert (score.undecided_total, score.alarms_total, score.false_alarms_total) == (1, 0, 0)


def test_an_outlook_comes_back_from_its_state(market):
    made, at = market
    one, other = outlook(), outlook()
    formed(one, "down", situation(at, made, fuel=fuel(400e6, at=0.004, width=0.001)), made)
    one.register(at)
    other.restore(
        msgspec.msgpack.decode(msgspec.msgpack.encode(one.state()), type=type(one.state()))
    )
    calm = situation(at + NS, made, fuel=fuel(1e5, at=0.1))
    ours, theirs = formed(one, "down", calm, made), formed(other, "down", calm, made)
    assert ours == theirs
    assert theirs.phase == "critical", "a phase does not end because the process did"


def test_elasticities_follow_from_the_spread_of_the_map(market):
    made, at = market
    m = judged(made=made, at=at, fuel=fuel(400e6, at=0.02, width=0.002), level_sd=0.05).mechanism
    # Less flow suffices with more fuel; depth works the other way, and harder.
    assert m.elasticity_fuel < 0.0
    assert m.elasticity_depth == pytest.approx(1.0 - m.elasticity_fuel)
    assert judged(made=made, at=at, fuel=fuel(1e5, at=0.1)).mechanism.elasticity_fuel is None


def test_no_more_is_liquidated_than_stands(market):
    made, at = market
    heavy = {"fuel": fuel(400e6, at=0.01, width=0.002), "level_sd": 1.0}
    m = judged(made=made, at=at, interest_usd=300e6, **heavy).mechanism
    assert m.liquidated_usd.high == 300e6
    assert judged(made=made, at=at, **heavy).mechanism.liquidated_usd.high > 300e6
