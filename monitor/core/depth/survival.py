"""How much of the displayed depth is still there when it is needed, and how fast it is used.

`Survival` is the distribution of W, the share of depth that a shock leaves (model.md A7);
`Throughput` is how fast liquidation engines have been seen to work, against which refill counts.
"""

from collections import deque
from itertools import pairwise
from math import exp, isfinite, log
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import Floats
from monitor.core.saved import StateError
from monitor.events import NS

NODES: Final = (0.9, 0.5, 0.25, 0.08)
WEIGHTS: Final = (0.3, 0.4, 0.2, 0.1)

DECAY_CALM, DECAY_WILD = 0.04, 0.07
"""Loss of depth per standard deviation moved, for small and for large moves (model.md A7)."""

Z_CALM, Z_WILD, Z_MAX = 5.0, 25.0, 50.0
"""Moves between which the loss grows, fitted to the table of model.md A7; larger ones than
`Z_MAX` count as that."""

PRIOR_EVENTS: Final = 20.0
"""As many own events the published weights count for."""

MEMORY_EVENTS: Final = 100.0
"""Events after which one counts half."""

EVENT_Z: Final = 3.0
"""A move this large, in standard deviations, begins an event..."""

EVENT_END_Z: Final = 1.5
"""...which is over when the move is this small again, or after `EVENT_NS`."""

EVENT_NS: Final = 900 * NS

USUAL_S: Final = 300.0
"""Time over which the depth before an event is averaged, in seconds."""

USUAL_MIN_S: Final = 60.0
"""Seconds of it that must have been heard."""

WINDOW_NS: Final = 10 * NS
"""Time over which the rate of forced closes is taken."""

WINDOWS: Final = 1024
"""Windows with forced closes that are remembered."""

FASTEST: Final = 0.95
"""Of all forced USD, the share that came no faster than engines are said to work."""

PRIOR_USD: Final = 5e6
"""Forced USD that must have been seen for half of what refill takes to be believed."""

ABSORBED_MAX: Final = 0.9


def decay(z: float) -> float:
    """Factor on the depth that a move of `z` standard deviations leaves, in (0, 1].

    ``exp(-eta z)`` with eta rising from 0.04 to 0.07 (model.md A7).

    Raises:
        ValueError: `z` is not a number.
    """
    if z != z:  # noqa: PLR0124  # NaN
        raise ValueError("a move of NaN standard deviations")
    size = min(abs(z), Z_MAX)
    wild = min(max((size - Z_CALM) / (Z_WILD - Z_CALM), 0.0), 1.0)
    return exp(-size * (DECAY_CALM + (DECAY_WILD - DECAY_CALM) * wild))


def survival(z: float) -> tuple[Floats, Floats]:
    """Shares W of depth that survive, best first, and their probabilities, each of shape (4,).

    `z` is the size of the present move in standard deviations; see `decay`.
    """
    return np.array(NODES) * decay(z), np.array(WEIGHTS)


class SurvivalState(Struct, frozen=True):
    """What own events have taught: how many fell to each node, older ones counting less."""

    counts: tuple[float, ...]


