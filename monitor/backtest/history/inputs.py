"""Inputs of the forecast from recorded five-minute samples, by the core's own parts.

Norms, first passage, jumps and the map are the core's. Its volatility hears a price each second;
what replaces it here is the same kind of regression (HAR, by `Recursive`) on five-minute returns.
Every input of a sample is made of that sample and earlier ones.
"""

from math import exp, log, sqrt
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.backtest.history.files import SAMPLE_S, Stretch
from monitor.backtest.history.labels import AHEAD, RULES, ahead, onsets, returns, rule_of
from monitor.backtest.history.map import MAPS, Fuel, heard
from monitor.core.conditions import DIRECTIONS, SIGN
from monitor.core.forecast.features import INPUTS, Features
from monitor.core.forecast.jumps import Jumps
from monitor.core.forecast.norm import LEAST_S, Norm
from monitor.core.forecast.passage import VOL_OF_VOL, first_passage
from monitor.core.forecast.regression import Recursive
from monitor.events import HORIZONS_S

Floats = NDArray[np.float64]

WARM: Final = round(LEAST_S) // SAMPLE_S
"""Samples at the begin of a stretch that only warm up: norms need three days, so maps get them."""
NEAR: Final = 0.01
"""Fixed distance from the mark within which fuel counts, beside two standard deviations."""
SIGMAS: Final = 2.0
COLUMNS: Final = (
    "passage",
    "sigma_fast",
    "sigma_slow",
    "interest",
    "funding",
    "recent",
    "quarter",
    "hour",
    "extreme",
    "fuel map",
    "near map",
    "fuel blind",
    "near blind",
    "fuel recipe",
    "near recipe",
)
"""Inputs; the first five as `features.Features` makes them.

`recent` is less the logarithm of the hours since an onset of the asset. `quarter` and `hour` are
the way of the price in the direction over so long, and `extreme` is how far the extreme of the
last day lies in it, all in standard deviations of an hour: a map burns where the price has been,
so it knows the path as well. `fuel` is the log of USD at risk as ten-thousandths of open interest
within `SIGMAS` of the hour, `near` the same within `NEAR`."""

_DAY, _HOUR, _QUARTER = 288, 12, 3
_MONTH: Final = 30 * _DAY
_FAR: Final = 6.0
_PRIOR: Final = (0.0, 0.25, 0.3, 0.2, -0.1)
_TARGETS: Final = {_QUARTER: (-0.3690, 0.9348), _HOUR: (-0.0857, 0.1813)}
"""Mean and variance of the logarithm of a mean of so many squared normal variables."""


class Volatility(Struct, frozen=True):
    """By sample: volatility ahead per root second, NaN where not known.

    Attributes:
        sigma: over each horizon, shape (n, horizons).
        spread: standard deviation of its logarithm, shape (n, horizons).
        day: over the last day, shape (n,).
        jumps: rate per second one way and mean size, shape (n, 2).
    """

    sigma: Floats
    spread: Floats
    day: Floats
    jumps: Floats


class Samples(Struct, frozen=True):
    """One stretch of one asset after its warm-up.

    Attributes:
        stretch: with its warm-up, of which `WARM` samples are left out below.
        x: inputs, shape (n, directions, horizons, `COLUMNS`); NaN where not known.
        onsets: by label, shape (n, directions, tiers).
        y: by label, shape (n, directions, horizons).
        fuel: what the maps said.
    """

    stretch: Stretch
    x: dict[str, Floats]
    onsets: dict[str, Floats]
    y: dict[str, Floats]
    fuel: Fuel

    @property
    def at(self) -> NDArray[np.int64]:
        """Times of the samples (ns)."""
        return self.stretch.at[WARM:]


