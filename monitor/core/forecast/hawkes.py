"""How much liquidations cause liquidations: a branching ratio with its guard rails (model.md A11).

A component that explains, never an alarm by itself: regime shifts alone push the ratio to 1, so
what is published is its excess over its own month, and only while its residuals fit.
"""

from collections import deque
from itertools import pairwise
from math import exp, isfinite, sqrt
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.core.saved import StateError
from monitor.events import NS

Floats = NDArray[np.float64]

DECAYS_S: Final = (1.0, 15.0, 240.0)
"""Time constants of the kernel."""
_RATES: Final[Floats] = 1.0 / np.array(DECAYS_S)

WINDOW_S: Final = 12 * 3_600.0
"""Trailing window of a fit; A11 allows 6 to 24 hours."""
CLUSTERS_MAX: Final = 1_500
"""A window that holds more begins later; this bounds the cost of a fit."""
CLUSTERS_LEAST: Final = 50
HEARD_LEAST_S: Final = 3_600.0
MERGE_S: Final = 0.5
"""Prints no farther apart are children of one liquidation order or of one sweep."""
MERGE_MOST_S: Final = 5.0
"""No cluster is longer, whatever follows."""
FIT_EVERY_S: Final = 60
ROUNDS: Final = 12
KS_LEAST: Final = 0.01
MEDIAN_HOURS: Final = 30 * 24
MEDIAN_LEAST: Final = 24
"""Hourly readings before there is a usual ratio."""

Cluster: TypeAlias = tuple[float, float, float, float, float]
"""Times in seconds of its first and last print, and the three excitations just before the first."""
Fit: TypeAlias = Literal["fits", "too_few", "too_short", "residuals"]


class Endogeneity(Struct, frozen=True):
    """What the last fit says.

    Attributes:
        ratio: liquidation clusters that one causes, 0 to 1; None before the first fit.
        excess: `ratio` less its own 30-day median; None while stale or without a median.
        per_hour: clusters per hour that nothing before them explains.
        ks: p-value of the Kolmogorov-Smirnov test of the residuals.
        fit: `fits`, or why what is said is stale.
    """

    ratio: float | None
    excess: float | None
    per_hour: float | None
    ks: float | None
    fit: Fit

    @property
    def is_stale(self) -> bool:
        """Whether the ratio is not to be believed now."""
        return self.fit != "fits"


class HawkesState(Struct, frozen=True):
    """A `Hawkes` between two runs."""

    began: float | None
    now: float
    fitted: int
    clusters: list[Cluster]
    edge: Cluster | None
    pending: tuple[float, float] | None
    weights: list[float]
    hours: list[tuple[int, float]]
    latest: Endogeneity


