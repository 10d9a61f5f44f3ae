"""Recent prints, what is usual, and the flow that follows forced closes."""

import pytest

from monitor.core.forecast.prints import PSI, FollowOn, FollowOnState, Prints, PrintsState
from monitor.core.heatmap.calibration import ThrottleCorrection
from monitor.core.saved import StateError
from monitor.events import NS

START = 1_790_000_040 * NS
"""A whole minute."""


def at(seconds):
    return START + int(seconds * NS)


def test_nobody_heard_is_not_nothing_printed():
    prints = Prints(ThrottleCorrection())
    assert prints.within(at(0), 60) is None
    prints.add(at(0), "bybit", 100.0, "all")
    assert prints.within(at(100), 60) == 0.0


def test_only_the_asked_seconds_count():
    prints = Prints(ThrottleCorrection())
    for second, usd in ((0, 1.0), (250, 10.0), (295, 100.0)):
        prints.add(at(second), "bybit", usd, "all")
    assert prints.within(at(299), 10) == 100.0
    assert prints.within(at(299), 60) == 110.0
    assert prints.within(at(299), 300) == 111.0


def test_throttled_prints_are_made_up_for_and_complete_ones_are_not():
    correction = ThrottleCorrection()
    throttled, complete = Prints(correction), Prints(correction)
    for second in range(10):
        throttled.add(at(second), "binance", 1_000.0, "sampled_1s")
        complete.add(at(second), "bybit", 1_000.0, "all")
    assert complete.within(at(9), 60) == 10_000.0
    # Every second occupied is when a throttled feed hides most.
    assert throttled.within(at(9), 60) == pytest.approx(10_000.0 * correction.factor(10))
    assert throttled.within(at(9), 60) > 20_000.0


def test_takeovers_count_as_they_are_told():
    prints = Prints(ThrottleCorrection())
    for second in range(10):
        prints.add(at(second), "hyperliquid", 1_000.0, "tail_only")
    assert prints.within(at(9), 60) == prints.fresh(at(9)) == 10_000.0


def test_a_usual_minute_is_known_after_half_an_hour_and_a_burst_hardly_moves_it():
    prints = Prints(ThrottleCorrection())
    for minute in range(29):
        prints.add(at(60 * minute + 30), "bybit", 1_000.0, "all")
        prints.minute(at(60 * minute + 60))
    assert prints.normal_usd is None
    for minute in range(29, 600):
        prints.add(at(60 * minute + 30), "bybit", 1_000.0, "all")
        prints.minute(at(60 * minute + 60))
    assert prints.normal_usd == pytest.approx(1_000.0)
    prints.add(at(60 * 600 + 30), "bybit", 100_000.0, "all")
    prints.minute(at(60 * 600 + 60))
    assert prints.normal_usd < 1_200.0


@pytest.mark.parametrize("late", [0.0, 0.13, 0.9])
def test_every_second_belongs_to_one_minute_whenever_its_end_is_noticed(late):
    prints = Prints(ThrottleCorrection())
    found = []
    for second in range(181):
        if second and second % 60 == 0:
            if late:
                prints.add(at(second), "bybit", 1.0, "all")
            found.append(prints.minute(at(second + late)))
            if late:
                continue
        prints.add(at(second), "bybit", 1.0, "all")
    assert found == [60.0, 60.0, 60.0]


def test_what_is_fresh_is_told_once_and_made_up_for_as_of_the_last_ten_seconds():
    correction = ThrottleCorrection()
    prints = Prints(correction)
    for second in range(30):
        prints.add(at(second + 0.4), "binance", 1_000.0, "sampled_1s")
        prints.add(at(second + 0.6), "bybit", 500.0, "all")
        expected = 1_000.0 * correction.factor(min(second + 1, 10)) + 500.0
        assert prints.fresh(at(second + 0.9)) == pytest.approx(expected)
    assert prints.fresh(at(30)) == 0.0


QUIET = (0.0, 50_000.0)


def heard(*stretches):
    """Follow-on flow after stretches of (seconds, forced USD, USD that takers traded)."""
    follow = FollowOn()
    for seconds, forced, taken in stretches:
        for _ in range(seconds):
            follow.second(forced, taken)
    return follow


BURSTS = [(5, 1e6, 3e6 + 50_000.0), (595, *QUIET)] * 20


def test_follow_on_flow_is_what_comes_beside_the_usual():
    assert FollowOn().psi == PSI
    assert heard((2_000, *QUIET), *BURSTS).psi == pytest.approx(3.0, rel=0.05)


def test_who_follows_seconds_later_is_counted():
    late = [(2, 1e6, 50_000.0), (4, 0.0, 1e6 + 50_000.0), (594, *QUIET)] * 50
    assert heard((2_000, *QUIET), *late).psi == pytest.approx(2.0, rel=0.15)


def test_a_market_that_stays_busy_after_a_storm_does_not_follow_what_trickles():
    storm = ((2_000, *QUIET), (60, 1e6, 2e6 + 50_000.0), (600, *QUIET))
    busy = [(1, 20_000.0, 400_000.0), (3, 0.0, 400_000.0)] * 900
    after = heard(*storm)
    assert 1.5 < after.psi < 2.1
    assert heard(*storm, *busy).psi == pytest.approx(after.psi, abs=0.1)


def test_nothing_is_learnt_from_flow_alone():
    assert heard((1_000, 0.0, 1e4), (1_000, 0.0, 5e6)).psi == PSI


@pytest.mark.parametrize(("usual", "burst", "psi"), [(2e6, 1.2e6, 1.0), (0.0, 1e8, 10.0)])
def test_follow_on_flow_stays_within_its_bounds(usual, burst, psi):
    assert heard(*[(1, 1e6, burst), (100, 0.0, usual)] * 500).psi == psi


def test_closes_whose_trades_were_not_heard_teach_nothing():
    lost = [(5, 1e6, 0.0), (595, 0.0, 0.0)] * 20
    known = heard((2_000, *QUIET), *BURSTS).psi
    assert heard((2_000, *QUIET), *BURSTS, *lost).psi == pytest.approx(known, rel=0.01)


def test_states_come_back_and_impossible_ones_are_refused():
    prints, follow = Prints(ThrottleCorrection()), FollowOn()
    prints.restore(PrintsState(100.0, 5.0))
    assert prints.state() == PrintsState(100.0, 5.0)
    follow.restore(FollowOnState(3e8, 1e8))
    assert follow.psi == pytest.approx(3.0, rel=0.05)
    for bad in (PrintsState(-1.0, 0.0), PrintsState(1.0, float("nan"))):
        with pytest.raises(StateError):
            prints.restore(bad)
    for worse in (FollowOnState(float("inf"), 1.0), FollowOnState(1.0, -1.0)):
        with pytest.raises(StateError):
            follow.restore(worse)
