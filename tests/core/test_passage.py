"""First passage agrees with the figures it was specified by, and is ordered as chances are."""

from math import erfc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.forecast.passage import erfc_of, first_passage, flow_passage, structural

SIGMA = 0.003 / 300**0.5
"""0.3 % in five minutes."""
TAU = np.array((300.0, 900.0, 3600.0))


def one(x, **kwargs):
    return float(first_passage(np.array([x]), SIGMA, 300.0, **kwargs)[0])


def test_the_table_is_the_complementary_error_function():
    z = np.random.default_rng(0).uniform(0.0, 8.0, 5_000)
    assert erfc_of(z) == pytest.approx([erfc(x) for x in z], rel=5e-5)
    far = erfc_of(np.array([8.5, 1e300, np.inf]))
    assert (far >= 0.0).all()
    assert (far < 1e-29).all()


def test_the_published_figures_come_out():
    # model.md A10: sigma of 5 minutes 0.3 %, a move of 1 %. The jumps that give its third figure:
    # 0.40 an hour with a mean size of 0.66 %.
    assert one(0.01, vol_of_vol=0.0) == pytest.approx(0.0009, abs=5e-5)
    assert one(0.01) == pytest.approx(0.0134, abs=5e-5)
    assert one(0.01, jump_rate=0.40 / 3600, jump_size=0.0066) == pytest.approx(0.0206, abs=5e-5)


def test_a_simulated_walk_is_first_passed_as_often_as_said():
    chance = np.random.default_rng(1)
    steps = chance.standard_normal((4_000, 3_000)) * SIGMA * (300 / 3_000) ** 0.5
    farthest = steps.cumsum(axis=1).max(axis=1)
    said = one(0.004, vol_of_vol=0.0)
    # A walk in steps misses the crossings between them: 0.58 steps of correction.
    barrier = 0.004 - 0.58 * SIGMA * (300 / 3_000) ** 0.5
    assert (farthest > barrier).mean() == pytest.approx(said, abs=3 * (said / 4_000) ** 0.5)


MOVES = st.floats(0.0, 1.0) | st.just(float("inf"))


@given(MOVES, MOVES, st.floats(0.0, 1e-2), st.floats(0.0, 1e-2), st.floats(1e-9, 1e-3))
@settings(max_examples=100, deadline=None)
def test_farther_is_never_likelier_and_wilder_never_less_likely(a, b, s, t, rate):
    near, far = sorted((a, b))
    calm, wild = sorted((s, t))
    x = np.array([near, far])
    p = first_passage(x, calm, 900.0, jump_rate=rate, jump_size=0.005)
    q = first_passage(x, wild, 900.0, jump_rate=2 * rate, jump_size=0.006)
    assert ((p >= 0) & (p <= 1)).all()
    assert p[0] >= p[1]
    assert (q >= p - 1e-15).all()


def by_price(moves):
    return first_passage(moves, SIGMA, TAU.reshape(-1, *[1] * moves.ndim))


def test_nodes_without_a_critical_point_contribute_nothing_and_lit_ones_all_they_weigh():
    moves = np.array([[np.inf, np.inf, np.inf], [0.0, np.inf, np.inf]])
    shocks = np.full((2, 3), np.inf)
    p = structural(by_price(moves), shocks, np.array([0.2, 0.3, 0.5]), tau=TAU)
    assert p[:, 0] == pytest.approx([0.0] * 3)
    assert p[:, 1] == pytest.approx([0.2] * 3)


def test_flow_lights_what_price_alone_would_not():
    moves, shocks = by_price(np.array([0.2, 0.2])), np.array([1e6, np.inf])
    weights = np.array([0.5, 0.5])
    without = structural(moves, shocks, weights, tau=TAU)
    p = structural(moves, shocks, weights, sigma_flow=3e4, tau=TAU)
    assert p == pytest.approx(0.5 * flow_passage(np.full(3, 1e6), 3e4, TAU), rel=1e-3)
    assert (p > without).all()
    assert p.shape == (3,)
    lit = structural(moves, np.array([0.0, np.inf]), weights, tau=TAU)
    assert (lit >= 0.5).all()


def test_a_critical_point_that_is_no_number_is_an_error_of_the_caller():
    nan = np.array([np.nan])
    with pytest.raises(AssertionError):
        structural(np.zeros((3, 1)), nan, np.ones(1), tau=TAU)
