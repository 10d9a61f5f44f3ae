"""Least squares that goes on learning and never forgets what it started from."""

from collections.abc import Sequence
from math import isfinite, sqrt

from monitor.core.saved import StateError


class Recursive:
    """Ridge regression towards a prior, with exponential forgetting of what was learnt.

    Kept as sums of products, so that the prior does not fade and nothing winds up while the
    regressors do not vary. Plain floats: the result is the same on every machine.
    """

    def __init__(self, prior: Sequence[float], *, strength: float, kept: float) -> None:
        """`strength` is the prior's weight in observations, `kept` what one observation leaves."""
        self._prior = list(prior)
        self._strength, self._kept = strength, kept
        n = len(prior)
        self._products = [[0.0] * n for _ in range(n)]
        self._targets = [0.0] * n
        self._solved: list[float] | None = list(prior)

    @property
    def coefficients(self) -> list[float]:
        """The coefficients as of what was learnt."""
        if self._solved is None:
            n, strength = len(self._prior), self._strength
            matrix = [row[:] for row in self._products]
            for i in range(n):
                matrix[i][i] += strength
            right = [t + strength * p for t, p in zip(self._targets, self._prior, strict=True)]
            self._solved = solved(matrix, right)
        return self._solved

    def predicted(self, x: Sequence[float]) -> float:
        """What the target is expected to be."""
        return sum(c * v for c, v in zip(self.coefficients, x, strict=True))

    def learn(self, x: Sequence[float], target: float, *, weight: float = 1.0) -> None:
        """Take one observation; `weight` below 1 where observations overlap."""
        kept = self._kept**weight
        for i, row in enumerate(self._products):
            scaled = weight * x[i]
            for j in range(i + 1):
                row[j] = row[j] * kept + scaled * x[j]
            self._targets[i] = self._targets[i] * kept + scaled * target
        self._solved = None

    def state(self) -> tuple[list[float], list[float]]:
        """Lower triangle of the products by rows, and the targets."""
        return [x for i, row in enumerate(self._products) for x in row[: i + 1]], self._targets[:]

    def restore(self, state: tuple[list[float], list[float]]) -> None:
        """Take over a saved state.

        Raises:
            StateError: it is of another size, or its numbers are not those of a regression.
        """
        triangle, targets = state
        n = len(self._prior)
        if len(targets) != n or len(triangle) != n * (n + 1) // 2:
            raise StateError(f"regression on {len(targets)} inputs, expected {n}")
        if not all(isfinite(x) for x in (*triangle, *targets)):
            raise StateError("regression with numbers that are not finite")
        numbers = iter(triangle)
        products = [[next(numbers) if j <= i else 0.0 for j in range(n)] for i in range(n)]
        if any(products[i][i] < 0.0 for i in range(n)):
            raise StateError("regression with negative squares")
        before = self._products, self._targets
        self._products, self._targets, self._solved = products, list(targets), None
        try:
            _ = self.coefficients
        except StateError:
            self._products, self._targets = before
            raise


def solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solution of a positive definite system, of which the lower triangle is read (Cholesky).

    Raises:
        StateError: the matrix is not positive definite; a saved one may be anything.
    """
    n = len(right)
    root = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(root[i][k] * root[j][k] for k in range(j))
            if i != j:
                root[i][j] = rest / root[j][j]
            elif rest > 0.0:
                root[i][i] = sqrt(rest)
            else:
                raise StateError("regression whose products are not positive definite")
    half = [0.0] * n
    for i in range(n):
        half[i] = (right[i] - sum(root[i][k] * half[k] for k in range(i))) / root[i][i]
    found = [0.0] * n
    for i in reversed(range(n)):
        found[i] = (half[i] - sum(root[k][i] * found[k] for k in range(i + 1, n))) / root[i][i]
    return found
