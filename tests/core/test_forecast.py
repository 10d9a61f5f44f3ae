"""Probabilities are ordered, monotone and never comforted by what is missing."""

from math import exp, nan

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.forecast.coefficients import MODEL
from monitor.core.forecast.features import (
    BASELINE_INPUTS,
    FALLING,
    INPUTS,
    RISING,
    SURE,
    Features,
)
from monitor.core.forecast.model import (
    FARTHEST,
    HOLD_S,
    Calibration,
    Forecaster,
    HeldState,
    Model,
    Variant,
    confidence,
    score,
)
from monitor.core.saved import StateError
from monitor.events import NS
from tests.plain_model import PLAIN

AT = 1_700_000_000 * NS


def variant(chance, names=INPUTS):
    """Any coefficients that a fit could give."""
    signs = np.array([1 if n in RISING else -1 if n in FALLING else 0 for n in INPUTS])
    used = np.array([n in names for n in INPUTS])

    def row():
        free = chance.normal(0.0, 0.7, len(INPUTS))
        return tuple((np.where(signs == 0, free, signs * np.abs(free)) * used).tolist())

    def numbers(low, high):
        return tuple(chance.uniform(low, high, len(INPUTS)).tolist())

    knots = tuple(sorted(chance.normal(-5.0, 4.0, 9).tolist()))
    table = Calibration(knots=knots, values=tuple(sorted(chance.uniform(1e-6, 0.6, 9).tolist())))
    return Variant(
        intercepts=(-7.0, -6.0, -5.0),
        weights=(row(), row(), row()),
        means=(numbers(-5, 1), numbers(-5, 1), numbers(-5, 1)),
        scales=(numbers(0.3, 2), numbers(0.3, 2), numbers(0.3, 2)),
        calibrations=(Calibration(slope=0.8, intercept=0.1), table, Calibration()),
    )


def any_model(seed):
    chance = np.random.default_rng(seed)
    return Model(
        "any", "drawn", (1e-3, 3e-3, 1e-2), variant(chance), variant(chance, BASELINE_INPUTS)
    )


NUMBER = st.none() | st.floats(allow_nan=True, allow_infinity=True)
CHANCE = st.floats(0.0, 1.0)
TRIPLE = st.none() | st.tuples(CHANCE, CHANCE, CHANCE)
FEATURES = st.builds(
    Features, structural=TRIPLE, passage=TRIPLE, **dict.fromkeys(INPUTS[2:], NUMBER)
)


@given(st.integers(0, 50), st.lists(FEATURES, min_size=1, max_size=4), st.integers(0, 4_000))
@settings(max_examples=100, deadline=None)
def test_whatever_is_fed_gives_ordered_probabilities(seed, fed, apart):
    for model in (any_model(seed), MODEL):
        forecaster = Forecaster(model)
        for i, features in enumerate(fed):
            said = forecaster.forecast(AT + i * apart * NS, features)
            for p in (said.map, said.baseline):
                assert 0.0 <= p[0] <= p[1] <= p[2] <= 1.0
            assert 0.0 <= said.completeness <= 1.0


KNOWN = st.builds(
    Features,
    structural=st.tuples(CHANCE, CHANCE, CHANCE),
    passage=st.tuples(CHANCE, CHANCE, CHANCE),
    **dict.fromkeys(INPUTS[2:], st.floats(0.0, 5.0)),
)


@given(st.integers(0, 50), KNOWN, st.sampled_from((*RISING[2:], *FALLING)), st.floats(0.0, 5.0))
@settings(max_examples=100, deadline=None)
def test_more_fuel_or_gain_and_less_depth_or_refill_never_lower_a_probability(
    seed, features, name, more
):
    model = any_model(seed)
    value = getattr(features, name) + (more if name in RISING else -more)
    worse = msgspec.structs.replace(features, **{name: max(value, 0.0)})
    before = Forecaster(model).forecast(AT, features).map
    after = Forecaster(model).forecast(AT, worse).map
    assert all(b >= a - 1e-12 for a, b in zip(before, after, strict=True))


