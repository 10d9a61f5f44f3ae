"""Whether takers push towards a cluster once it is near (model.md D)."""

from typing import Final

KEPT: Final = 1.0 - 1.0 / 17_280.0
"""Per reading; at five seconds each a day of memory."""

LEAST: Final = 120
"""Readings near a cluster, and as many away from it, before there is a figure."""


class Approach:
    """Share of taker flow in one direction while the largest cluster there is near, and else."""

    def __init__(self) -> None:
        # Away and near: USD in the direction, USD in all.
        self._sums = [[0.0, 0.0], [0.0, 0.0]]
        self._counts = [0, 0]

    def heard(self, towards_usd: float, total_usd: float, *, near: bool) -> None:
        """Take what takers traded since the last reading."""
        if not total_usd > 0.0:
            return
        for sums in self._sums:
            sums[0] *= KEPT
            sums[1] *= KEPT
        self._sums[near][0] += towards_usd
        self._sums[near][1] += total_usd
        self._counts[near] += 1

    @property
    def ratio(self) -> float | None:
        """Share near a cluster less that away from it, -1 to 1; None before enough of both."""
        if min(self._counts) < LEAST:
            return None
        away, near = (towards / total for towards, total in self._sums)
        return near - away
