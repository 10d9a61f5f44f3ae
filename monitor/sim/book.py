"""Limit-order books of all contracts: integer ticks and lots, one row of levels per contract.

A row holds signed lots on a fixed grid of prices one basis point apart: bids are positive, asks
negative, every bid lies below every ask. Orders walk it level by level; makers rebuild it towards
a depth law. The book knows nothing of accounts or of why somebody trades.
"""

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.sim.chance import generator
from monitor.sim.parameters import LEVEL, Asset, Parameters
from monitor.sim.rules import MICRO, Contract, Venue

LEVELS = 12_288
"""Levels per book: prices from 0.54 to 1.85 times the first price."""

# Levels re-quoted at every step on either side of the touch, and at every far refresh.
_NEAR = 96
_FAR = 3_000
# A far refresh follows at the latest after this time, or after this move in levels.
_FAR_EVERY_S = 16.0
_FAR_MOVE = 40.0
# Value buyers look at displacements beyond this many levels only.
_HIDE_FROM = 20
_NOISE = 8_192
_NOISE_SHIFT_S = 30.0


class Fill(Struct, frozen=True):
    """What an order got: total lots, their value in tick-lots, and the parts (tick, lots)."""

    lots: int
    tick_lots: int
    parts: list[tuple[int, int]]