@given(st.integers(0, 50), KNOWN, st.sampled_from(INPUTS), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_missing_input_never_lowers_a_probability_below_that_at_its_mean(
    seed, features, name, held
):
    model = any_model(seed)
    i = INPUTS.index(name)
    forecaster = Forecaster(model)
    if held:
        forecaster.forecast(AT - NS, features)
    missing = forecaster.forecast(AT, msgspec.structs.replace(features, **{name: None}))
    # The same model without that weight is the model at that input's mean.
    without = msgspec.structs.replace(
        model.map,
        weights=tuple(tuple(0.0 if j == i else w for j, w in enumerate(row))
                      for row in model.map.weights),
    )  # fmt: skip
    mean = Forecaster(msgspec.structs.replace(model, map=without)).forecast(AT, features)
    assert all(m >= p - 1e-12 for m, p in zip(missing.map, mean.map, strict=True))
    assert missing.missing == (name,)
    assert missing.completeness < 1.0


def test_the_last_known_value_stands_in_while_it_is_worse_and_fresh():
    hot = Features(structural=(0.2, 0.3, 0.4))
    cold = Features(structural=(1e-6, 1e-6, 1e-6))
    nothing = Features()
    forecaster = Forecaster(PLAIN)
    forecaster.forecast(AT, hot)
    held = forecaster.forecast(AT + 300 * NS, nothing)
    assert held.map == pytest.approx((0.2, 0.3, 0.4))
    assert held.held == ("structural",)
    gone = forecaster.forecast(AT + 301 * NS, nothing)
    assert gone.map == pytest.approx(PLAIN.base)
    assert gone.held == ()
    assert gone.completeness < held.completeness
    forecaster.forecast(AT + 302 * NS, cold)
    assert forecaster.forecast(AT + 303 * NS, nothing).map == pytest.approx(PLAIN.base)


def test_a_model_of_one_input_says_its_probability_as_it_is():
    features = Features(structural=(0.01, 0.05, 0.2), passage=(0.002, 0.006, 0.03))
    said = Forecaster(PLAIN).forecast(AT, features)
    assert said.map == pytest.approx((0.01, 0.05, 0.2))
    assert said.baseline == pytest.approx((0.002, 0.006, 0.03))


def test_an_input_farther_out_than_what_was_fitted_says_no_more():
    model = any_model(5)
    mean, scale = (rows[0][INPUTS.index("prints")] for rows in (model.map.means, model.map.scales))
    calm = Features(structural=(0.1,) * 3, gain=1.0, fuel=1.0)

    def said(deviations):
        prints = exp(mean + deviations * scale) - 1.0
        return Forecaster(model).forecast(AT, msgspec.structs.replace(calm, prints=prints)).map[0]

    assert said(FARTHEST - 1.0) != said(FARTHEST)
    assert said(FARTHEST) == pytest.approx(said(FARTHEST + 5.0), rel=1e-9)


def test_what_a_solver_calls_certain_is_no_leap_from_what_it_calls_nearly_so():
    sure, nearly = Features(structural=(1.0,) * 3), Features(structural=(SURE,) * 3)
    assert sure.vector()[0] == nearly.vector()[0]
    usual = Features(structural=(0.98,) * 3)
    assert sure.vector()[0][0] - usual.vector()[0][0] < 3.1
    # First passage has no such bound: it knows no map, and a quiet market's is tiny.
    assert Features(passage=(1e-7,) * 3).vector()[1][0] < -16.0


def test_the_baseline_knows_no_map():
    model = any_model(3)
    features = Features(structural=(1e-4,) * 3, gain=0.1, fuel=0.1, sigma_fast=1e-4)
    worse = msgspec.structs.replace(features, structural=(0.9,) * 3, gain=9.0, fuel=9.0)
    one, other = (Forecaster(model).forecast(AT, f) for f in (features, worse))
    assert one.baseline == other.baseline
    assert one.map != other.map


def test_a_model_of_the_wrong_sign_or_size_is_refused():
    good = variant(np.random.default_rng(0))
    i = INPUTS.index("fuel")
    negative = tuple(-1.0 if j == i else w for j, w in enumerate(good.weights[0]))
    with pytest.raises(ValueError, match="fuel"):
        msgspec.structs.replace(good, weights=(negative, *good.weights[1:]))
    with pytest.raises(ValueError, match="14 numbers"):
        msgspec.structs.replace(good, means=((0.0,), (0.0,), (0.0,)))
    with pytest.raises(ValueError, match="decreases"):
        Calibration(knots=(0.0, 1.0), values=(0.5, 0.4))


def test_held_values_survive_a_restart():
    forecaster = Forecaster(PLAIN)
    forecaster.forecast(AT, Features(structural=(0.2, 0.3, 0.4), funding=1.0))
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(forecaster.state()), type=HeldState)
    other = Forecaster(PLAIN)
    other.restore(state)
    later = AT + 60 * NS
    assert other.forecast(later, Features()) == forecaster.forecast(later, Features())
    with pytest.raises(StateError, match="luck"):
        other.restore(HeldState({"luck": (AT, (1.0, 1.0, 1.0))}))
    with pytest.raises(StateError, match="finite"):
        other.restore(HeldState({"fuel": (AT, (nan, 1.0, 1.0))}))


def test_every_input_has_a_time_for_which_it_is_held():
    assert tuple(HOLD_S) == INPUTS == Features.__struct_fields__


def test_the_score_runs_from_an_ordinary_minute_to_even_odds():
    # model.md A12 for a base rate of 1 in 1000.
    assert [round(100 * score(p, 1e-3)) for p in (0.01, 0.05, 0.15)] == [37, 63, 81]
    assert (score(0.0, 1e-3), score(1e-3, 1e-3), score(0.5, 1e-3), score(1.0, 1e-3)) == (0, 0, 1, 1)
    for p, base in ((0.1, 0.0), (0.1, 0.5), (nan, 0.1), (1.1, 0.1)):
        with pytest.raises(ValueError, match="expected between"):
            score(p, base)


def test_confidence_is_the_product_of_its_parts_and_there_is_none_without_a_map():
    assert confidence(feeds=1.0, map_confidence=1.0, completeness=1.0) == 1.0
    assert confidence(feeds=0.5, map_confidence=0.5, completeness=0.5) == 0.125
    assert confidence(feeds=1.0, map_confidence=None, completeness=1.0) == 0.0
