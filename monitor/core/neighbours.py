"""What assets do to each other: a fall of one moves the others' books onto their own fuel."""

from collections.abc import Mapping
from math import sqrt
from typing import Final

from monitor.core.asset import Asset
from monitor.core.conditions import DIRECTIONS
from monitor.core.coupling import StressBetas, contagion
from monitor.core.risk import USUAL_W
from monitor.events import NS, Direction

VIOLENT: Final = 3.0
"""Standard deviations of five minutes that a violent move of a neighbour has (A9)."""


class Neighbours:
    """Contagion over the assets of this process, once a minute.

    Attributes:
        radius: spectral radius by direction; empty while fewer than two assets are known.
    """

    def __init__(self) -> None:
        self.radius: Mapping[Direction, float] = {}
        self._betas = StressBetas(())
        self._minute = 0

    def advance(self, at: int, assets: Mapping[str, Asset]) -> None:
        """Take note of the time, and once a minute of what the assets did in it."""
        minute = at // (60 * NS)
        if minute == self._minute:
            return
        self._minute = minute
        names = tuple(sorted(assets))
        if names != self._betas.assets:
            self._betas = StressBetas(names)
        moves = {name: assets[name].conditions.returned() for name in names}
        self._betas.update(at, {name: move for name, move in moves.items() if move is not None})
        found = {d: self._radius(d, assets) for d in DIRECTIONS}
        self.radius = {d: radius for d, radius in found.items() if radius is not None}

    def _radius(self, direction: Direction, assets: Mapping[str, Asset]) -> float | None:
        index, depths, fuels, psi, steps = [], [], [], [], []
        for i, name in enumerate(self._betas.assets):
            now = assets[name].situations.get(direction)
            if now is None or now.depth is None or now.fuel is None or now.volatility is None:
                continue
            index.append(i)
            depths.append(now.depth.usd)
            fuels.append(now.fuel)
            psi.append(assets[name].conditions.psi(direction))
            steps.append(max(1e-4, VIOLENT * now.volatility.sigma[1] * sqrt(300.0)))
        if len(index) < 2:
            return None
        count = len(index)
        return contagion(
            depths,
            fuels,
            self._betas.matrix()[index][:, index],
            survival=[USUAL_W] * count,
            psi=psi,
            passed=[1.0] * count,
            steps=steps,
        ).radius
