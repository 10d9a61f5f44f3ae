"""Components are bounded, read as they are explained, and are absent when not known."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.forecast.components import (
    components,
    crowding,
    worst,
)
from monitor.core.forecast.features import INPUTS, Features

NUMBER = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(st.fixed_dictionaries(dict.fromkeys(INPUTS[2:], NUMBER)), NUMBER)
@settings(max_examples=100, deadline=None)
def test_every_component_is_within_bounds_or_absent(values, skew):
    found = components(Features(**values), skew=skew)
    for name in found.__struct_fields__:
        value = getattr(found, name)
        assert value is None or 0.0 <= value <= 1.0, name


def test_each_reads_as_it_is_explained():
    found = components(
        Features(fuel=1.0, gain=1.0, depth=0.4, refill=0.9, endogeneity=0.0, contagion=3.0,
                 plumbing=0.7, structural=(0.1, 0.2, 0.3), funding=-5.0, interest=0.0)
    )  # fmt: skip
    assert found.fuel == 0.5
    assert found.gain == 0.5
    assert found.thinness == pytest.approx(0.6)
    assert found.refill_failure == pytest.approx(0.1)
    assert found.heat == 0.5
    assert found.contagion == 0.75
    assert found.plumbing == 0.7
    assert found.proximity == (0.1, 0.2, 0.3)
    assert found.crowding == 0.5  # funding that the other side pays says nothing
    nothing = components(Features())
    assert all(getattr(nothing, name) is None for name in nothing.__struct_fields__)


def test_crowding_is_a_quantile_of_what_is_known():
    assert crowding(1.6449, 1.6449) == pytest.approx(0.95, abs=1e-4)
    assert crowding(None, 1.6449) == pytest.approx(0.95, abs=1e-4)
    assert crowding(None, None) is None
    assert worst([None, 0.2, float("nan"), 0.4]) == 0.4
