"""The cascade map against closed forms, plain iteration, published figures and any curve."""

from math import erf, inf, isnan, log

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.cascade.curves import DISTANCES, POINTS, STEP, value_at
from monitor.core.cascade.impact import (
    amplification,
    impact,
    inverse,
    mark_pass_through,
    slippage,
    stop_of_flow,
    stop_of_requote,
)
from monitor.core.cascade.loop import (
    RUN,
    as_distance,
    as_ratio,
    gain_window,
    loop_gain,
    severity,
    solve,
)

ONE = np.array([1.0])
PERCENT = DISTANCES * 100
MILLION = 1e6


def fold(depth, fuel, *, survival=1.0, scale=1.0, psi=1.0, beta=1.0, window=0.0025):
    return solve(
        depth, fuel, survival=np.array([survival]), scale=np.array([scale]), psi=psi, beta=beta,
        window=window,
    )  # fmt: skip


def stops_of_requotes(depth, fuel, moves, **changes):
    return np.array([stop_of_requote(depth, fuel, move, **changes) for move in moves.tolist()])


def cluster(usd, *, at, width):
    """A normal cluster at `at` percent; what would lie behind the mark is cut off."""
    below = np.array([0.5 * (1 + erf((x - at) / width / 2**0.5)) for x in PERCENT])
    return usd * (below - below[0])


def book(usd=20 * MILLION, kappa=1.0, floor=0.0):
    """Depth with ``D(1 %) = usd``: a power law near the touch, a cubic floor of value buyers."""
    shape = PERCENT**kappa + floor * (PERCENT / 3.5) ** 3
    return usd * shape / (1 + floor / 3.5**3)


# --------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("gain", [0.1, 0.5, 0.9])
def test_a_sub_critical_linear_loop_amplifies_by_one_over_one_minus_gain(gain):
    depth = book()
    fuel = gain * depth / 1.5
    moves = np.array([0.0013, 0.01, 0.02])
    stops = stops_of_requotes(depth, fuel, moves, survival=1.0, psi=1.5)
    assert amplification(stops, moves) == pytest.approx(1 / (1 - gain), rel=1e-9)
    sales = depth[[7, 20, 50]]
    stops = stop_of_flow(depth, fuel, sales, survival=1.0, psi=1.5)
    assert amplification(stops, slippage(depth, sales)) == pytest.approx(1 / (1 - gain), rel=1e-9)
    assert fold(depth, fuel, psi=1.5).gain[0, 0] == pytest.approx(gain)


def test_mark_pass_through_damps_the_loop_gain_by_its_share():
    depth = book()
    found = fold(depth, 0.8 * depth, beta=0.5)
    assert found.gain[0, 0] == pytest.approx(0.4)
    stop = stop_of_requote(depth, 0.8 * depth, 0.01, survival=1.0, psi=1.0, beta=0.5)
    assert stop == pytest.approx(0.01 / (1 - 0.4))


def test_thinning_depth_turns_one_cluster_from_harmless_into_running_by_itself():
    # model.md A8 [P] names neither the width of the cluster nor what else lies there. The world
    # rebuilt here meets its Q* within 0.5 M$, its jumps within 0.1 (the last: 0.4) percentage
    # points and its gains within 0.01.
    depth = book(kappa=1.1, floor=0.378)
    fuel = cluster(31.75 * MILLION, at=2.5, width=0.4) + 6.33 * MILLION * PERCENT
    found = solve(
        depth, fuel, survival=np.array([1.2, 1.0, 0.6, 0.4, 0.3]), scale=ONE, psi=1.0,
        window=0.0025,
    )  # fmt: skip
    assert np.isnan(found.critical_usd[0, 0])
    assert np.isnan(found.jump[0, 0])
    assert found.critical_usd[1:, 0] / MILLION == pytest.approx([28.5, 10.7, 2.9, 0.0], abs=0.5)
    assert found.jump[1:4, 0] * 100 == pytest.approx([1.2, 2.6, 4.4], abs=0.1)
    assert found.jump[4, 0] * 100 == pytest.approx(8.1, abs=0.4)
    assert found.gain[:, 0] == pytest.approx([1.15, 1.38, 2.30, 3.46, 4.61], abs=0.01)
    assert found.gain_from < 0.025 < found.gain_to


def test_a_gain_above_one_for_a_short_stretch_is_no_cascade():
    depth = book()
    fuel = np.where(DISTANCES >= 0.02, 8 * MILLION, 0.0)
    found = fold(depth, fuel)
    assert found.gain[0, 0] > 1
    assert np.isnan(found.critical_distance[0, 0])


# ----------------------------------------------------------------------------- against iteration


