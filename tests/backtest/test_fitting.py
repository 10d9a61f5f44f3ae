"""Fits find what was put in, keep their bounds and refuse what is too little."""

import re
from itertools import combinations, pairwise
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.backtest.fitting import (
    TooFewPositivesError,
    base_rates,
    calibration,
    fitted,
    isotonic,
    logistic_fit,
    platt,
    ridge,
    rows,
    written,
)
from monitor.core.forecast.coefficients import HAR_PRIOR
from monitor.core.forecast.features import BASELINE_INPUTS, INPUTS, Features, logistic
from monitor.core.forecast.model import Calibration, Forecaster, Model, Variant, pav


def drawn(odds, seed=0):
    uniform = np.random.default_rng(seed).random(len(odds))
    return (uniform < 1.0 / (1.0 + np.exp(-odds))).astype(float)


def test_logistic_regression_recovers_what_it_was_drawn_from():
    x = np.random.default_rng(1).standard_normal((40_000, 3))
    true = np.array([-3.0, 0.8, -0.5, 0.0])
    found = logistic_fit(x, drawn(true[0] + x @ true[1:]), ridge=1.0)
    assert found == pytest.approx(true, abs=0.08)


def test_a_bound_holds_and_the_others_are_then_the_best_there_are():
    x = np.random.default_rng(2).standard_normal((5_000, 2))
    x[:, 1] += 0.6 * x[:, 0]
    y = drawn(-2.0 - 0.7 * x[:, 0] + 0.9 * x[:, 1])
    bounded = logistic_fit(x, y, ridge=1.0, low=np.zeros(2))
    assert bounded[1] == 0.0
    alone = logistic_fit(x[:, 1:], y, ridge=1.0)
    assert bounded[[0, 2]] == pytest.approx(alone, abs=1e-4)


def test_separable_events_still_have_finite_weights():
    x = np.linspace(-1, 1, 200)[:, None]
    found = logistic_fit(x, (x[:, 0] > 0).astype(float), ridge=1.0)
    assert np.isfinite(found).all()
    assert found[1] > 2.0


def test_a_fit_on_fewer_than_thirty_events_is_refused():
    y = np.zeros(1_000)
    y[:29] = 1.0
    for fit in (lambda: logistic_fit(np.zeros((1_000, 1)), y, ridge=1.0),
                lambda: calibration(np.zeros(1_000), y)):  # fmt: skip
        with pytest.raises(TooFewPositivesError, match="29 events"):
            fit()


@given(
    st.lists(st.tuples(st.integers(-20, 20), st.integers(1, 4)), min_size=1, max_size=7),
)
@settings(max_examples=60, deadline=None)
def test_pool_adjacent_violators_is_the_best_non_decreasing_sequence(pairs):
    values, weights = [float(v) for v, _ in pairs], [float(w) for _, w in pairs]
    n = len(values)

    def loss(sequence):
        return sum(w * (s - v) ** 2 for s, v, w in zip(sequence, values, weights, strict=True))

    best = None
    for cuts in range(n):
        for inner in combinations(range(1, n), cuts):
            edges = (0, *inner, n)
            sequence = []
            for a, b in pairwise(edges):
                mean = sum(v * w for v, w in pairs[a:b]) / sum(w for _, w in pairs[a:b])
                sequence += [mean] * (b - a)
            if sequence == sorted(sequence) and (best is None or loss(sequence) < loss(best)):
                best = sequence
    assert pav(values, weights) == pytest.approx(best)


def test_isotonic_calibration_corrects_a_model_that_exaggerates():
    true = np.random.default_rng(3).normal(-3.0, 1.5, 60_000)
    said = 2.0 * true + 1.0
    curve = isotonic(said, drawn(true))
    fresh = np.random.default_rng(4).normal(-3.0, 1.5, 60_000)
    p = np.array([curve.probability(2.0 * o + 1.0) for o in fresh])
    y = drawn(fresh, seed=5)
    for low, high in ((0.0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 1.0)):
        here = (p >= low) & (p < high)
        assert p[here].mean() == pytest.approx(y[here].mean(), rel=0.15), (low, high)
    assert len(curve.knots) <= 200
    assert curve.values[0] > 0.0


def test_few_events_are_calibrated_by_platt_and_a_reversed_model_says_the_base_rate():
    odds = np.random.default_rng(6).normal(-4.0, 1.0, 5_000)
    y = drawn(odds)
    assert 30 <= y.sum() < 200
    curve = calibration(3.0 * odds, y)
    assert curve.knots == ()
    assert curve.slope == pytest.approx(1 / 3, abs=0.08)
    assert platt(-odds, y).slope == 0.0
    assert logistic(platt(-odds, y).intercept) == pytest.approx(y.mean(), rel=0.01)