class Hawkes:
    """Self-excitation of one asset's liquidation clusters, one side or both.

    Tell it every print (`heard`) and the time at least once a minute (`advance`). Times do not go
    back. Cost: O(1) a print; a fit once a minute over at most `CLUSTERS_MAX` clusters.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._now = 0.0
        self._fitted = 0
        self._clusters: deque[Cluster] = deque()
        # The last cluster that left the window.
        self._edge: Cluster | None = None
        self._pending: tuple[float, float] | None = None
        self._weights = [0.0, 0.1, 0.1, 0.1]
        self._hours: deque[tuple[int, float]] = deque(maxlen=MEDIAN_HOURS)
        self._median: float | None = None
        self.latest = Endogeneity(None, None, None, None, "too_few")

    def heard(self, at: int) -> None:
        """Take one liquidation print at `at` (ns)."""
        now = max(at / NS, self._now)
        self._now = now
        if self._began is None:
            self._began = now
        if self._pending is not None:
            first, last = self._pending
            if now - last <= MERGE_S and now - first <= MERGE_MOST_S:
                self._pending = (first, now)
                return
            self._append(first, last)
        self._pending = (now, now)

    def interrupted(self) -> None:
        """Prints were missed: what is between the clusters is not known, so begin anew."""
        self._began, self._edge, self._pending = None, None, None
        self._clusters.clear()
        self.latest = Endogeneity(self.latest.ratio, None, None, None, "too_short")

    def advance(self, at: int) -> None:
        """Time passed; fits when a new minute began."""
        now = max(at / NS, self._now)
        self._now = now
        if self._began is None:
            self._began = now
        if self._pending is not None and now - self._pending[1] > MERGE_S:
            self._append(*self._pending)
            self._pending = None
        minute = int(now // FIT_EVERY_S)
        if minute > self._fitted:
            self._fitted = minute
            self._fit(now)

    def _append(self, first: float, last: float) -> None:
        excited = _after(self._clusters[-1] if self._clusters else self._edge, first)
        self._clusters.append((first, last, *excited))
        while len(self._clusters) > CLUSTERS_MAX:
            self._edge = self._clusters.popleft()

    def _fit(self, now: float) -> None:
        assert self._began is not None, "set by whoever calls"
        while self._clusters and self._clusters[0][0] < now - WINDOW_S:
            self._edge = self._clusters.popleft()
        start = max(self._began, now - WINDOW_S, self._edge[0] if self._edge else 0.0)
        ratio = self.latest.ratio
        if now - start < HEARD_LEAST_S and len(self._clusters) < CLUSTERS_MAX:
            self.latest = Endogeneity(ratio, None, None, None, "too_short")
            return
        if len(self._clusters) < CLUSTERS_LEAST:
            self.latest = Endogeneity(ratio, None, None, None, "too_few")
            return
        table = np.array(self._clusters)
        first, excited = table[:, 0], table[:, 2:]
        # Between clusters nothing is counted for `MERGE_S`: what comes then would be merged.
        quiet = np.append(start, table[:, 1] + MERGE_S)
        lasting = np.maximum(np.append(first, now) - quiet, 0.0)
        waited = (quiet - np.append(start, first))[:, None]
        standing = np.concatenate((np.array(_after(self._edge, start))[None, :], excited + 1.0))
        fallen = standing * np.exp(-_RATES * waited) * (1.0 - np.exp(-_RATES * lasting[:, None]))
        expected = np.column_stack((lasting, fallen))
        weights = self._maximised(excited * _RATES, expected.sum(axis=0))
        ks = _residual_p((expected[:-1] * weights).sum(axis=1))
        found = float(min(weights[1:].sum(), 1.0))
        per_hour = float(weights[0]) * 3_600.0
        if ks <= KS_LEAST:
            self.latest = Endogeneity(found, None, per_hour, ks, "residuals")
            return
        self._usual(int(now // 3_600), found)
        excess = None if self._median is None else found - self._median
        self.latest = Endogeneity(found, excess, per_hour, ks, "fits")

    def _maximised(self, density: Floats, spans: Floats) -> Floats:
        """Rate and branching ratios of greatest likelihood, from where the last fit ended.

        Expectation maximisation on a concave likelihood: every round improves it, nothing can
        leave the region where all are positive, and a minute later it goes on.
        """
        n = len(density)
        spans = np.maximum(spans, 1e-9)
        # A weight that reached 0 would stay there.
        weights: Floats = np.maximum(np.array(self._weights), 1e-4)
        weights[0] = max(weights[0], 0.01 * n / spans[0])
        parts = np.column_stack((np.ones(n), density))
        for _ in range(ROUNDS):
            shares = parts * weights
            weights = (shares / shares.sum(axis=1)[:, None]).sum(axis=0) / spans
        self._weights = [float(w) for w in weights]
        return weights

    def _usual(self, hour: int, ratio: float) -> None:
        """Remember one ratio an hour, the last, and their median."""
        if self._hours and self._hours[-1][0] == hour:
            self._hours[-1] = (hour, ratio)
        else:
            self._hours.append((hour, ratio))
        while self._hours[0][0] <= hour - MEDIAN_HOURS:
            self._hours.popleft()
        self._median = None
        if len(self._hours) >= MEDIAN_LEAST:
            ordered = sorted(r for _, r in self._hours)
            half = len(ordered) // 2
            self._median = 0.5 * (ordered[half] + ordered[-1 - half])

    def state(self) -> HawkesState:
        """What a restart must not forget."""
        return HawkesState(
            began=self._began,
            now=self._now,
            fitted=self._fitted,
            clusters=list(self._clusters),
            edge=self._edge,
            pending=self._pending,
            weights=self._weights[:],
            hours=list(self._hours),
            latest=self.latest,
        )

    def restore(self, state: HawkesState) -> None:
        """Take over a saved state. What happened since is missing: say so with `interrupted`.

        Raises:
            StateError: its numbers are not usable.
        """
        rows = [*state.clusters, *([state.edge] if state.edge else [])]
        numbers = (state.now, *state.weights, *(x for row in rows for x in row))
        if len(state.weights) != 1 + len(DECAYS_S) or len(state.clusters) > CLUSTERS_MAX:
            raise StateError("endogeneity of another shape")
        if not all(isfinite(x) and x >= 0.0 for x in (*numbers, *(r for _, r in state.hours))):
            raise StateError("endogeneity with numbers that are negative or not finite")
        if any(b[0] < a[0] for a, b in pairwise(state.clusters)):
            raise StateError("endogeneity with clusters out of order")
        self._began, self._now, self._edge = state.began, state.now, state.edge
        self._fitted = state.fitted
        self._pending, self._weights = state.pending, list(state.weights)
        self._clusters = deque(state.clusters)
        self._hours = deque(state.hours, maxlen=MEDIAN_HOURS)
        if self._hours:
            hour, ratio = self._hours[-1]
            self._usual(hour, ratio)
        self.latest = state.latest


def _after(cluster: Cluster | None, at: float) -> tuple[float, float, float]:
    """The three excitations at `at` after a cluster and what excited it."""
    if cluster is None:
        return 0.0, 0.0, 0.0
    passed, before = at - cluster[0], cluster[2:]
    a, b, c = (
        (r + 1.0) * exp(-min(passed / d, 700.0)) for r, d in zip(before, DECAYS_S, strict=True)
    )
    return a, b, c


def _residual_p(expected: Floats) -> float:
    """P-value that the numbers expected between clusters are exponential, as they should be."""
    u = np.sort(1.0 - np.exp(-expected))
    n = len(u)
    steps = np.arange(n + 1) / n
    distance = float(max((steps[1:] - u).max(), (u - steps[:-1]).max()))
    return kolmogorov((sqrt(n) + 0.12 + 0.11 / sqrt(n)) * distance)


def kolmogorov(scaled: float) -> float:
    """Probability of a larger Kolmogorov distance, by Stephens' asymptotic form."""
    if scaled < 0.2:
        return 1.0
    terms = (-((-1.0) ** k) * exp(-2.0 * (k * scaled) ** 2) for k in range(1, 30))
    return min(max(2.0 * sum(terms), 0.0), 1.0)
