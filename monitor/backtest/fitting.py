"""Fits the coefficients of the forecast: pure functions of arrays, nothing of where they are from.

`fitted` makes one `Variant` out of rows of inputs and labels, `written` the source text that
`monitor/core/forecast/coefficients.py` ships.
"""

from collections.abc import Sequence
from math import inf
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from monitor.core.forecast.features import (
    FALLING,
    INPUTS,
    RISING,
    Features,
    PerHorizon,
    logistic,
    logit,
)
from monitor.core.forecast.model import FARTHEST, Calibration, Model, Variant, pav
from monitor.core.forecast.regression import Recursive
from monitor.events import HORIZONS_S

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEAST_POSITIVES: Final = 30
"""Fewer events than this are no base for any fit (model.md B)."""
ISOTONIC_POSITIVES: Final = 200
"""Fewer than this are calibrated by Platt's two parameters (A12)."""

PULL: Final = 5.0
"""Penalty on a Platt slope's distance from 1, for each row of one event. This, and that penalties
count so often, was chosen on the training seeds by cross-validation: log skill of the second half
from the first and the other way round went from 0.09, -0.03, -0.14 to 0.11, 0.06, 0.01 over 5, 15
and 60 minutes."""
_LEAST: Final = 1e-6


class TooFewPositivesError(Exception):
    """A fit on fewer than `LEAST_POSITIVES` events was refused."""


def _counted(y: Floats) -> int:
    positives = int(y.sum())
    if positives < LEAST_POSITIVES:
        raise TooFewPositivesError(f"{positives} events, {LEAST_POSITIVES} are the least")
    return positives


def rows(features: Sequence[Features]) -> Floats:
    """Inputs as the logit takes them, shape (n, horizons, inputs); NaN where missing."""
    absent = (np.nan,) * len(HORIZONS_S)
    listed = [[absent if v is None else v for v in f.vector()] for f in features]
    return np.array(listed).reshape(len(features), len(INPUTS), -1).transpose(0, 2, 1)


HEAT: Final = ("sigma_fast", "endogeneity", "prints", "contagion", "plumbing")
"""Inputs of which more never makes a market safer; few events alone may seem to say so."""


def bounds() -> tuple[Floats, Floats]:
    """Lowest and highest weight of each of `INPUTS`.

    `RISING` and `FALLING` are what every model must have, `HEAT` what a fit is kept from.
    """
    low = np.array([0.0 if name in (*RISING, *HEAT) else -inf for name in INPUTS])
    high = np.array([0.0 if name in FALLING else inf for name in INPUTS])
    return low, high


def logistic_fit(
    x: Floats,
    y: Floats,
    *,
    ridge: float,
    low: Floats | None = None,
    high: Floats | None = None,
    centre: Floats | None = None,
) -> Floats:
    """Intercept and weights of a ridge logistic regression within bounds, shape (1 + inputs,).

    Newton's method (iteratively reweighted least squares) on the weights that are free, with
    those at a bound held there while the likelihood pushes outwards, and a projected line search.

    Args:
        x: inputs, shape (n, inputs), standardised.
        y: 0 or 1, shape (n,).
        ridge: weight of the penalty ``ridge / 2 * |w - centre|^2``; the intercept has none.
        low: least weights, shape (inputs,).
        high: greatest weights.
        centre: what the weights shrink towards; 0 if not given.

    Raises:
        TooFewPositivesError: fewer than `LEAST_POSITIVES` of `y` are 1, or of its complement.
    """
    _counted(y)
    _counted(1.0 - y)
    n, inputs = x.shape
    design = np.column_stack((np.ones(n), x))
    lowest = np.concatenate(((-inf,), np.full(inputs, -inf) if low is None else low))
    highest = np.concatenate(((inf,), np.full(inputs, inf) if high is None else high))
    target = np.concatenate(((0.0,), np.zeros(inputs) if centre is None else centre))
    penalty = np.concatenate(((0.0,), np.full(inputs, ridge)))
    mean = y.mean()
    w = np.clip(target, lowest, highest)
    w[0] = np.log(mean / (1.0 - mean))
    best = _loss(design, y, w, penalty=penalty, target=target)
    for _ in range(200):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ w, -700.0, 700.0)))
        gradient = design.T @ (p - y) + penalty * (w - target)
        held = ((w <= lowest) & (gradient > 0.0)) | ((w >= highest) & (gradient < 0.0))
        free = np.flatnonzero(~held)
        curved = (design[:, free] * (p * (1.0 - p))[:, None]).T @ design[:, free]
        curved[np.diag_indices(len(free))] += penalty[free] + 1e-9
        step = np.zeros_like(w)
        step[free] = np.linalg.solve(curved, gradient[free])
        before = best
        for halvings in range(34):
            tried = np.clip(w - 0.5**halvings * step, lowest, highest)
            found = _loss(design, y, tried, penalty=penalty, target=target)
            if found < best:
                w, best = tried, found
                break
        if before - best < 1e-10 * (1.0 + abs(best)):
            break
    return w


