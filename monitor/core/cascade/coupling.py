"""Venues coupled by arbitrage, and assets coupled by the moves they share (model.md A9).

A forced sale moves its own venue's book; arbitrage carries a share alpha of that displacement to
all books together. Between assets a move of one requotes the other, which meets fuel of its own.
`Arbitrage` learns alpha per venue, `StressBetas` what assets do to each other in violent minutes.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import inf, isfinite, log
from statistics import median
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import DISTANCES, POINTS, STEP, Floats
from monitor.core.cascade.impact import inverse
from monitor.core.cascade.loop import GAIN_CAP
from monitor.core.saved import StateError
from monitor.events import NS

ROUNDS: Final = 50
"""Exact rounds of the fixed point; what has not settled by then is finished on the grid."""

ALPHA: Final = 0.8
"""Share of a local displacement that arbitrage removes within a second, before any is observed."""

_SETTLED: Final = 1e-7
_GRID_END: Final = float(DISTANCES[-1])


class Pressure(Struct, frozen=True):
    """One venue within the coupled system.

    Attributes:
        depth, fuel: its curves in the direction of the shock, `checked` by whoever made them.
        alpha: share of its displacement that is arbitraged away, 0 to 1.
        survival: share of its depth that survives.
        beta: mark pass-through.
        requote: log distance by which news moves its book.
        flow_usd: what is sold into its book besides.
    """

    depth: Floats
    fuel: Floats
    alpha: float = ALPHA
    survival: float = 1.0
    beta: float = 1.0
    requote: float = 0.0
    flow_usd: float = 0.0


class Coupled(Struct, frozen=True):
    """Where coupled venues come to rest; one element per venue, in the order given.

    Attributes:
        moves: log distances from the mark; where `beyond`, at least these.
        beyond: the price leaves the grid, or the venue's own book within it is used up.
        liquidated_usd: closed by force, psi not counted.
        absorbed_usd: what the books had to take: flow and forced closes with their follow-on.
        path: the moves after each round, from the shock alone on.
    """

    moves: list[float]
    beyond: list[bool]
    liquidated_usd: list[float]
    absorbed_usd: list[float]
    path: list[list[float]]


def couple(venues: Sequence[Pressure], *, psi: float, scale: float = 1.0) -> Coupled:
    """The least fixed point of A9, from below: where the venues stop together.

    Raises:
        ValueError: no venue, or a parameter outside its range.
    """
    if not venues or not (psi > 0.0 and scale > 0.0):
        raise ValueError(f"{len(venues)} venues, psi {psi}, scale {scale}")
    for v in venues:
        if not (0 <= v.alpha <= 1 and 0 <= v.beta <= 1 and v.survival > 0):
            raise ValueError(f"alpha {v.alpha}, beta {v.beta}, survival {v.survival}")
        if not (0 <= v.requote < inf and 0 <= v.flow_usd < inf):
            raise ValueError(f"a shock of {v.requote} and {v.flow_usd} USD")
    # Views, whose elements are plain floats: four venues are too few for arrays to pay.
    together = sum((v.survival * v.depth for v in venues), np.zeros(POINTS))
    pool = together.data
    books = [v.depth.data for v in venues]
    fuels = [v.fuel.data for v in venues]
    force = psi * scale
    moves, path = [0.0] * len(venues), []
    flows, beyond = [v.flow_usd for v in venues], [False] * len(venues)
    for n in range(ROUNDS + len(venues) * POINTS):
        shared, full = _inverse(pool, sum(flows))
        settled = n > 0
        for i, v in enumerate(venues):
            local, used = _inverse(books[i], flows[i] / v.survival)
            move = v.requote + v.alpha * shared + (1.0 - v.alpha) * local
            if n >= ROUNDS:
                # Rounded up to the grid the rounds are finite, and err towards risk.
                move = STEP * -(-(move - _SETTLED) // STEP)
            beyond[i] = move > _GRID_END or (used and v.alpha < 1.0) or (full and v.alpha > 0.0)
            move = min(move, _GRID_END)
            settled = settled and move - moves[i] <= _SETTLED
            moves[i] = max(move, moves[i])
        path.append(moves.copy())
        if settled:
            break
        for i, v in enumerate(venues):
            flows[i] = v.flow_usd + force * _value(fuels[i], v.beta * moves[i])
    freed = [scale * _value(fuels[i], v.beta * moves[i]) for i, v in enumerate(venues)]
    return Coupled(moves, beyond, freed, flows, path)


def _inverse(curve: memoryview, usd: float) -> tuple[float, bool]:
    """The distance within which a curve reaches an amount, and whether it lies beyond the grid."""
    at = bisect_left(curve, usd)
    if at == 0:
        return 0.0, False
    if at == POINTS:
        return _GRID_END, True
    low: float = curve[at - 1]
    return STEP * (at - 1 + (usd - low) / (curve[at] - low)), False


def _value(curve: memoryview, distance: float) -> float:
    position = distance / STEP
    at = min(int(position), POINTS - 2)
    low: float = curve[at]
    return low + min(position - at, 1.0) * (curve[at + 1] - low)


# ------------------------------------------------------------------------------- between assets


class Contagion(Struct, frozen=True):
    """How assets pull each other down; rows and columns in the order given.

    Attributes:
        matrix: ``J[a][b]``, how far forced closes in a move a per move of b (a = b: its own loop),
            where b is one of the others, who move a together.
        radius: spectral radius; from 1 on the assets are unstable together.
        imports: what a move of all others does to each asset, the row sums without the diagonal.
        exports: what a move of each asset does to another on average, the column sums without it.
    """

    matrix: list[list[float]]
    radius: float
    imports: list[float]
    exports: list[float]


def contagion(
    depths: Sequence[Floats],
    fuels: Sequence[Floats],
    betas: Floats,
    *,
    survival: Sequence[float],
    psi: Sequence[float],
    passed: Sequence[float],
    steps: Sequence[float],
    moves: Sequence[float] | None = None,
) -> Contagion:
    """The contagion matrix by finite differences of ``D^-1(psi L(beta c x))`` (model.md A9).

    A stress beta is what a does when b moves, whatever else moves then: each of them tells the
    whole of a common move. What the others do to a is therefore the mean of what each would do and
    not the sum, which for assets that move as one would grow with their number: with one common
    factor, ``c[a, b]`` a ratio of loadings, the mean is exact. So off the diagonal a difference is
    divided by the number of others.

    Args:
        depths: displayed depth of each asset, in one direction.
        fuels: forced closes of each asset, in the same direction.
        betas: ``c[a, b]``, move of a per move of b under stress (`StressBetas.matrix`), shape
            (A, A). The diagonal is taken as 1.
        survival: share of depth that survives, per asset.
        psi: forced flow per forced dollar, the map's scale included, per asset.
        passed: mark pass-through, per asset.
        steps: log distances b moves for its difference: what counts as a violent move of b.
        moves: where the assets stand already; the mark by default.

    Raises:
        ValueError: betas of another shape, negative or not finite.
    """
    n = len(depths)
    if betas.shape != (n, n) or not (np.isfinite(betas).all() and (betas >= 0).all()):
        raise ValueError(f"betas {betas} do not fit {n} assets")
    pull = betas.copy()
    np.fill_diagonal(pull, 1.0)
    step = np.array(steps)
    stand = np.zeros(n) if moves is None else np.array(moves)
    matrix = np.zeros((n, n))
    for a in range(n):
        moved = np.append(stand[a] + pull[a] * step, stand[a])
        forced = psi[a] * np.interp(passed[a] * moved, DISTANCES, fuels[a])
        pushed = np.nan_to_num(inverse(depths[a], forced / survival[a]), nan=_GRID_END)
        matrix[a] = np.minimum((pushed[:-1] - pushed[-1]) / step, GAIN_CAP)
    own = matrix.diagonal().copy()
    matrix /= max(n - 1, 1)
    np.fill_diagonal(matrix, own)
    return Contagion(
        matrix=matrix.tolist(),
        radius=spectral_radius(matrix),
        imports=(matrix.sum(axis=1) - own).tolist(),
        exports=(matrix.sum(axis=0) - own).tolist(),
    )


def spectral_radius(matrix: Floats) -> float:
    """The largest eigenvalue of a matrix without negative elements, by Gelfand's formula.

    Repeated squaring, so that the last bits depend on no linear-algebra library.
    """
    power, exponent, total = matrix, 1.0, 0.0
    for _ in range(20):
        norm = float(power.max(initial=0.0))
        if norm < 1e-150:
            return 0.0
        total += log(norm) / exponent
        power = power / norm
        power = (power[:, :, None] * power[None, :, :]).sum(axis=1)
        exponent *= 2.0
    return float(np.exp(total))


# ------------------------------------------------------------------------------------ learnt


class Arbitrage:
    """Alpha per venue: the share of its deviation from the composite that is gone after a second.

    The composite is the median mark, each less its lasting basis, a mean over minutes.
    The ratio of later to earlier deviations is a regression through the origin, in which large
    deviations, the ones arbitrage is for, count most.
    """

    LAG_NS: Final = NS
    LATEST_NS: Final = 3 * NS // 2
    BASIS_S: Final = 300.0
    HALF_LIFE_S: Final = 6 * 3600.0
    PRIOR: Final = 60 * 0.0005**2
    """The default weighs as much as a minute of deviations of 5 bp."""

    def __init__(self, venues: Sequence[str]) -> None:
        self.venues = tuple(venues)
        self._sums: dict[str, list[float]] = {v: [0.0, 0.0] for v in venues}
        self._basis: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._at = 0

    def update(self, at: int, marks: Mapping[str, float]) -> None:
        """Hear the marks that are known at a time; venues without one are left out.

        Marks may come as often as they like; times that go back are ignored.
        """
        since = at - self._at
        if since < self.LAG_NS:
            return
        logs = {v: log(marks[v]) for v in self.venues if 0.0 < marks.get(v, 0.0) < inf}
        if len(logs) < 2:
            self._at, self._held = at, {}
            return
        # A lasting basis is taken off first, or one venue off the rest would move the median.
        level = [x - self._basis[v] for v, x in logs.items() if v in self._basis]
        composite = median(level or logs.values())
        timely = since <= self.LATEST_NS
        fade = 0.5 ** (since / NS / self.HALF_LIFE_S) if self._at else 1.0
        follow = min(1.0, since / NS / self.BASIS_S)
        held: dict[str, float] = {}
        for v in self.venues:
            sums = self._sums[v]
            sums[0] *= fade
            sums[1] *= fade
            if v not in logs:
                continue
            apart = logs[v] - composite
            before = self._basis.get(v, apart)
            deviation = apart - before
            self._basis[v] = before + follow * deviation
            held[v] = deviation
            if timely and v in self._held:
                earlier = self._held[v]
                sums[0] += earlier * deviation
                sums[1] += earlier * earlier
        self._at, self._held = at, held

    def alpha(self, venue: str) -> float:
        """The estimate for a venue, 0 to 1, drawn to `ALPHA` while little is known."""
        product, square = self._sums[venue]
        left = (self.PRIOR * (1.0 - ALPHA) + product) / (self.PRIOR + square)
        return min(max(1.0 - left, 0.0), 1.0)

    def state(self) -> "ArbitrageState":
        """What a restart needs."""
        sums = {v: (s[0], s[1]) for v, s in self._sums.items()}
        return ArbitrageState(self._at, sums, dict(self._basis), dict(self._held))

    def restore(self, state: "ArbitrageState") -> None:
        """Go on from a state; venues it does not know start anew, others of it are dropped.

        Raises:
            StateError: it holds numbers that cannot be.
        """
        numbers = [x for pair in state.sums.values() for x in pair]
        numbers += [*state.basis.values(), *state.held.values()]
        if not all(map(isfinite, numbers)) or any(s[1] < 0 for s in state.sums.values()):
            raise StateError("arbitrage sums are negative or not finite")
        for v in self.venues:
            self._sums[v] = list(state.sums.get(v, (0.0, 0.0)))
        self._basis = {v: b for v, b in state.basis.items() if v in self._sums}
        self._held = {v: d for v, d in state.held.items() if v in self._sums}
        self._at = state.at


class ArbitrageState(Struct, frozen=True):
    """What `Arbitrage` remembers."""

    at: int
    sums: dict[str, tuple[float, float]]
    basis: dict[str, float]
    held: dict[str, float]


class StressBetas:
    """Move of one asset per move of another in the minutes in which the other moves violently.

    One-minute log returns, a minute counts for b if abs(z_b) > 3, exponentially weighted, floored
    at 0 (model.md A9). Each violent minute weighs z squared, so that calm and wild months are
    comparable; `PRIOR_MINUTES` of them stand behind the prior: assets that move as one. `learnt`
    says how much of a beta is more than that assumption.
    """

    THRESHOLD: Final = 3.0
    WARM: Final = 60
    """Returns before a z-score means anything."""
    VARIANCE_HALF_LIFE: Final = 1440.0
    HALF_LIFE_S: Final = 30 * 86400.0
    PRIOR: Final = 1.0
    PRIOR_MINUTES: Final = 3.0

    def __init__(self, assets: Sequence[str]) -> None:
        self.assets = tuple(assets)
        n = len(self.assets)
        self._count = [0] * n
        self._variance = [0.0] * n
        self._moment = np.zeros((n, n))
        self._weight = np.zeros((n, n))
        self._at = 0

    def update(self, at: int, returns: Mapping[str, float]) -> None:
        """Hear the log returns of one minute; assets without one are left out."""
        known = [
            (i, returns[a])
            for i, a in enumerate(self.assets)
            if a in returns and isfinite(returns[a])
        ]
        if self._at and at > self._at:
            fade = 0.5 ** ((at - self._at) / NS / self.HALF_LIFE_S)
            self._moment *= fade
            self._weight *= fade
        self._at = max(at, self._at)
        for b, move in known:
            if self._count[b] >= self.WARM and self._variance[b] > 0.0:
                square = move * move / self._variance[b]
                if square > self.THRESHOLD**2:
                    for a, other in known:
                        self._moment[a, b] += square * other / move
                        self._weight[a, b] += square
        for b, move in known:
            self._count[b] += 1
            new = max(1.0 / self._count[b], 1.0 - 0.5 ** (1.0 / self.VARIANCE_HALF_LIFE))
            self._variance[b] += new * (move * move - self._variance[b])

    def matrix(self) -> Floats:
        """``c[a, b]``: move of a per move of b, at least 0, its diagonal 1; shape (A, A)."""
        prior = self.PRIOR_MINUTES * self.THRESHOLD**2
        betas = np.maximum((prior * self.PRIOR + self._moment) / (prior + self._weight), 0.0)
        np.fill_diagonal(betas, 1.0)
        return betas

    def learnt(self) -> Floats:
        """Share of each beta's weight that was seen and not assumed, 0 to 1, its diagonal 1."""
        shares = self._weight / (self.PRIOR_MINUTES * self.THRESHOLD**2 + self._weight)
        np.fill_diagonal(shares, 1.0)
        return shares

    def row(self, asset: str) -> "StressRow":
        """What is known of how one of the assets follows the others; a restart needs every row."""
        a = self.assets.index(asset)
        return StressRow(
            at=self._at,
            count=self._count[a],
            variance=self._variance[a],
            follows={
                b: (float(moment), float(weight))
                for b, moment, weight in zip(
                    self.assets, self._moment[a], self._weight[a], strict=True
                )
            },
        )

    def recall(self, asset: str, row: "StressRow") -> None:
        """Take over a row, of which the assets that are not here are left out."""
        a = self.assets.index(asset)
        fade = 0.5 ** (max(0, self._at - row.at) / NS / self.HALF_LIFE_S)
        if not self._at:
            self._at = row.at
        self._count[a], self._variance[a] = row.count, row.variance
        for b, other in enumerate(self.assets):
            if other in row.follows:
                moment, weight = row.follows[other]
                self._moment[a, b], self._weight[a, b] = moment * fade, weight * fade


class StressRow(Struct, frozen=True):
    """One asset's row of `StressBetas`: by other asset, summed moments and weights.

    Raises:
        StateError: its numbers cannot be.
    """

    at: int
    count: int
    variance: float
    follows: dict[str, tuple[float, float]]

    def __post_init__(self) -> None:
        sums = self.follows.values()
        numbers = [self.variance, *(x for pair in sums for x in pair)]
        possible = self.variance >= 0.0 and all(weight >= 0.0 for _, weight in sums)
        if not (all(map(isfinite, numbers)) and possible and self.count >= 0):
            raise StateError("stress betas hold numbers that cannot be")
