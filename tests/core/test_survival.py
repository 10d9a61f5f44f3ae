"""Depth that survives a shock, taught by events; engine throughput, measured in storms."""

from itertools import pairwise
from math import exp, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.depth.survival import (
    NODES,
    WEIGHTS,
    Survival,
    SurvivalState,
    Throughput,
    ThroughputState,
    decay,
    survival,
)
from monitor.core.saved import StateError
from monitor.events import NS


def lived(shocks, *, depth=1e6, left=0.1):
    """A survival that has seen events of ten minutes' calm and a minute of a large move."""
    taught, at = Survival(), 0
    for _ in range(shocks):
        for second in range(660):
            at += NS
            wild = second >= 600
            taught.observe(at, 8.0 if wild else 0.5, depth * (left if wild else 1.0))
    taught.observe(at + NS, 0.5, depth)
    return taught


def test_in_calm_the_published_nodes_hold():
    nodes, weights = survival(0.0)
    assert nodes.tolist() == list(NODES)
    assert weights.tolist() == list(WEIGHTS)
    assert survival(5.0)[0] == pytest.approx([node * exp(-0.2) for node in NODES])


@given(st.floats(-1e9, 1e9), st.floats(0.0, 1e3))
def test_a_larger_move_leaves_no_more_depth_and_always_some(z, more):
    assert 0.0 < decay(abs(z) + more) <= decay(z) <= 1.0


def test_decay_follows_the_published_table_of_depth_by_move():
    # model.md A7: depth falls by these factors at these moves.
    for z, factor in ((3, 1.13), (5, 1.23), (7, 1.40), (10, 1.75), (16, 2.4), (25, 6.1)):
        assert 1.0 / decay(z) == pytest.approx(factor, rel=0.12)


def test_a_move_of_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        survival(nan)


def test_events_of_deep_troughs_move_weight_to_the_lower_nodes_slowly():
    once, often = lived(1), lived(30)
    assert once.events == pytest.approx(1.0)
    assert sum(often.nodes(0.0)[1]) == pytest.approx(1.0)
    low = [sum(s.nodes(0.0)[1][2:]) for s in (Survival(), once, often)]
    assert low[0] == pytest.approx(0.3)
    assert low[0] < low[1] < 0.35 < low[2] < 0.8


def test_calm_teaches_nothing_and_neither_do_unknown_readings():
    taught = Survival()
    for second in range(2000):
        taught.observe(second * NS, 1.0, 1e6)
        taught.observe(second * NS, 9.0, None)
        taught.observe(second * NS, None, 1.0)
        taught.observe(second * NS, nan, 1.0)
    assert taught.events == 0.0


@given(st.floats(0.0, 1e6), st.floats(-1e3, 1e3))
def test_any_trough_is_one_event_in_all(trough, z):
    taught = Survival()
    taught.learn(trough, z)
    assert taught.events == pytest.approx(1.0)
    assert all(weight > 0.0 for weight in taught.nodes(z)[1])


def test_a_trough_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="ratio"):
        Survival().learn(nan, 1.0)


def test_what_was_taught_survives_a_restart_and_damage_is_refused():
    taught, other = lived(2), Survival()
    other.restore(taught.state())
    assert other.nodes(1.0)[1].tolist() == taught.nodes(1.0)[1].tolist()
    for counts in ((1.0,), (0.0, 0.0, 0.0, -1.0), (0.0, 0.0, nan, 0.0)):
        with pytest.raises(StateError):
            other.restore(SurvivalState(counts))
    assert other.state() == taught.state()


def heard(*stretches):
    """Engines seen for stretches of (seconds, USD in each)."""
    engine, at = Throughput(), 0
    for seconds, usd in stretches:
        for _ in range(seconds):
            at += NS
            engine.second(at, usd)
    return engine


TRICKLE, STORM = (3_600, 50.0), (60, 3e6)


def test_throughput_is_that_of_storms_and_not_of_what_trickles():
    assert heard((100, 0.0)).usd_per_s() is None
    assert heard(TRICKLE).usd_per_s() == pytest.approx(50.0)
    for told in ((TRICKLE, STORM, (10, 0.0)), (STORM, TRICKLE)):
        assert heard(*told).usd_per_s() == pytest.approx(3e6)
    engine = heard(STORM, TRICKLE)
    other = Throughput()
    other.restore(engine.state())
    assert other.usd_per_s() == engine.usd_per_s()
    assert other.absorbed(1e6) == engine.absorbed(1e6)


def test_a_damaged_throughput_is_refused():
    for windows in ([1.0] * 1_025, [inf], [-1.0], [0.0]):
        with pytest.raises(StateError):
            Throughput().restore(ThroughputState(windows))


def test_refill_absorbs_at_most_nine_tenths_and_nothing_when_unknown():
    stormy = heard(STORM, (10, 0.0))
    assert stormy.absorbed(6e5) == pytest.approx(0.2, rel=0.05)
    assert stormy.absorbed(2e7) == pytest.approx(0.9, rel=0.05)
    for refill in (None, 0.0, -2e5, nan):
        assert stormy.absorbed(refill) == 0.0
    assert Throughput().absorbed(1e6) == 0.0


def test_refill_that_outpaces_a_trickle_says_little_of_a_storm():
    assert heard(TRICKLE).absorbed(6e5) < 0.05


def test_what_refill_takes_does_not_leap_while_a_storm_is_heard():
    engine, at, told = Throughput(), 0, []
    for _ in range(120):
        at += NS
        engine.second(at, 3e6)
        told.append(engine.absorbed(6e5))
    assert max(abs(b - a) for a, b in pairwise(told)) < 0.2
