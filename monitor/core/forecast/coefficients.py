"""Shipped coefficients of the forecast; only numbers live here.

How they are made. `monitor.backtest.fitting` fits them on training seeds of the simulated market
only: standardisation, projected ridge logistic regression per horizon, isotonic calibration on
held-out runs (Platt below 200 positives, no fit below 30). A fit replaces the numbers and nothing
else (`fitting.written` prints `MODEL`).

What is here now is version ``interim``, and it is not fitted: the map model says the structural
probability as it is, the baseline says the first passage of a move of 6 usual 5-minute standard
deviations, which knows volatility and nothing else. Their other weights are 0. `base` is a
judgement of the order of magnitude from model.md E21 and C2, not a count.
"""

from math import log
from typing import Final

from monitor.core.forecast.features import INPUTS, PerHorizon
from monitor.core.forecast.model import Calibration, Model, Variant

LABEL_SIGMAS: Final = 6.0
"""The baseline's move, in standard deviations of 5 minutes (model.md A12, k of the label)."""

HAR_PRIOR: Final[dict[int, tuple[float, ...]]] = {
    60: (0.0, 0.25, 0.30, 0.30, -0.05, 0.05, 0.2),
    300: (0.0, 0.12, 0.28, 0.40, -0.05, 0.05, 0.3),
    900: (0.0, 0.06, 0.22, 0.45, -0.08, 0.05, 0.5),
    3600: (0.0, 0.03, 0.12, 0.45, -0.10, 0.05, 0.8),
}
"""Log-HAR coefficients that learning starts from, per horizon in seconds (`volatility.VECTOR`).

A judgement in the proportions of published HAR fits, not fitted; `fitting.ridge` replaces it.
"""


def _only(name: str, base: PerHorizon) -> Variant:
    """A model that says what one probability among its inputs says, and `base` without it."""
    odds = [log(p / (1.0 - p)) for p in base]
    weights = tuple(1.0 if i == name else 0.0 for i in INPUTS)
    means = [tuple(o if i == name else 0.0 for i in INPUTS) for o in odds]
    scales = (1.0,) * len(INPUTS)
    return Variant(
        intercepts=(odds[0], odds[1], odds[2]),
        weights=(weights, weights, weights),
        means=(means[0], means[1], means[2]),
        scales=(scales, scales, scales),
        calibrations=(Calibration(), Calibration(), Calibration()),
    )


_BASE: Final = (1e-3, 3e-3, 1e-2)

MODEL: Final = Model(
    version="interim",
    made="not fitted: structural probability as it is; baseline first passage of 6 sigma",
    base=_BASE,
    map=_only("structural", _BASE),
    baseline=_only("passage", _BASE),
)
