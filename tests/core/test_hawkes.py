"""Self-excitation is found where it is, not where it is not, and doubted where it does not fit."""

import msgspec
import numpy as np
import pytest

from monitor.core.forecast.hawkes import (
    CLUSTERS_MAX,
    DECAYS_S,
    Hawkes,
    HawkesState,
    kolmogorov,
)
from monitor.core.saved import StateError
from monitor.events import NS

AT = 1_767_225_600 * NS


def drawn(rate, ratios, hours, seed=0):
    """Times in seconds of a Hawkes process, by thinning."""
    chance = np.random.default_rng(seed)
    decays = np.array(DECAYS_S)
    heights = np.array(ratios) / decays
    now, excited, times = 0.0, np.zeros(3), []
    while now < hours * 3_600:
        bound = rate + heights @ excited
        wait = chance.exponential(1.0 / bound)
        now += wait
        excited = excited * np.exp(-wait / decays)
        if chance.random() * bound <= rate + heights @ excited:
            times.append(now)
            excited = excited + 1.0
    return times


def told(hawkes, times, hours, start=AT):
    prints = iter([*times, float("inf")])
    following = next(prints)
    for second in range(0, int(hours * 3_600) + 1, 300):
        while following <= second:
            hawkes.heard(start + round(following * NS))
            following = next(prints)
        hawkes.advance(start + second * NS)
    return hawkes


@pytest.mark.parametrize(
    ("rate", "ratios"),
    [(0.02, (0.0, 0.0, 0.0)), (0.008, (0.0, 0.3, 0.3)), (0.004, (0.0, 0.2, 0.6))],
)
def test_the_branching_ratio_is_recovered(rate, ratios):
    latest = told(Hawkes(), drawn(rate, ratios, 12), 12).latest
    assert latest.fit == "fits"
    assert latest.ratio == pytest.approx(sum(ratios), abs=0.15)
    assert latest.per_hour == pytest.approx(3_600 * rate, rel=0.3)
    assert latest.excess is None  # no month of its own yet


def test_child_prints_of_one_liquidation_are_one_cluster():
    parents = drawn(0.02, (0.0, 0.0, 0.0), 6, seed=1)
    split = sorted(t + 0.1 * child for t in parents for child in range(8))
    latest = told(Hawkes(), split, 6).latest
    assert latest.ratio < 0.2


def test_residuals_that_do_not_fit_make_it_stale():
    # A metronome excites nothing, and is nothing a kernel explains.
    latest = told(Hawkes(), [60.5 * i for i in range(1, 360)], 6.5).latest
    assert latest.fit == "residuals"
    assert latest.is_stale
    assert latest.excess is None
    assert latest.ks <= 0.01


def test_too_little_says_so():
    assert told(Hawkes(), drawn(0.02, (0.0, 0.0, 0.0), 0.5), 0.5).latest.fit == "too_short"
    assert told(Hawkes(), [600.0 * i for i in range(1, 20)], 4).latest.fit == "too_few"


def test_the_excess_is_over_its_own_usual_of_a_month():
    hawkes = told(Hawkes(), drawn(0.006, (0.0, 0.4, 0.45), 10, seed=3), 10)
    assert hawkes.latest.excess is None
    past = [(AT // NS // 3_600 - 30 + i, 0.3) for i in range(25)]
    hawkes.restore(msgspec.structs.replace(hawkes.state(), hours=past))
    told(hawkes, drawn(0.006, (0.0, 0.4, 0.45), 1, seed=4), 1, AT + 10 * 3_600 * NS)
    assert hawkes.latest.excess == pytest.approx(hawkes.latest.ratio - 0.3)
    assert hawkes.latest.excess > 0.2


def test_a_missed_stretch_begins_anew():
    hawkes = told(Hawkes(), drawn(0.02, (0.0, 0.0, 0.0), 4), 4)
    hawkes.interrupted()
    assert hawkes.latest.is_stale
    hawkes.advance(AT + 5 * 3_600 * NS)
    assert hawkes.latest.fit == "too_short"


def test_a_storm_of_prints_is_bounded():
    hawkes = told(Hawkes(), np.arange(1.0, 4_000.0, 0.9).tolist(), 1.2)
    assert len(hawkes._clusters) <= CLUSTERS_MAX
    assert 0.0 <= hawkes.latest.ratio <= 1.0


def test_a_restart_goes_on_where_it_ended():
    times = drawn(0.01, (0.0, 0.3, 0.2), 6)
    hawkes = told(Hawkes(), times, 6)
    other = Hawkes()
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(hawkes.state()), type=HawkesState))
    for each in (hawkes, other):
        told(each, drawn(0.01, (0.0, 0.3, 0.2), 1, seed=5), 1, AT + 6 * 3_600 * NS)
    assert other.latest == hawkes.latest
    with pytest.raises(StateError, match="finite"):
        other.restore(msgspec.structs.replace(hawkes.state(), weights=[float("nan")] * 4))
    with pytest.raises(StateError, match="order"):
        rows = list(reversed(hawkes.state().clusters))
        other.restore(msgspec.structs.replace(hawkes.state(), clusters=rows))


def test_the_kolmogorov_distribution_has_its_known_quantiles():
    assert kolmogorov(1.358) == pytest.approx(0.05, abs=5e-4)
    assert kolmogorov(1.628) == pytest.approx(0.01, abs=2e-4)
    assert kolmogorov(0.1) == 1.0