def samples(stretch: Stretch) -> Samples | None:
    """Everything the models need of a stretch; None where it is too short to be graded."""
    if len(stretch.at) < WARM + _DAY:
        return None
    volatility = volatilities(returns(stretch.price))
    reach = np.column_stack(
        (SIGMAS * volatility.sigma[:, -1] * sqrt(HORIZONS_S[-1]), np.full(len(stretch.at), NEAR))
    )
    fuel = heard(stretch, reach, start=WARM - 1)
    common = _common(stretch, fuel, volatility.day)
    x, found, y = {}, {}, {}
    for name in RULES:
        rule = rule_of(name, stretch.asset)
        onset = onsets(stretch.price, stretch.interest, rule)
        columns = common.copy()
        vectors = _vectors(stretch, volatility, rule.least_move, rule.sigmas)
        columns[..., : vectors.shape[-1]] = vectors
        columns[..., COLUMNS.index("recent")] = _recent(onset[:, :, 0])[:, None, None]
        x[name], found[name] = columns[WARM:], onset[WARM:]
        y[name] = ahead(onset[:, :, 0], rule)[WARM:]
    return Samples(stretch, x, found, y, Fuel(fuel.within[WARM:], fuel.swept[WARM:]))


def volatilities(change: Floats) -> Volatility:
    """Volatility ahead of every sample from the returns up to it."""
    n = len(change)
    variance = change * change / SAMPLE_S
    means = {k: _mean(variance, k) for k in (_QUARTER, _HOUR, 6 * _HOUR, _DAY)}
    month = _mean(variance, _MONTH)
    day = means[_DAY]
    # A price that stands still for minutes has no logarithm; the floor is a tenth of the day's.
    logs = {k: np.log(np.maximum(v, 0.01 * day)) for k, v in means.items()}
    rows = np.column_stack(
        (
            np.ones(n),
            *(logs[k] - logs[_DAY] for k in (_QUARTER, _HOUR, 6 * _HOUR)),
            logs[_DAY] - np.log(month),
        )
    )
    kept = exp(-1.0 / _MONTH)
    learners = {k: Recursive(_PRIOR, strength=100.0, kept=kept) for k in _TARGETS}
    residuals = dict.fromkeys(_TARGETS, (100.0, 100.0 * (2.0 * VOL_OF_VOL) ** 2))
    sigma, spread = np.full((n, len(AHEAD)), np.nan), np.full((n, len(AHEAD)), np.nan)
    jumps, jumped = Jumps(), np.full((n, 2), np.nan)
    for i in range(n):
        if i and np.isfinite(change[i]) and np.isfinite(means[_HOUR][i - 1]):
            # `Jumps` counts in minutes: a sample of five stands for one of them.
            jumps.heard(float(change[i]), float(means[_HOUR][i - 1]) * SAMPLE_S / 60.0)
        for k, learner in learners.items():
            j = i - k
            if j < 0 or not (np.isfinite(rows[j]).all() and np.isfinite(logs[k][i])):
                continue
            x, target = rows[j].tolist(), float(logs[k][i] - logs[_DAY][j]) - _TARGETS[k][0]
            off = target - learner.predicted(x)
            mass, total = residuals[k]
            residuals[k] = (mass * kept + 1.0 / k, total * kept + off * off / k)
            learner.learn(x, target, weight=1.0 / k)
        if not np.isfinite(rows[i]).all():
            continue
        for h, samples_ahead in enumerate(AHEAD):
            k = max(samples_ahead, _QUARTER)
            mean = float(logs[_DAY][i]) + learners[k].predicted(rows[i].tolist())
            mass, total = residuals[k]
            v = min(max(0.5 * sqrt(max(total / mass - _TARGETS[k][1], 0.0)), 0.25), 0.8)
            sigma[i, h], spread[i, h] = exp(0.5 * mean + 0.5 * v * v), v
        now = min(max(sigma[i, 0] ** 2 / day[i], 0.25), 4.0)
        jumped[i] = 0.5 * jumps.rate * 60.0 / SAMPLE_S * now, jumps.size
    return Volatility(sigma, spread, np.sqrt(day), jumped)


