"""What is usual is weighted by time, forgotten slowly and not claimed early."""

import msgspec
import numpy as np
import pytest

from monitor.core.forecast.norm import MOST, Norm, NormState
from monitor.core.saved import StateError
from monitor.events import NS

AT = 1_700_000_000 * NS
HOUR = 3_600 * NS


def heard(values, step=HOUR, **kwargs):
    norm = Norm(**kwargs)
    for i, value in enumerate(values):
        norm.heard(AT + i * step, value)
    return norm


def test_nothing_is_unusual_before_three_days():
    values = np.random.default_rng(0).normal(5.0, 2.0, 24 * 10).tolist()
    assert heard(values[:71]).z(9.0) is None
    assert heard(values).z(9.0) == pytest.approx(2.0, abs=0.35)
    assert heard(values).quantile(5.0) == pytest.approx(0.5, abs=0.1)


def test_a_burst_of_readings_does_not_outvote_a_day():
    norm = heard([0.0, 2.0] * 60)
    z = norm.z(4.0)
    for i in range(5_000):
        norm.heard(AT + 119 * HOUR + (i + 1) * 1_000, 50.0)
    assert norm.z(4.0) == pytest.approx(z, rel=0.1)


def test_the_distant_past_is_forgotten():
    norm = heard([0.0, 1.0] * 500 + [10.0, 11.0] * 2_000, memory_s=10 * 86_400.0)
    assert norm.z(10.5) == pytest.approx(0.0, abs=0.1)


def test_a_quantity_that_never_moved_makes_any_move_extreme():
    norm = heard([3.0] * 100)
    assert (norm.z(3.0), norm.z(3.1), norm.z(2.9)) == (0.0, MOST, -MOST)


def test_what_is_no_number_changes_nothing_and_has_no_score():
    norm = heard([1.0, 2.0] * 50)
    before = norm.state()
    norm.heard(AT + 1_000 * HOUR, float("nan"))
    norm.heard(AT, 5.0)
    assert norm.state() == before
    assert norm.z(float("inf")) is None


def test_a_norm_survives_a_restart_and_refuses_nonsense():
    norm = heard([1.0, 2.0] * 50)
    other = Norm()
    other.restore(norm.state())
    assert other.z(7.0) == norm.z(7.0)
    with pytest.raises(StateError, match="negative"):
        other.restore(msgspec.structs.replace(norm.state(), variance=-1.0))
    with pytest.raises(StateError, match="finite"):
        other.restore(NormState(0, 0.0, 0.0, float("nan"), 0.0))