def test_rows_of_the_same_event_are_no_witnesses_of_their_own():
    odds = np.random.default_rng(6).normal(-3.0, 1.0, 20_000)
    y = drawn(odds)
    assert 1_000 <= y.sum() < 3_000
    assert calibration(odds, y, rows_each=5).knots
    assert calibration(odds, y, rows_each=15).knots == ()


def world(n=24_000, seed=7):
    """Rows in which fuel, gain and depth matter as they should, refill the wrong way round."""
    chance = np.random.default_rng(seed)
    fuel, depth = chance.lognormal(0.0, 1.0, n), chance.lognormal(-0.2, 0.5, n)
    refill, wander = chance.uniform(0, 0.9, n), chance.uniform(1e-5, 1e-4, n)
    found = [
        Features(
            fuel=f, depth=d, refill=r, sigma_fast=s, structural=(s * 100, s * 200, s * 400),
            passage=(s * 50, s * 100, s * 200), gain=None if i % 7 == 0 else 0.5 + f,
        )
        for i, (f, d, r, s) in enumerate(zip(fuel, depth, refill, wander, strict=True))
    ]  # fmt: skip
    odds = -5.5 + 1.5 * np.log1p(fuel) - 0.8 * np.log(depth) + 0.6 * refill
    y = np.column_stack([drawn(odds + k, seed) for k in (0.0, 0.8, 1.6)])
    return rows(found), y, found


def test_a_fitted_model_is_monotone_calibrated_and_survives_being_written():
    x, y, features = world()
    held_out = np.arange(len(y)) % 3 == 0
    model = Model(
        version="test", made="test", base=base_rates(y),
        map=fitted(x, y, held_out=held_out),
        baseline=fitted(x, y, held_out=held_out, inputs=BASELINE_INPUTS),
    )  # fmt: skip
    by_name = dict(zip(INPUTS, model.map.weights[0], strict=True))
    assert by_name["fuel"] > 0.2
    assert by_name["depth"] < -0.2
    assert by_name["refill"] == 0.0
    assert by_name["funding"] == 0.0
    assert dict(zip(INPUTS, model.baseline.weights[0], strict=True))["fuel"] == 0.0
    source = {"Final": object, "Model": Model, "Variant": Variant, "Calibration": Calibration}
    text = re.sub(r": Final(\[.*\])? =", " =", written(model, HAR_PRIOR))
    exec(text, source)  # noqa: S102 (our own text, which is what it promises to be)
    assert source["MODEL"] == model
    assert source["HAR_PRIOR"] == HAR_PRIOR
    for name in ("means", "scales"):
        assert text.count(repr(getattr(model.map, name))) == 1, "both variants share them"
    apart = replace(model, baseline=replace(model.baseline, means=model.map.scales))
    with pytest.raises(AssertionError, match="other rows"):
        written(apart, HAR_PRIOR)
    p = np.array([Forecaster(model).forecast(1, f).map for f in features[:3_000]])
    assert p.mean(axis=0) == pytest.approx(y[:3_000].mean(axis=0), rel=0.25)


def test_a_fit_shrinks_towards_a_prior_in_its_units():
    x, y, _ = world(n=6_000)
    held_out = np.arange(len(y)) % 2 == 0
    first = fitted(x, y, held_out=held_out)
    other = rows(
        [Features(fuel=2.0 * i, depth=1.0) for i in np.random.default_rng(8).random(6_000)]
    )
    pulled = fitted(other, y, held_out=held_out, prior=first, ridge=1e9)
    k = INPUTS.index("fuel")
    slope = first.weights[0][k] / first.scales[0][k]
    assert pulled.weights[0][k] / pulled.scales[0][k] == pytest.approx(slope, rel=1e-6)


def test_ridge_regression_goes_from_its_centre_to_the_data():
    x = np.column_stack((np.ones(4_000), np.random.default_rng(9).standard_normal((4_000, 2))))
    y = x @ np.array([0.3, 0.5, -0.2]) + np.random.default_rng(10).normal(0, 0.5, 4_000)
    centre = [0.0, 1.0, 0.0]
    assert ridge(x, y, centre=centre, strength=1e9) == pytest.approx(centre, abs=1e-4)
    assert ridge(x, y, centre=centre, strength=1.0) == pytest.approx([0.3, 0.5, -0.2], abs=0.03)


def test_base_rates_are_never_zero():
    assert base_rates(np.zeros((99, 3))) == pytest.approx((0.005,) * 3)
    assert log(base_rates(np.ones((99, 3)))[0]) < 0.0