def random_world(rng):
    steps = rng.exponential(MILLION, POINTS - 1) * rng.choice([0.0, 1.0, 1.0], POINTS - 1)
    depth = np.concatenate(([0.0], np.cumsum(steps)))
    lumps = np.zeros(POINTS)
    for _ in range(rng.integers(1, 6)):
        at = rng.integers(1, POINTS)
        lumps[at : at + rng.integers(1, 40)] += rng.exponential(3 * MILLION)
    return depth, np.cumsum(lumps)


def iterated(depth, fuel, usd, load):
    """The fixed point by walking from the mark until nothing moves."""
    here = 0.0
    for _ in range(100_000):
        need = usd + load * np.interp(here, DISTANCES, fuel)
        if need > depth[-1]:
            return inf
        there = float(inverse(depth, np.array([need]))[0])
        if there - here < 1e-12:
            return there
        here = there
    return here


def test_the_running_maximum_agrees_with_plain_iteration_in_300_random_worlds():
    rng = np.random.default_rng(5)
    compared = beyond = 0
    for _ in range(300):
        depth, fuel = random_world(rng)
        load, usd = float(rng.uniform(0.1, 6)), float(rng.uniform(0, 0.3) * depth[-1])
        stop = float(stop_of_flow(depth, fuel, np.array([usd]), survival=1.0, psi=load)[0])
        slow = iterated(depth, fuel, usd, load)
        if slow == inf:
            beyond += 1
            assert isnan(stop)
        else:
            compared += 1
            assert stop == pytest.approx(slow, abs=2e-6)
    assert compared > 100
    assert beyond > 20


def test_folds_are_the_flat_runs_of_the_running_maximum():
    rng = np.random.default_rng(6)
    flat = round(RUN / STEP)
    folds = 0
    for _ in range(200):
        depth, fuel = random_world(rng)
        load = float(rng.uniform(0.1, 1.5))
        surplus = depth - load * fuel
        highest = np.maximum.accumulate(surplus)
        runs = [
            i
            for i in range(POINTS - flat)
            if highest[i + flat] == highest[i] and fuel[i + flat] > fuel[i] + 0.01
        ]
        found = fold(depth, fuel, psi=load)
        if not runs:
            assert np.isnan(found.critical_usd[0, 0])
            continue
        folds += 1
        assert found.critical_usd[0, 0] == pytest.approx(highest[runs[0]], abs=1e-3)
        later = np.flatnonzero(surplus > highest[runs[0]] + 1e-6)
        assert found.beyond[0, 0] == (later.size == 0)
        if later.size:
            assert STEP * (later[0] - 1) <= found.landing[0, 0] <= STEP * later[0]
    assert folds > 50


def test_a_node_is_solved_alone_as_among_others_however_far_they_differ():
    """Points are first looked for near the mark, where the heaviest load may find its own."""
    rng = np.random.default_rng(8)
    far = 0
    for _ in range(100):
        depth, fuel = random_world(rng)
        survival, scale = np.array([1.0, 0.3, 0.02]), np.array([0.2, 3.0])
        together = solve(depth, fuel, survival=survival, scale=scale, psi=0.7, window=0.0025)
        for i, w in enumerate(survival.tolist()):
            for j, s in enumerate(scale.tolist()):
                alone = fold(depth, fuel, survival=w, scale=s, psi=0.7)
                for name in ("critical_distance", "critical_usd", "landing", "jump", "beyond"):
                    one, all_of_them = getattr(alone, name)[0, 0], getattr(together, name)[i, j]
                    assert one == all_of_them or (np.isnan(one) and np.isnan(all_of_them)), name
        near, last = together.critical_distance[2, 1], together.critical_distance[0, 0]
        far += bool(near < 0.03 and last > 0.05)
    assert far > 5


def test_a_sale_just_above_the_critical_one_goes_to_the_landing_and_one_just_below_does_not():
    depth, fuel = book(), cluster(60 * MILLION, at=2.5, width=0.4)
    found = fold(depth, fuel)
    sales = found.critical_usd[0, 0] * np.array([0.9999, 1.0001])
    below, above = stop_of_flow(depth, fuel, sales, survival=1.0, psi=1.0)
    assert below <= found.critical_distance[0, 0] < found.landing[0, 0] <= above
    assert above == pytest.approx(found.landing[0, 0], abs=STEP)


def test_the_critical_move_of_the_book_is_the_smallest_that_closes_push_on():
    depth, fuel = book(), cluster(60 * MILLION, at=2.5, width=0.4)
    critical = float(fold(depth, fuel).requote_distance[0, 0])
    moves = np.array([critical - STEP, critical])
    stops = stops_of_requotes(depth, fuel, moves, survival=1.0, psi=1.0)
    pushed = stops - moves
    assert pushed[0] <= RUN < pushed[1] + STEP


