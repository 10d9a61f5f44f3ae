"""What several series, or several assets, do at the same time."""

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log, sqrt
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import Floats
from monitor.events import Direction

MINUTES_KEPT: Final = 1.0 - 1.0 / (7 * 1440.0)
BURSTS_MIN: Final = 3.0
"""Minutes with a burst that each of two must have had before they are compared."""

_SQUARINGS: Final = 14


class Neighbourhood(Struct, frozen=True):
    """How an asset hangs together with the others of this process.

    Attributes:
        exports, imports: by direction; what its moves do to the others, and theirs to it (A9).
        stress_betas: its move per move of another, in minutes in which the other is violent; of
            those others only of which enough such minutes were seen.
        learnt: share of all betas between assets that was seen and not assumed; None for one asset.
        coupling: how much more often than by chance it is liquidated together with any other.
        correlation: the same with each other asset.
        returns: share of the first principal component in the one-minute returns of all assets.
    """

    exports: Mapping[Direction, float]
    imports: Mapping[Direction, float]
    stress_betas: Mapping[str, float]
    learnt: float | None
    coupling: float | None
    correlation: Mapping[str, float]
    returns: float | None


ALONE: Final = Neighbourhood({}, {}, {}, None, None, {}, None)
"""Nothing is known of any neighbour."""


class Commonality:
    """Share of the first principal component in the changes of several series.

    By the correlation matrix, so that no loud series decides: 1/n where they have nothing in
    common, 1 where they move as one.
    """

    def __init__(self, *, memory: float, least: int) -> None:
        """`memory` and `least` are numbers of changes: after which they fade, and first needed."""
        self._kept = 1.0 - 1.0 / memory
        self._least = least
        self._names: tuple[str, ...] = ()
        self._sums: Floats = np.zeros((0, 0))
        self._count = 0

    def heard(self, changes: Mapping[str, float]) -> None:
        """Take one change of each series; begins anew whenever another set of them is known."""
        names = tuple(sorted(name for name, change in changes.items() if isfinite(change)))
        if names != self._names:
            self._names, self._count = names, 0
            self._sums = np.zeros((len(names), len(names)))
        if len(names) < 2:
            return
        x = np.array([changes[name] for name in names])
        self._sums *= self._kept
        self._sums += x[:, None] * x[None, :]
        self._count += 1

    def share(self) -> float | None:
        """Between 1/n and 1; None before enough, and while one of the series does not move."""
        n = len(self._names)
        scale = np.sqrt(self._sums.diagonal())
        if n < 2 or self._count < self._least or not scale.min() > 0.0:
            return None
        power, exponent, total = self._sums / scale[:, None] / scale[None, :], 1.0, 0.0
        # By squaring, whose last bits depend on no linear-algebra library.
        for _ in range(_SQUARINGS):
            norm = float(power.trace())
            total += log(norm) / exponent
            power = power / norm
            power = (power[:, :, None] * power[None, :, :]).sum(axis=1)
            exponent *= 2.0
        return min(max(exp(total) / n, 1.0 / n), 1.0)


class Together:
    """Whether assets are liquidated in the same minutes more often than by chance (A13.7).

    Minutes with a burst of forced closes are counted for each asset and for each two, and put
    against what independence would give. Fading over a week.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._minutes = 0.0
        self._pairs: Floats = np.zeros((0, 0))
        # Minutes in which any other asset had a burst, and in which it had one as well.
        self._others: Floats = np.zeros(0)
        self._shared: Floats = np.zeros(0)

    def heard(self, bursts: Mapping[str, bool]) -> None:
        """Take one minute of the assets whose usual amount is known."""
        names = tuple(sorted(bursts))
        if names != self._names:
            n = len(names)
            self._names, self._minutes = names, 0.0
            self._pairs, self._others, self._shared = np.zeros((n, n)), np.zeros(n), np.zeros(n)
        own = np.array([float(bursts[name]) for name in names])
        others = (own.sum() - own > 0.0).astype(np.float64)
        self._pairs *= MINUTES_KEPT
        self._others *= MINUTES_KEPT
        self._shared *= MINUTES_KEPT
        self._minutes = self._minutes * MINUTES_KEPT + 1.0
        self._pairs += own[:, None] * own[None, :]
        self._others += others
        self._shared += own * others

    def coupling(self, name: str) -> float | None:
        """With any other asset: 1 is by chance. None before both had a few bursts."""
        if name not in self._names:
            return None
        i = self._names.index(name)
        return self._over(float(self._pairs[i, i]), float(self._others[i]), float(self._shared[i]))

    def correlation(self, name: str) -> dict[str, float]:
        """The same with each of the others for which it is known."""
        if name not in self._names:
            return {}
        i, found = self._names.index(name), {}
        for j, other in enumerate(self._names):
            one, two = (float(self._pairs[k, k]) for k in (i, j))
            over = None if i == j else self._over(one, two, float(self._pairs[i, j]))
            if over is not None:
                found[other] = over
        return found

    def _over(self, one: float, other: float, both: float) -> float | None:
        if min(one, other) < BURSTS_MIN:
            return None
        return self._minutes * both / (one * other)


def variation(values: Sequence[float]) -> float | None:
    """Coefficient of variation; None for fewer than two values or a mean of 0."""
    n = len(values)
    mean = sum(values) / n if n else 0.0
    if n < 2 or mean <= 0.0:
        return None
    return sqrt(sum((x - mean) ** 2 for x in values) / n) / mean