class Survival:
    """The distribution of W of one asset, taught by its own events.

    An event is a large move; what it teaches is the lowest depth during it over the depth before
    it, less what `decay` explains by the size of the move.
    """

    def __init__(self) -> None:
        self._counts = [0.0] * len(NODES)
        self._usual: float | None = None
        self._heard_s = 0.0
        self._at = 0
        self._since: int | None = None
        self._trough = 1.0
        self._peak = 0.0

    @property
    def events(self) -> float:
        """Own events, older ones counting less."""
        return sum(self._counts)

    def nodes(self, z: float) -> tuple[Floats, Floats]:
        """As `survival`, with the weights that own events have taught."""
        total = PRIOR_EVENTS + self.events
        weights = [
            (PRIOR_EVENTS * weight + count) / total
            for weight, count in zip(WEIGHTS, self._counts, strict=True)
        ]
        return np.array(NODES) * decay(z), np.array(weights)

    def observe(self, at: int, z: float | None, depth_usd: float | None) -> None:
        """Follow events, about once a second.

        Args:
            at: time in ns.
            z: size of the present move in standard deviations.
            depth_usd: depth near the price on the side that the move runs into.

        A reading of which either is unknown teaches nothing; an event goes on meanwhile.
        """
        if z is None or depth_usd is None or not (isfinite(z) and isfinite(depth_usd)):
            return
        passed_s = min(max((at - self._at) / NS, 0.0), 5.0)
        self._at = at
        size = abs(z)
        if self._since is None:
            if size < EVENT_Z or self._heard_s < USUAL_MIN_S:
                self._follow(depth_usd, passed_s)
                return
            self._since, self._trough, self._peak = at, 1.0, 0.0
        if self._usual:
            self._trough = min(self._trough, depth_usd / self._usual)
        self._peak = max(self._peak, size)
        if size < EVENT_END_Z or at - self._since > EVENT_NS:
            self._since = None
            self.learn(self._trough, self._peak)

    def learn(self, trough: float, z: float) -> None:
        """Count one event: the lowest depth over that before it, and the size of the move.

        Raises:
            ValueError: `trough` is negative or not a number.
        """
        if not (isfinite(trough) and trough >= 0.0):
            raise ValueError(f"a depth ratio of {trough}")
        share = min(max(trough / decay(z), NODES[-1]), NODES[0])
        faded = 0.5 ** (1.0 / MEMORY_EVENTS)
        self._counts = [count * faded for count in self._counts]
        for i, (high, low) in enumerate(pairwise(NODES)):
            if share >= low:
                part = log(share / low) / log(high / low)
                self._counts[i] += part
                self._counts[i + 1] += 1.0 - part
                return

    def state(self) -> SurvivalState:
        """Everything that `restore` needs."""
        return SurvivalState(tuple(self._counts))

    def restore(self, state: SurvivalState) -> None:
        """Go on from a saved state.

        Raises:
            StateError: it does not fit.
        """
        if len(state.counts) != len(NODES):
            raise StateError(f"survival has {len(state.counts)} nodes, not {len(NODES)}")
        if not all(isfinite(count) and count >= 0.0 for count in state.counts):
            raise StateError("survival holds a number that is no count")
        self._counts = list(state.counts)

    def _follow(self, depth_usd: float, passed_s: float) -> None:
        """Average the depth outside events."""
        if self._usual is None:
            self._usual = depth_usd
        self._usual += (depth_usd - self._usual) * (1.0 - exp(-passed_s / USUAL_S))
        self._heard_s = min(self._heard_s + passed_s, USUAL_S)


class ThroughputState(Struct, frozen=True):
    """Forced USD of the windows that had any, oldest first."""

    windows: list[float]


class Throughput:
    """How fast liquidation engines work: the rate that 95 % of forced USD did not exceed, in USD/s.

    Weighed by USD, because a storm is a few windows among many in which something trickles, and its
    rate is what refill has to keep up with.
    """

    def __init__(self) -> None:
        self._windows: deque[float] = deque(maxlen=WINDOWS)
        self._window = 0
        self._open_usd = 0.0
        self._seen_usd = 0.0
        self._fastest: float | None = None

    def second(self, at: int, usd: float) -> None:
        """Take what was closed by force in the second before `at` (ns), made up for throttling."""
        window = at // WINDOW_NS
        if window > self._window:
            if self._open_usd > 0.0:
                self._windows.append(self._open_usd)
                self._rank()
            self._window, self._open_usd = window, 0.0
        self._open_usd += usd

    def usd_per_s(self) -> float | None:
        """USD per second; None before anything was closed by force."""
        return self._fastest

    def absorbed(self, refill_usd_s: float | None) -> float:
        """Share of forced flow that makers who come back take, ``clip(R / Gamma, 0, 0.9)`` (A7).

        As far as that is known: with `PRIOR_USD` seen, half of it; 0 while either is unknown,
        because what is not known to help does not.
        """
        if refill_usd_s is None or self._fastest is None or not refill_usd_s > 0.0:
            return 0.0
        known = self._seen_usd / (self._seen_usd + PRIOR_USD)
        return known * min(refill_usd_s / self._fastest, ABSORBED_MAX)

    def state(self) -> ThroughputState:
        """Everything that `restore` needs."""
        return ThroughputState(list(self._windows))

    def restore(self, state: ThroughputState) -> None:
        """Go on from a saved state.

        Raises:
            StateError: it does not fit.
        """
        if len(state.windows) > WINDOWS:
            raise StateError(f"throughput remembers {len(state.windows)} windows, not {WINDOWS}")
        if not all(isfinite(usd) and usd > 0.0 for usd in state.windows):
            raise StateError("throughput holds a number that is no amount")
        self._windows = deque(state.windows, maxlen=WINDOWS)
        self._rank()

    def _rank(self) -> None:
        self._seen_usd = sum(self._windows)
        below, limit = 0.0, FASTEST * self._seen_usd
        for usd in sorted(self._windows):
            below += usd
            if below >= limit:
                self._fastest = usd * NS / WINDOW_NS
                return
