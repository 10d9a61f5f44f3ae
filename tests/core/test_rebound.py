"""A retracement is no cascade of the other side; what goes beyond it, or weighs as much, is."""

from math import exp, log

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.alerts.budget import Budget
from monitor.core.alerts.phases import Phases
from monitor.core.alerts.reasons import Evidence, ranked
from monitor.core.alerts.rules import AlertRules
from monitor.events import NS

START = 1_767_225_600 * NS
RULES = AlertRules()
SIGN = {"down": -1.0, "up": 1.0}
OTHER = {"down": "up", "up": "down"}
START_PRICE = 100.0
UNIT = 0.00137 / 12
"""Log prices are multiples of this, none of which meets a threshold, so that mirrors agree."""


class Market:
    """Both directions of one asset, told of the price and the forced closes every five seconds."""

    def __init__(self):
        budget = Budget(RULES)
        self.phases = {d: Phases("BTC", d, rules=RULES, budget=budget) for d in SIGN}
        self.at, self.logs = START, [0.0] * 61
        self.seen = {d: [] for d in SIGN}
        self.latest = {}

    def go(self, price, seconds=60, **known):
        """Move evenly, in logs, to `price`."""
        return self.move(log(price / START_PRICE), seconds, **known)

    def move(self, target, seconds=60, *, longs=0.0, shorts=0.0, **known):
        """Move to a log price while so many USD are liquidated in every minute."""
        first, steps = self.logs[-1], int(seconds) // 5
        for i in range(1, steps + 1):
            self.at += 5 * NS
            self.logs.append(round((first + (target - first) * i / steps) / UNIT) * UNIT)
            bursts = {d: phases.burst(self.at) for d, phases in self.phases.items()}
            for d, phases in self.phases.items():
                usd = longs if d == "down" else shorts
                moves = [SIGN[d] * (self.logs[-1] - self.logs[-1 - n]) for n in (12, 60)]
                fields = {
                    "score": 0.05, "mark": START_PRICE * exp(self.logs[-1]), "depth_recovered": 1.0,
                    "liquidated_usd": (usd / 6, usd, usd), "normal_liquidated_usd": 5e3,
                    "moves": tuple(moves), "moves_sigma": tuple(m / 0.001 for m in moves),
                    "opposite": bursts[OTHER[d]],
                } | known  # fmt: skip
                evidence = Evidence(at=self.at, asset="BTC", direction=d, **fields)
                self.latest[d] = evidence
                phases.step(evidence)
                self.seen[d].append(phases.standing().phase)
        return self

    def crash(self, by=0.06):
        """Longs for fifty million in two minutes."""
        return self.go(START_PRICE * (1 - by), 120, longs=50e6).go(START_PRICE * (1 - by), 60)

    def called(self, direction):
        return "cascading" in self.seen[direction]


def test_the_rebound_of_a_crash_is_no_cascade_of_shorts():
    market = Market().crash().go(98.5, 120, shorts=2e6).go(99.0, 120, shorts=3e6)
    assert market.called("down")
    assert not market.called("up")
    assert market.phases["up"].standing().phase == "calm"


def test_the_setback_of_a_squeeze_is_no_cascade_of_longs():
    market = Market().go(106.0, 120, shorts=50e6).go(106.0, 60).go(101.5, 120, longs=2e6)
    assert market.called("up")
    assert not market.called("down")


def test_the_same_rise_without_a_crash_before_it_is_one():
    assert Market().go(100.0, 120).go(104.5, 120, shorts=2e6).called("up")


def test_a_squeeze_beyond_where_the_crash_began_is_a_cascade_of_its_own():
    market = Market().crash().go(99.5, 120, shorts=2e6)
    assert not market.called("up")
    assert market.go(101.0, 60, shorts=2e6).called("up")


def test_shorts_that_weigh_as_much_as_the_longs_are_a_cascade_within_the_retracement_too():
    market = Market().crash().go(97.0, 60, shorts=0.2 * 50e6)
    assert not market.called("up")
    assert market.go(98.5, 60, shorts=0.3 * 50e6).called("up")


def test_a_rise_long_after_the_crash_is_judged_for_itself():
    market = Market().crash()
    market.go(94.0, RULES.rebound_s)
    assert market.go(98.0, 120, shorts=2e6).called("up")


def test_a_crash_that_is_called_never_waits_for_the_other_side():
    market = Market().crash().go(98.0, 120, shorts=2e6)
    market.go(92.0, 120, longs=50e6)
    assert market.phases["down"].standing().phase == "cascading"


@pytest.mark.parametrize("unknown", [{"mark": None}, {"opposite": None}])
def test_what_is_not_known_excuses_no_cascade(unknown):
    market = Market().crash()
    assert market.go(98.0, 60, shorts=2e6, **unknown).called("up")


def test_liquidations_unheard_leave_the_rebound_a_warning():
    market = Market().crash().go(98.0, 60, liquidated_usd=None)
    assert market.phases["up"].standing().phase == "warning"


def test_a_restart_in_between_forgets_neither_the_level_nor_the_weight():
    market = Market().crash()
    for d, phases in market.phases.items():
        saved = msgspec.msgpack.encode(phases.state())
        again = Phases("BTC", d, rules=RULES, budget=Budget(RULES))
        again.restore(msgspec.msgpack.decode(saved, type=type(phases.state())))
        market.phases[d] = again
    assert not market.go(98.5, 120, shorts=2e6).called("up")


def test_a_trader_is_told_that_the_move_takes_back_another():
    market = Market().crash().go(98.0, 60, shorts=2e6)
    texts = [reason.text for reason in ranked(market.latest["up"])]
    assert any(text.endswith("back towards 100.00 where the fall began") for text in texts)
    market.go(103.0, 60, shorts=2e6)
    assert not any("back towards" in reason.text for reason in ranked(market.latest["up"]))


@settings(max_examples=40, deadline=None)
@given(
    turns=st.lists(
        st.tuples(st.integers(-70, 70), st.floats(0.0, 6e7), st.floats(0.0, 6e7)), max_size=8
    )
)
def test_both_sides_are_treated_alike(turns):
    ours, mirrored = Market(), Market()
    for twelfths, longs, shorts in turns:
        ours.move(12 * twelfths * UNIT, longs=longs, shorts=shorts)
        mirrored.move(-12 * twelfths * UNIT, longs=shorts, shorts=longs)
    assert ours.seen["down"] == mirrored.seen["up"]
    assert ours.seen["up"] == mirrored.seen["down"]