# ---------------------------------------------------------------------------------- monotonicity

# Whole dollars: differences below a cent are none, by design.
amounts = st.one_of(st.just(0), st.integers(0, 10_000), st.integers(0, 10**9)).map(float)


@st.composite
def curves(draw):
    """A curve of up to 8 stretches of constant density, which may be 0 or huge."""
    edges = sorted(draw(st.lists(st.integers(1, POINTS - 1), min_size=1, max_size=8, unique=True)))
    density = np.zeros(POINTS)
    for edge in edges:
        density[edge:] = draw(amounts)
    density[1 : edges[0]] = draw(amounts)
    density[0] = 0.0
    return np.cumsum(density)


def infinite(value):
    return inf if isnan(value) else value


@settings(max_examples=100, deadline=None)
@given(curves(), curves(), curves(), st.floats(0.2, 1.0))
def test_more_fuel_or_less_depth_never_lowers_risk(depth, fuel, more, thinner):
    usd, moves = np.array([MILLION, 1e8]), np.array([0.01, 0.05])
    least = fold(depth, fuel, psi=1.5)
    for d, f, w in ((depth, fuel + more, 1.0), (depth, fuel, thinner)):
        worse = fold(d, f, psi=1.5, survival=w)
        for name in ("critical_usd", "critical_distance", "requote_distance"):
            a, b = float(getattr(worse, name)[0, 0]), float(getattr(least, name)[0, 0])
            assert infinite(a) <= infinite(b) * (1 + 1e-9) + 1e-3 * (name == "critical_usd")
        assert worse.gain[0, 0] >= least.gain[0, 0] * (1 - 1e-9)
        assert worse.supercritical_share[0, 0] >= least.supercritical_share[0, 0]
        for stop, shocks in ((stop_of_flow, usd), (stops_of_requotes, moves)):
            before = stop(depth, fuel, shocks, survival=1.0, psi=1.5)
            after = stop(d, f, shocks, survival=w, psi=1.5)
            for a, b in zip(after, before, strict=True):
                assert infinite(float(a)) >= infinite(float(b)) - 1e-6


# --------------------------------------------------------------------- what may be published


def finite(value):
    """True if a published value survives JSON, which turns nan and infinities into null."""
    return msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


@settings(max_examples=100, deadline=None)
@given(curves(), curves(), st.floats(0.01, 1.2), st.floats(0, 1), st.sampled_from(["down", "up"]))
def test_whatever_the_curves_nothing_published_is_infinite_or_not_a_number(
    depth, fuel, survival, beta, direction
):
    found = solve(
        depth, fuel, survival=np.array([survival, 1.0]), scale=np.array([0.5, 2.0]), psi=1.5,
        beta=beta, window=0.0025,
    )  # fmt: skip
    for w in (0, 1):
        for m in (0, 1):
            node = found.node(w, m, direction)
            assert finite(node)
            assert (node.shock_ratio is None) == (node.shock_usd is None)
            assert node.beyond <= (node.landing_ratio is None)
            if node.landing_ratio is not None:
                assert node.jump_ratio >= as_ratio(RUN, direction) - 1e-9
                assert node.shock_usd >= 0
    assert finite(severity(found, np.full((2, 2), 0.25), direction))
    assert finite(impact(depth, MILLION, daily_volatility=0.03, daily_volume_usd=1e9))


def test_without_fuel_there_is_no_critical_point_and_it_says_how_far_was_looked():
    node = fold(book(), np.zeros(POINTS)).node(0, 0, "down")
    assert (node.shock_ratio, node.shock_usd, node.requote_ratio) == (None, None, None)
    assert node.loop_gain == 0
    assert node.reach_ratio == pytest.approx(1 - np.exp(-0.2925))


def test_fuel_against_an_empty_touch_runs_already():
    depth = np.maximum(book() - 40 * MILLION, 0.0)
    node = fold(depth, 10 * MILLION * PERCENT).node(0, 0, "down")
    assert node.shock_usd == 0
    assert node.loop_gain == 100


def test_a_cascade_that_leaves_the_grid_says_so_instead_of_landing_at_its_end():
    node = fold(book(), 1.2 * book()).node(0, 0, "up")
    assert node.beyond
    assert node.landing_ratio is None
    assert node.jump_ratio is None
    assert node.liquidated_usd == pytest.approx(1.2 * book()[-1])
    assert isnan(stop_of_flow(book(), 1.2 * book(), ONE, survival=1.0, psi=1.0)[0])


