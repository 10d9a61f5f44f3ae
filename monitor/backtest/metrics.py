"""Scores of probabilities of rare events (model.md C2): pure functions of arrays.

Rows may carry a weight, which is how a bootstrap over runs draws them: a run that is drawn twice
counts twice.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

REFRACTORY_MIN: Final = 15
"""Alarms closer together than this are one."""
FLOOR: Final = 1e-6
_THRESHOLDS: Final = 200
EDGES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Bins of the reliability table."""


def average_precision(y: Floats, p: Floats) -> float:
    """Area under precision over recall, by steps, equal probabilities taken together.

    NaN without an event.
    """
    return float(average_precisions(y, p, np.ones((1, len(y))))[0])


def average_precisions(y: Floats, p: Floats, weights: Floats) -> Floats:
    """The same for each row of `weights`, shape (draws, n); shape (draws,)."""
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(y) - 1)
    drawn = weights[:, order]
    shown = np.cumsum(drawn, axis=1)[:, last]
    hits = np.cumsum(drawn * y[order], axis=1)[:, last]
    gained = np.diff(hits, axis=1, prepend=0.0)
    area = (hits / np.maximum(shown, 1e-300) * gained).sum(axis=1)
    total = hits[:, -1]
    found: Floats = np.where(total > 0.0, area / np.maximum(total, 1e-300), np.nan)
    return found


def losses(y: Floats, p: Floats) -> tuple[Floats, Floats]:
    """Squared error and surprise in nats of each forecast."""
    kept = np.clip(p, FLOOR, 1.0 - FLOOR)
    return (p - y) ** 2, -(y * np.log(kept) + (1.0 - y) * np.log1p(-kept))


class Bin(Struct, frozen=True):
    """Forecasts within ``[low, high)``: how many, what they said, and what happened."""

    low: float
    high: float
    count: int
    events: int
    said: float | None
    happened: float | None


def reliability(y: Floats, p: Floats) -> list[Bin]:
    """Forecasts by what they said, in bins of `EDGES`."""
    found = []
    for low, high in pairwise(EDGES):
        here = (p >= low) & ((p < high) | (high == EDGES[-1]))
        count = int(here.sum())
        found.append(
            Bin(
                low=low,
                high=high,
                count=count,
                events=int(y[here].sum()),
                said=float(p[here].mean()) if count else None,
                happened=float(y[here].mean()) if count else None,
            )
        )
    return found


class Series(Struct, frozen=True):
    """The minutes of one run and direction.

    Attributes:
        p: probability by minute, shape (n,).
        y: whether an onset follows within the horizon; NaN where that is not known.
        onsets: minutes in which a cascade began.
    """

    p: Floats
    y: Floats
    onsets: Sequence[int]


class Alarms(Struct, frozen=True):
    """What alarms at one threshold would have done.

    Attributes:
        false_per_day: alarms that no onset followed within the horizon, per asset and day.
        recall: share of the onsets within the horizon of an alarmed minute before them.
        leads_min: minutes from the first such minute to the onset, of all onsets; 0 if missed.
    """

    threshold: float
    false: int
    false_per_day: float
    onsets: int
    recall: float
    leads_min: list[int]


def alarms(series: Sequence[Series], threshold: float, *, horizon_min: int, days: float) -> Alarms:
    """Alarms where the probability is at least `threshold`, `REFRACTORY_MIN` apart."""
    false, leads = 0, []
    for s in series:
        above = s.p >= threshold
        last = -REFRACTORY_MIN - 1
        for i in np.flatnonzero(above).tolist():
            if i - last > REFRACTORY_MIN:
                last = i
                false += bool(s.y[i] == 0.0)
        for onset in s.onsets:
            before = np.flatnonzero(above[max(0, onset - horizon_min) : onset])
            leads.append(min(onset, horizon_min) - int(before[0]) if len(before) else 0)
    caught = sum(lead > 0 for lead in leads)
    return Alarms(
        threshold=threshold,
        false=false,
        false_per_day=false / days,
        onsets=len(leads),
        recall=caught / max(len(leads), 1),
        leads_min=leads,
    )


def best_alarms(
    series: Sequence[Series], *, false_per_day: float, horizon_min: int, days: float
) -> Alarms:
    """The lowest threshold with so few false alarms; the one that catches most."""
    values = np.unique(np.concatenate([s.p for s in series]))[::-1]
    ranks = np.unique(np.geomspace(1, len(values), _THRESHOLDS).astype(int)) - 1
    best = alarms(series, float(values[0]) + 1e-12, horizon_min=horizon_min, days=days)
    for threshold in values[ranks].tolist():
        found = alarms(series, threshold, horizon_min=horizon_min, days=days)
        if found.false_per_day <= false_per_day and found.recall >= best.recall:
            best = found
        # More minutes above merge into fewer alarms, but not into so few.
        if found.false_per_day > 3.0 * false_per_day:
            break
    return best


def molchan(series: Sequence[Series], *, horizon_min: int) -> float:
    """Area skill of the Molchan curve: 1 is perfect, 0 is chance.

    The curve is the share of onsets missed over the share of time in alarm, all thresholds.
    """
    said = [s.p[max(0, onset - horizon_min) : onset] for s in series for onset in s.onsets]
    # An onset at the very beginning, or where nothing is graded, had no chance of being foretold.
    peaks = np.array([before.max() for before in said if len(before)])
    if not len(peaks):
        return float("nan")
    # The highest of the minutes before an onset is compared with that before any minute.
    maxima = np.concatenate([_highest_before(s.p, horizon_min) for s in series if len(s.p)])
    below = (maxima[None, :] < peaks[:, None]).mean(axis=1)
    ties = (maxima[None, :] == peaks[:, None]).mean(axis=1)
    return float(2.0 * (below + 0.5 * ties).mean() - 1.0)


def _highest_before(p: Floats, minutes: int) -> Floats:
    padded = np.concatenate((np.full(minutes - 1, -np.inf), p))
    found: Floats = np.lib.stride_tricks.sliding_window_view(padded, minutes).max(axis=1)
    return found