def depth_law(parameters: Parameters) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cumulative depth within each distance in levels, in units of A0: makers', value buyers' (C1).

    Rounded to 1e-9, so that the last bit of the
    platform's `pow` cannot reach the state.
    """
    kappa = parameters.kappa if parameters.book_law == "power" else 1.0
    reach = parameters.deep_reach / LEVEL
    near = [round(float((j * LEVEL / 0.01) ** kappa), 9) for j in range(LEVELS + 1)]
    deep = [round(parameters.deep_share * (j / reach) ** 3, 9) for j in range(LEVELS + 1)]
    return np.array(near), np.array(deep)


class Books:
    """All books; `centre` is where makers quote, in levels, and drives the touch."""

    def __init__(
        self,
        contracts: tuple[Contract, ...],
        venues: tuple[Venue, ...],
        assets: tuple[Asset, ...],
        parameters: Parameters,
        *,
        seed: int,
    ) -> None:
        count = len(contracts)
        self._contracts = contracts
        self._parameters = parameters
        self.levels: NDArray[np.int64] = np.zeros((count, LEVELS), dtype=np.int64)
        self.centre: NDArray[np.float64] = np.full(count, LEVELS / 2 + 0.5)
        self.bid: list[int] = [LEVELS // 2] * count
        self.ask: list[int] = [LEVELS // 2 + 1] * count
        grid = np.array([math.exp((k - LEVELS // 2) * LEVEL) for k in range(LEVELS)])
        ticks = [np.rint(assets[c.asset_index].price_usd / c.tick_usd * grid) for c in contracts]
        self.ticks: NDArray[np.int64] = np.array(ticks).astype(np.int64)
        assert bool((np.diff(self.ticks, axis=1) > 0).all()), "a tick is wider than a level"
        near, deep = (np.diff(part) for part in depth_law(parameters))
        depth = [assets[c.asset_index].depth_usd * venues[c.venue_index].share for c in contracts]
        scaled = np.array(depth)[:, None] * parameters.depth_scale
        self._near, self._deep = near * scaled, deep * scaled
        units = np.array([[c.unit / MICRO] for c in contracts])
        self._lots_per_usd = 1.0 / (self.ticks * units)
        normal = generator(seed, "level_sizes").standard_normal(_NOISE).tolist()
        sd = parameters.level_noise_sd
        sizes = [round(math.exp(sd * z - sd * sd / 2), 9) for z in normal]
        self._noise = np.array(sizes)
        self._offsets = np.arange(-_NEAR + 1, _NEAR + 1)
        self._far_offsets = np.arange(-_FAR + 1, _FAR + 1)
        self._rows = np.arange(count)
        self._salt = (self._rows * 977)[:, None]
        self._far_at = [-1e9] * count
        self._far_centre = self.centre.copy()
        self._far_survival = np.ones(count)
        self._clock = 0.0
        self._next_far = 0
        self.hidden: NDArray[np.int64] = np.zeros_like(self.levels)
        self.published = np.zeros_like(self.levels)
        self.requote(self.centre - 0.0, np.ones(count), 1e9)

    # ------------------------------------------------------------------------------ makers

    def requote(
        self, anchor: NDArray[np.float64], survival: NDArray[np.float64], step_s: float
    ) -> None:
        """Makers move the touch to `centre` and rebuild the levels towards the depth law.

        `anchor` is where each book would rest without recent flow, in levels: the side that the
        flow has eaten into keeps its shape around it. `survival` is the share of depth left.
        """
        np.clip(self.centre, _FAR + 2, LEVELS - _FAR - 2, out=self.centre)
        self._clock += step_s
        bids = self.centre.astype(np.int64).tolist()
        for c, bid in enumerate(bids):
            row = self.levels[c]
            if bid < self.bid[c]:
                row[bid + 1 : self.bid[c] + 1] = 0
            if bid + 1 > self.ask[c]:
                row[self.ask[c] : bid + 1] = 0
            self.bid[c], self.ask[c] = bid, bid + 1
        up = min(1.0, step_s / self._parameters.refill_s)
        down = min(1.0, step_s / self._parameters.cancel_s)
        self._rebuild(self._rows, self._offsets, anchor, survival, up=up, down=down)
        self._rebuild_far(anchor, survival)
        # A touch without a single lot would be a crossed or one-sided book.
        for c, bid in enumerate(bids):
            row = self.levels[c]
            if row[bid] <= 0:
                row[bid] = 1
            if row[bid + 1] >= 0:
                row[bid + 1] = -1

    def _rebuild_far(self, anchor: NDArray[np.float64], survival: NDArray[np.float64]) -> None:
        moved = np.abs(self.centre - self._far_centre) > _FAR_MOVE
        thinned = survival < 0.8 * self._far_survival
        for c in range(len(self._contracts)):
            elapsed = self._clock - self._far_at[c]
            # Contracts take turns, so that no step pays for all of them.
            due = elapsed > _FAR_EVERY_S and self._next_far == c
            if not (due or moved[c] or thinned[c] or elapsed > 4 * _FAR_EVERY_S):
                continue
            up = min(1.0, elapsed / self._parameters.refill_s)
            down = min(1.0, elapsed / self._parameters.cancel_s)
            self._rebuild(
                self._rows[c : c + 1], self._far_offsets, anchor, survival, up=up, down=down
            )
            self._far_at[c] = self._clock
            self._far_centre[c] = self.centre[c]
            self._far_survival[c] = survival[c]
        self._next_far = (self._next_far + 1) % len(self._contracts)

    def _rebuild(
        self,
        rows: NDArray[np.int64],
        offsets: NDArray[np.int64],
        anchor: NDArray[np.float64],
        survival: NDArray[np.float64],
        *,
        up: float,
        down: float,
    ) -> None:
        bid = np.array(self.bid)[rows][:, None]
        index = bid + offsets
        here = rows[:, None]
        old = self.levels[here, index]
        is_bid = offsets <= 0
        # The eaten side keeps part of its shape around the anchor, the other follows the touch.
        kept = self._parameters.anchoring * (anchor[rows] - np.array(self.bid)[rows])
        resting = bid + kept.astype(np.int64)[:, None]
        distance = np.where(
            is_bid, np.maximum(resting, bid) - index, index - 1 - np.minimum(resting, bid)
        )
        shift = int(self._clock // _NOISE_SHIFT_S) * 31
        noise = self._noise[(index + self._salt[rows] + shift) & (_NOISE - 1)]
        left = survival[rows][:, None]
        # What value buyers show hesitates too, but less than the makers; it lies deep in the book.
        shown = np.where(is_bid, -offsets, offsets - 1)
        deep = self._deep[here, shown] * np.sqrt(np.sqrt(left))
        wanted = (self._near[here, distance] * left + deep) * noise
        lots = (wanted * self._lots_per_usd[here, index]).astype(np.int64)
        signed = np.where(is_bid, lots, -lots)
        gap = signed - old
        rate = np.where(lots > np.abs(old), up, down)
        self.levels[here, index] = old + (gap * rate).astype(np.int64)

    # ------------------------------------------------------------------------ value buyers

    def hide(self, anchor: NDArray[np.float64], step_s: float) -> None:
        """Value buyers answer a displacement with orders that the book does not show.

        They want the cubic part of the depth law, counted from `anchor`, and need
        `value_arrival_s` to come: they are why a cascade ends although nothing is displayed.
        """
        share = min(1.0, step_s / self._parameters.value_arrival_s)
        away = self.centre - anchor
        for c in np.nonzero(np.abs(away) > _HIDE_FROM)[0].tolist():
            down = bool(away[c] < 0)
            first = self.bid[c] - _NEAR + 1 if down else self.ask[c]
            span = slice(first, first + _NEAR)
            distance = np.abs(np.arange(first, first + _NEAR) - int(anchor[c]))
            wanted = (self._deep[c, distance] * self._lots_per_usd[c, span]).astype(np.int64)
            now = self.hidden[c, span]
            gap = (wanted if down else -wanted) - now
            self.hidden[c, span] = now + (gap * share).astype(np.int64)

    # ------------------------------------------------------------------------------ takers

    def take(self, c: int, *, buy: bool, lots: int, limit: int) -> Fill:
        """Walk the book for up to `lots`, no further than the price `limit` in ticks.

        Every level eaten away moves the touch and the makers' centre with it.
        """
        assert lots >= 0, lots
        row, ticks, hidden = self.levels[c], self.ticks[c], self.hidden[c]
        step = 1 if buy else -1
        k = self.ask[c] if buy else self.bid[c]
        start, left, tick_lots = k, lots, 0
        parts: list[tuple[int, int]] = []
        while left > 0 and 1 <= k < LEVELS - 1:
            tick = int(ticks[k])
            if (tick > limit) if buy else (tick < limit):
                break
            shown = abs(int(row[k]))
            behind = max(0, -step * int(hidden[k]))
            if shown + behind:
                size = min(shown + behind, left)
                parts.append((tick, size))
                tick_lots += tick * size
                left -= size
                # What is shown goes first.
                row[k] += step * min(size, shown)
                hidden[k] += step * max(0, size - shown)
                if size < shown + behind:
                    break
            k += step
        if buy:
            self.ask[c] = k
        else:
            self.bid[c] = k
        self.centre[c] += k - start
        return Fill(lots - left, tick_lots, parts)

    def available(self, c: int, *, buy: bool, limit: int) -> int:
        """Lots that an order could take no further than `limit` ticks, hidden ones included."""
        edge = int(np.searchsorted(self.ticks[c], limit, side="right" if buy else "left"))
        sign = -1 if buy else 1
        span = slice(self.ask[c], edge) if buy else slice(edge, self.bid[c] + 1)
        hidden = np.maximum(sign * self.hidden[c, span], 0)
        return int(sign * self.levels[c, span].sum() + hidden.sum())

    # ------------------------------------------------------------------------------- views

    def mid(self) -> NDArray[np.float64]:
        """Middle of every touch, in levels."""
        middle: NDArray[np.float64] = (np.array(self.bid) + np.array(self.ask)) / 2.0
        return middle

    def ticks_at(self, level: NDArray[np.float64]) -> NDArray[np.float64]:
        """Price of each contract at a fractional level, in (fractional) ticks."""
        low = level.astype(np.int64)
        below = self.ticks[self._rows, low].astype(np.float64)
        above = self.ticks[self._rows, low + 1]
        price: NDArray[np.float64] = below + (level - low) * (above - below)
        return price

    def levels_of(self, c: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The whole book: bids and asks as (tick, lots), best first."""
        row = self.levels[c]
        bids = np.nonzero(row > 0)[0][::-1]
        asks = np.nonzero(row < 0)[0]
        return _pairs(self.ticks[c], row, bids), _pairs(self.ticks[c], row, asks)

    def changes(self, c: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Level changes since the last call: (tick, new lots), 0 when gone, best first."""
        row, seen = self.levels[c], self.published[c]
        changed = np.nonzero(row != seen)[0]
        before, after = seen[changed], row[changed]
        is_bid = (before > 0) | (after > 0)
        is_ask = (before < 0) | (after < 0)
        bids = _pairs(self.ticks[c], np.maximum(row, 0), changed[is_bid][::-1])
        asks = _pairs(self.ticks[c], np.minimum(row, 0), changed[is_ask])
        seen[changed] = after
        return bids, asks

    def depth_usd(self, c: int, *, reach: float, bids: bool) -> float:
        """USD resting within log distance `reach` of the mid on one side."""
        span = round(reach / LEVEL)
        lo, hi = (
            (self.bid[c] - span, self.bid[c] + 1) if bids else (self.ask[c], self.ask[c] + span)
        )
        lots = np.abs(self.levels[c, max(lo, 0) : hi])
        value = int((lots * self.ticks[c, max(lo, 0) : hi]).sum())
        return value * self._contracts[c].unit / MICRO


def _pairs(
    ticks: NDArray[np.int64], row: NDArray[np.int64], index: NDArray[np.int64]
) -> list[tuple[int, int]]:
    return list(zip(ticks[index].tolist(), np.abs(row[index]).tolist(), strict=True))
