"""A model that says what one probability among its inputs says: the map's, or first passage."""

from math import log

from monitor.core.forecast.features import INPUTS
from monitor.core.forecast.model import Calibration, Model, Variant

BASE = (1e-3, 3e-3, 1e-2)

WIDE = 100.0
"""Standard deviation of its input, so wide that no value lies far out."""


def _only(name):
    odds = tuple(log(p / (1.0 - p)) for p in BASE)
    weights = tuple(WIDE if i == name else 0.0 for i in INPUTS)
    means = tuple(tuple(o if i == name else 0.0 for i in INPUTS) for o in odds)
    scales = (WIDE,) * len(INPUTS)
    return Variant(
        intercepts=odds,
        weights=(weights,) * 3,
        means=means,
        scales=(scales,) * 3,
        calibrations=(Calibration(),) * 3,
    )


PLAIN = Model(
    version="plain",
    made="not fitted",
    base=BASE,
    map=_only("structural"),
    baseline=_only("passage"),
)