def _mean(values: Floats, samples_back: int) -> Floats:
    """Mean of the last so many values; NaN where less than half of them, or of a day, are known."""
    known = np.isfinite(values)
    total = np.cumsum(np.where(known, values, 0.0))
    count = np.cumsum(known)
    first = np.maximum(np.arange(len(values)) - samples_back, -1)
    earlier = first >= 0
    before = np.where(earlier, total[first], 0.0), np.where(earlier, count[first], 0)
    heard_of = count - before[1]
    least = min(samples_back, _DAY) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(heard_of >= least, (total - before[0]) / heard_of, np.nan)
    return np.maximum(found, 1e-14)


def _common(stretch: Stretch, fuel: Fuel, day: Floats) -> Floats:
    """The columns that do not depend on the label."""
    n = len(stretch.at)
    price = np.log(stretch.price)
    unit = day * sqrt(3_600.0)
    found = np.full((n, len(DIRECTIONS), len(HORIZONS_S), len(COLUMNS)), np.nan)
    usd = stretch.price * stretch.interest
    for d, direction in enumerate(DIRECTIONS):
        sign = SIGN[direction]
        for name, back in (("quarter", _QUARTER), ("hour", _HOUR)):
            before = np.concatenate((np.full(back, np.nan), price[:-back]))
            way = np.clip(sign * (price - before) / unit, -_FAR, _FAR)
            found[:, d, :, COLUMNS.index(name)] = way[:, None]
        padded = np.concatenate((np.full(_DAY - 1, np.nan), sign * price))
        farthest = np.fmax.reduce(np.lib.stride_tricks.sliding_window_view(padded, _DAY), axis=1)
        away = np.clip((farthest - sign * price) / unit, 0.0, _FAR)
        found[:, d, :, COLUMNS.index("extreme")] = away[:, None]
    for name in MAPS[:3]:
        share = fuel.within[:, MAPS.index(name)] / usd[:, None, None]
        logs = np.log1p(1e4 * share)
        found[..., COLUMNS.index(f"fuel {name}")] = logs[:, :, None, 0]
        found[..., COLUMNS.index(f"near {name}")] = logs[:, :, None, 1]
    return found


def _vectors(stretch: Stretch, volatility: Volatility, least: float, sigmas: float) -> Floats:
    """The first columns, as the logit of the core takes them."""
    tau = np.array(HORIZONS_S, dtype=np.float64)
    names = COLUMNS[: COLUMNS.index("recent")]
    places = [INPUTS.index(name) for name in names]
    found = np.full((len(stretch.at), len(DIRECTIONS), len(HORIZONS_S), len(names)), np.nan)
    norms = {"interest": Norm(), "funding": Norm()}
    for i, at in enumerate(stretch.at.tolist()):
        z: dict[str, float | None] = {}
        for name, norm in norms.items():
            value = float(getattr(stretch, name)[i])
            norm.heard(at, value)
            z[name] = norm.z(value)
        sigma, day = volatility.sigma[i], float(volatility.day[i])
        known = bool(np.isfinite(sigma).all())
        passage = None
        if known:
            rate, size = volatility.jumps[i].tolist()
            p = first_passage(
                np.array([max(least, sigmas * day * sqrt(SAMPLE_S))]),
                sigma,
                tau,
                vol_of_vol=volatility.spread[i],
                jump_rate=rate,
                jump_size=size,
            ).tolist()
            passage = (p[0], p[1], p[2])
        for d, direction in enumerate(DIRECTIONS):
            funding = z["funding"]
            features = Features(
                passage=passage,
                sigma_fast=float(sigma[0]) if known else None,
                sigma_slow=day if known else None,
                interest=z["interest"],
                funding=None if funding is None else -SIGN[direction] * funding,
            ).vector()
            for c, place in enumerate(places):
                value_of = features[place]
                if value_of is not None:
                    found[i, d, :, c] = value_of
    return found


def _recent(onset: Floats) -> Floats:
    """Less the log of the hours since an onset either way; it is known a sample after it began."""
    found = np.full(len(onset), np.nan)
    last = -1
    for i, happened in enumerate((onset == 1.0).any(axis=1).tolist()):
        if last >= 0:
            found[i] = -log((i - last) * SAMPLE_S / 3_600.0)
        if happened:
            last = i
    return found