def _loss(design: Floats, y: Floats, w: Floats, *, penalty: Floats, target: Floats) -> float:
    odds = design @ w
    likelihood = np.logaddexp(0.0, odds).sum() - (y * odds).sum()
    return float(likelihood + 0.5 * (penalty * (w - target) ** 2).sum())


def platt(odds: Floats, y: Floats, *, rows_each: int = 1) -> Calibration:
    """Slope and intercept on the log odds; a model whose order is wrong gets slope 0.

    `rows_each` as in `calibration`.

    Raises:
        TooFewPositivesError: as in `logistic_fit`.
    """
    # A pull to slope 1: what a few events cannot say, the model is believed about.
    pull, one = PULL * rows_each, np.ones(1)
    found = logistic_fit(odds[:, None], y, ridge=pull, low=np.zeros(1), centre=one)
    return Calibration(slope=float(found[1]), intercept=float(found[0]))


def isotonic(odds: Floats, y: Floats, *, blocks: int = 200) -> Calibration:
    """Isotonic calibration by pool adjacent violators on counts.

    Rows of about equal odds are counted together first, in at most `blocks` groups of as many
    positives, so that a table stays small. Each block says ``(events + 1/2) / (rows + 1)``: a
    block without events is rare, not impossible.

    Raises:
        TooFewPositivesError: fewer than `LEAST_POSITIVES` events.
    """
    positives = _counted(y)
    order = np.argsort(odds, kind="stable")
    sorted_odds, events = odds[order], y[order]
    # Groups end after so many events, and never between equal odds.
    each = max(1, positives // blocks)
    number = np.floor(np.maximum(np.cumsum(events) - 1.0, 0.0) / each)
    _, first = np.unique(sorted_odds, return_index=True)
    together = np.repeat(number[first], np.diff(np.append(first, len(y))))
    _, start = np.unique(together, return_index=True)
    counts = np.diff(np.append(start, len(y))).astype(np.float64)
    hits = np.add.reduceat(events, start)
    middle = np.add.reduceat(sorted_odds, start) / counts
    fitted_p = np.array(pav((hits / counts).tolist(), counts.tolist()))
    knots: list[float] = []
    values: list[float] = []
    for value in np.unique(fitted_p):
        here = fitted_p == value
        mass, events_here = counts[here].sum(), hits[here].sum()
        knots.append(float((middle[here] * counts[here]).sum() / mass))
        values.append(float(np.clip((events_here + 0.5) / (mass + 1.0), _LEAST, 1.0 - _LEAST)))
    smooth = pav(values, [1.0] * len(values))
    return Calibration(knots=tuple(knots), values=tuple(smooth))


def calibration(odds: Floats, y: Floats, *, rows_each: int = 1) -> Calibration:
    """Isotonic from `ISOTONIC_POSITIVES` events on, Platt's below.

    `rows_each`: so many rows at most are positive for the same event, as the minutes of a horizon
    before an onset are. They are no witnesses of their own, and isotonic steps learnt from a few
    dozen onsets did worse than the base rate on other seeds.

    Raises:
        TooFewPositivesError: fewer than `LEAST_POSITIVES` positive rows.
    """
    is_enough = _counted(y) >= ISOTONIC_POSITIVES * rows_each
    return isotonic(odds, y) if is_enough else platt(odds, y, rows_each=rows_each)


def standardised(x: Floats, mean: Floats, scale: Floats) -> Floats:
    """Inputs of one horizon as `Variant` counts them, shape (n, inputs); missing is the mean."""
    told: Floats = np.where(np.isfinite(x), (x - mean) / scale, 0.0)
    return np.clip(told, -FARTHEST, FARTHEST)


def fitted(
    x: Floats,
    y: Floats,
    *,
    held_out: Flags,
    inputs: Sequence[str] = INPUTS,
    ridge: float = 10.0,
    prior: Variant | None = None,
) -> Variant:
    """One variant of the model.

    Args:
        x: `rows`, shape (n, horizons, inputs); NaN where missing, which counts as the mean.
        y: labels 0 or 1, shape (n, horizons); NaN where not known, which counts for nothing.
        held_out: rows that calibrate and do not fit, shape (n,); whole runs or days, since the
            minutes of a day are no independent witnesses.
        inputs: which of `INPUTS` may have weight; `BASELINE_INPUTS` for the baseline.
        ridge: as in `logistic_fit`, for each row of one event (`calibration`): the minutes of a
            horizon are no independent witnesses, so that its penalty counts as many times.
        prior: what the weights shrink towards, such as the simulator's on real data.

    Raises:
        TooFewPositivesError: for any horizon, in the fit or in the calibration.
    """
    low, high = bounds()
    used = np.array([name in inputs for name in INPUTS])
    intercepts, weights, means, scales, curves = [], [], [], [], []
    for h in range(len(HORIZONS_S)):
        minutes = HORIZONS_S[h] // 60
        told = np.isfinite(y[:, h])
        learnt, checked = told & ~held_out, told & held_out
        here = x[learnt, h]
        known = np.isfinite(here)
        some = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, here, 0.0).sum(axis=0) / some
        spread = np.sqrt((np.where(known, here - mean, 0.0) ** 2).sum(axis=0) / some)
        # An input that never varied has nothing to say.
        active = used & (spread > 1e-9)
        scale = np.where(spread > 1e-9, spread, 1.0)
        standard = standardised(x[:, h], mean, scale)
        centre = np.zeros(len(INPUTS))
        if prior is not None:
            # Their weights are per standard deviation of theirs.
            centre = np.array(prior.weights[h]) / np.array(prior.scales[h]) * scale
        found = logistic_fit(
            standard[learnt][:, active],
            y[learnt, h],
            ridge=ridge * minutes,
            low=low[active],
            high=high[active],
            centre=centre[active],
        )
        row = np.zeros(len(INPUTS))
        row[active] = found[1:]
        odds = found[0] + standard @ row
        curves.append(calibration(odds[checked], y[checked, h], rows_each=minutes))
        intercepts.append(float(found[0]))
        weights.append(_rounded(row))
        means.append(_rounded(mean))
        scales.append(_rounded(scale))
    return Variant(
        intercepts=(intercepts[0], intercepts[1], intercepts[2]),
        weights=(weights[0], weights[1], weights[2]),
        means=(means[0], means[1], means[2]),
        scales=(scales[0], scales[1], scales[2]),
        calibrations=(curves[0], curves[1], curves[2]),
    )


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{v:.10g}") for v in values)