@pytest.mark.parametrize(
    ("depth", "fuel", "change"),
    [
        (book()[:-1], book(), {}),
        (book(), book() + 1, {}),
        (book(), np.where(DISTANCES > 0.1, np.nan, book()), {}),
        (book()[::-1] - book()[-1], book(), {}),
        (book() * np.where(DISTANCES > 0.29, inf, 1.0), book(), {}),
        (book(), book(), {"survival": 0.0}),
        (book(), book(), {"psi": -1.0}),
        (book(), book(), {"scale": float("nan")}),
        (book(), book(), {"beta": 1.5}),
    ],
)
def test_what_is_no_curve_or_no_parameter_is_refused(depth, fuel, change):
    with pytest.raises(ValueError):
        fold(depth, fuel, **change)


# ------------------------------------------------------------------------------------- the rest


def test_a_node_is_the_same_alone_and_among_others():
    depth, fuel = book(kappa=1.2), cluster(60 * MILLION, at=2.5, width=0.4)
    survival, scale = np.array([1.0, 0.5, 0.08]), np.array([0.7, 1.0, 1.4])
    found = solve(depth, fuel, survival=survival, scale=scale, psi=1.5, window=0.003)
    for i, w in enumerate(survival):
        for j, s in enumerate(scale):
            alone = fold(depth, fuel, survival=w, scale=s, psi=1.5, window=0.003)
            assert found.node(i, j, "up") == alone.node(0, 0, "up")


@given(curves(), st.floats(0.0, 0.4), st.integers(0, POINTS - 1))
def test_a_single_value_of_a_curve_is_what_interpolation_gives_to_the_bit(curve, distance, point):
    for x in (distance, float(DISTANCES[point])):
        assert value_at(curve, x) == np.interp(x, DISTANCES, curve)


def test_the_liquidated_amount_counts_the_scale_of_the_map_but_not_what_follows():
    depth, fuel = book(), cluster(60 * MILLION, at=2.5, width=0.4)
    plain, followed = fold(depth, fuel, scale=1.5), fold(depth, 1.5 * fuel)
    assert plain.liquidated_usd == pytest.approx(followed.liquidated_usd)
    assert fold(depth, fuel, psi=1.5).liquidated_usd[0, 0] < 60 * MILLION


def test_severity_counts_only_nodes_with_a_critical_point_and_marks_lower_bounds():
    depth, fuel = book(), cluster(30 * MILLION, at=2.5, width=0.6)
    found = solve(
        depth, fuel, survival=np.array([1.2, 0.5, 0.05]), scale=ONE, psi=1.0, window=0.0025
    )
    assert np.isnan(found.jump[0, 0])
    result = severity(found, np.array([[0.5], [0.4], [0.1]]), "down")
    assert result.weight == pytest.approx(0.5)
    mean, low, high = result.jump_ratio
    assert low == pytest.approx(as_ratio(found.jump[1, 0], "down"))
    assert high == pytest.approx(as_ratio(found.jump[2, 0], "down"))
    assert low < mean < high
    nothing = severity(found, np.array([[1.0], [0.0], [0.0]]), "down")
    assert (nothing.weight, nothing.jump_ratio) == (0.0, None)


def test_the_larger_impact_is_used_and_contradicting_models_are_marked():
    args = {"daily_volatility": 0.03, "daily_volume_usd": 1e9}
    deep = impact(book(usd=1e12), 10 * MILLION, **args)
    assert deep.impact_model_disagreement
    assert deep.used == deep.square_root > deep.book
    alike = impact(book(), 10 * MILLION, **args)
    assert not alike.impact_model_disagreement
    assert alike.used == alike.book == pytest.approx(0.005)
    assert impact(book(), 1e12, **args).used is None
    unknown = impact(book(), MILLION, daily_volatility=None, daily_volume_usd=None)
    assert unknown.impact_model_disagreement is None


def test_the_mark_takes_over_what_spot_did_at_once_and_the_rest_in_150_seconds():
    assert mark_pass_through(0, 0.3) == pytest.approx(0.3)
    assert mark_pass_through(75, 0.3) == pytest.approx(0.65)
    assert mark_pass_through(600, 0.3) == pytest.approx(1.0)


def test_ratios_and_distances_are_inverse_in_both_directions():
    assert as_distance(0.5, "down") == pytest.approx(log(2))
    assert as_distance(1.0, "up") == pytest.approx(log(2))
    assert as_ratio(as_distance(0.2, "down"), "down") == pytest.approx(0.2)
    with pytest.raises(ValueError):
        as_distance(1.0, "down")


def test_the_gain_window_grows_with_volatility_from_25_basis_points():
    assert gain_window(0.001) == 0.0025
    assert gain_window(0.02) == 0.01
    assert loop_gain(book(), book(), 5).shape == (POINTS - 5,)
