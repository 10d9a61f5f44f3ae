"""What assets do to each other: a fall of one moves the others' books onto their own fuel."""

from collections.abc import Mapping
from math import fsum, sqrt
from typing import Final, TypeAlias

from monitor.core.asset import Asset
from monitor.core.cascade.coupling import Contagion, StressBetas, StressRow, contagion
from monitor.core.cascade.curves import Floats
from monitor.core.conditions import DIRECTIONS, Conditions
from monitor.core.prospect import USUAL_W
from monitor.core.prospect import psi as pushed
from monitor.core.quantities.commonality import Commonality, Neighbourhood, Together
from monitor.core.quantities.quantities import BURST
from monitor.events import NS, Direction

VIOLENT: Final = 3.0
"""Standard deviations of five minutes that a violent move of a neighbour has (A9)."""


LEARNT: Final = 0.5
"""Nothing is said of stress betas, nor of what follows from them, before what was seen of them
weighs as much as what is assumed."""

Solved: TypeAlias = tuple[list[str], Contagion]
"""The assets that are known, in order, and what they do to each other."""


class Neighbours:
    """Contagion over the assets of this process, once a minute; tells each its `neighbourhood`.

    Attributes:
        radius: spectral radius by direction; empty while fewer than two assets are known, or while
            how they follow each other is not learnt.
    """

    def __init__(self) -> None:
        self.radius: Mapping[Direction, float] = {}
        self._betas = StressBetas(())
        self._returns = Commonality(memory=1440.0, least=60)
        self._together = Together()
        self._minute = 0

    def advance(self, at: int, assets: Mapping[str, Asset]) -> None:
        """Take note of the time, and once a minute of what the assets did in it."""
        minute = at // (60 * NS)
        if minute <= self._minute:
            return
        self._minute = minute
        names = tuple(sorted(assets))
        self._recall(names, assets)
        returns = {name: assets[name].conditions.returned() for name in names}
        moves = {name: move for name, move in returns.items() if move is not None}
        self._betas.update(at, moves)
        self._returns.heard(moves)
        bursts = {name: _has_burst(at, assets[name].conditions) for name in names}
        self._together.heard({name: burst for name, burst in bursts.items() if burst is not None})
        solved = {d: self._contagion(d, assets) for d in DIRECTIONS}
        self.radius = {d: found.radius for d, (_, found) in _known(solved).items()}
        for name in names:
            assets[name].neighbourhood = self._neighbourhood(name, _known(solved))

    def row(self, asset: str) -> StressRow | None:
        """How the asset has followed the others in their violent minutes, for its saved state."""
        return self._betas.row(asset) if asset in self._betas.assets else None

    def _recall(self, names: tuple[str, ...], assets: Mapping[str, Asset]) -> None:
        """Go on with what is known, of other assets than before or from saved states."""
        saved = {name: row for name in names if (row := assets[name].recalled) is not None}
        if names == self._betas.assets and not saved:
            return
        known = {name: self._betas.row(name) for name in self._betas.assets if name in names}
        self._betas = StressBetas(names)
        for name, row in (known | saved).items():
            self._betas.recall(name, row)
            assets[name].recalled = None

    def _neighbourhood(self, name: str, solved: Mapping[Direction, Solved]) -> Neighbourhood:
        names = self._betas.assets
        row = names.index(name)
        betas, learnt = self._betas.matrix()[row], self._betas.learnt()[row]
        own = {d: (c, known.index(name)) for d, (known, c) in solved.items() if name in known}
        return Neighbourhood(
            exports={d: c.exports[i] for d, (c, i) in own.items()},
            imports={d: c.imports[i] for d, (c, i) in own.items()},
            stress_betas={
                other: float(beta)
                for other, beta, share in zip(names, betas, learnt, strict=True)
                if other != name and share >= LEARNT
            },
            learnt=_mean_of_pairs(self._betas.learnt()),
            coupling=self._together.coupling(name),
            correlation=self._together.correlation(name),
            returns=self._returns.share(),
        )

    def _contagion(self, direction: Direction, assets: Mapping[str, Asset]) -> Solved | None:
        index, depths, fuels, psi, steps = [], [], [], [], []
        for i, name in enumerate(self._betas.assets):
            now = assets[name].situations.get(direction)
            if now is None or now.depth is None or now.fuel is None or now.volatility is None:
                continue
            index.append(i)
            depths.append(now.depth.usd)
            fuels.append(now.fuel)
            psi.append(pushed(assets[name].conditions, direction))
            steps.append(max(1e-4, VIOLENT * now.volatility.sigma[1] * sqrt(300.0)))
        share = _mean_of_pairs(self._betas.learnt()[index][:, index])
        if share is None or share < LEARNT:
            return None
        count = len(index)
        found = contagion(
            depths,
            fuels,
            self._betas.matrix()[index][:, index],
            survival=[USUAL_W] * count,
            psi=psi,
            passed=[1.0] * count,
            steps=steps,
        )
        return [self._betas.assets[i] for i in index], found


def _known(solved: Mapping[Direction, Solved | None]) -> dict[Direction, Solved]:
    return {d: found for d, found in solved.items() if found is not None}


def _mean_of_pairs(shares: Floats) -> float | None:
    """The mean off the diagonal; None for fewer than two."""
    n = len(shares)
    return (fsum(shares.ravel().tolist()) - n) / (n * (n - 1)) if n > 1 else None


def _has_burst(at: int, conditions: Conditions) -> bool | None:
    """Whether far more than usual was liquidated in the last minute; None without a usual."""
    found = None
    for d in DIRECTIONS:
        printed, usual = conditions.liquidated_usd(at, d), conditions.normal_liquidated_usd(d)
        if printed is not None and usual is not None:
            found = bool(found) or printed[1] > BURST * usual
    return found