def base_rates(y: Floats) -> PerHorizon:
    """Frequency of the label per horizon, never quite 0; `y` as in `fitted`."""
    known = np.isfinite(y)
    events, rows_known = np.where(known, y, 0.0).sum(axis=0), known.sum(axis=0)
    rates = ((events + 0.5) / (rows_known + 1)).tolist()
    return rates[0], rates[1], rates[2]


def rebased(variant: Variant, before: PerHorizon, after: PerHorizon) -> Variant:
    """The same model where the label occurs `after` as often instead of `before`.

    Odds are multiplied by the ratio of the odds of the base rates, which is right where events
    look the same whatever their number (prior shift).
    """
    curves = []
    for curve, old, new in zip(variant.calibrations, before, after, strict=True):
        shift = logit(new) - logit(old)
        if curve.knots:
            values = tuple(logistic(logit(p) + shift) for p in curve.values)
            curves.append(Calibration(knots=curve.knots, values=values))
        else:
            curves.append(Calibration(slope=curve.slope, intercept=curve.intercept + shift))
    return replace(variant, calibrations=(curves[0], curves[1], curves[2]))


def said(variant: Variant, x: Floats) -> Floats:
    """Probabilities of a model for `rows`, shape (n, horizons); as `Forecaster` without holding."""
    found = np.empty(x.shape[:2])
    for h in range(len(HORIZONS_S)):
        mean, scale = np.array(variant.means[h]), np.array(variant.scales[h])
        standard = standardised(x[:, h], mean, scale)
        odds = variant.intercepts[h] + standard @ np.array(variant.weights[h])
        curve = variant.calibrations[h]
        found[:, h] = [curve.probability(value) for value in odds.tolist()]
    falls = (np.diff(found, axis=1) < 0.0).any(axis=1)
    for i in np.flatnonzero(falls).tolist():
        found[i] = pav(found[i].tolist(), [1.0] * len(HORIZONS_S))
    return found


def ridge(
    x: Floats, y: Floats, *, centre: Sequence[float], strength: float, weight: float = 1.0
) -> list[float]:
    """Coefficients of a linear regression that shrink towards `centre`, such as a HAR's.

    `x` of shape (n, inputs) without an intercept of its own (`volatility.VECTOR` begins with 1),
    `y` of shape (n,); `weight` of each row is below 1 where their targets overlap.
    """
    learner = Recursive(centre, strength=strength, kept=1.0)
    for row, target in zip(x.tolist(), y.tolist(), strict=True):
        learner.learn(row, target, weight=weight)
    return learner.coefficients


def written(model: Model, har: dict[int, tuple[float, ...]]) -> str:
    """Source text of `monitor.core.forecast.coefficients`, as literals, before formatting.

    Both variants count their inputs by the same means and scales, which stand there once.
    """
    means, scales = model.map.means, model.map.scales
    known = model.baseline.means, model.baseline.scales
    assert (means, scales) == known, "the variants were fitted on other rows"
    source = repr(model).replace(f"means={means!r}", "means=_MEANS")
    source = source.replace(f"scales={scales!r}", "scales=_SCALES")
    return (
        f"HAR_PRIOR: Final[dict[int, tuple[float, ...]]] = {har!r}\n\n"
        f"_MEANS: Final = {means!r}\n_SCALES: Final = {scales!r}\n\nMODEL: Final = {source}\n"
    )
