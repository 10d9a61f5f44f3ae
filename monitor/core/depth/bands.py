"""Usable depth of an asset: resting USD by distance from the mid price, over its venues."""

from collections.abc import Iterable

import numpy as np

from monitor.core.instrument import InstrumentState
from monitor.events import Band, Depth, VenueDepth

DISTANCES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Distances from the mid price, as ratios, at which depth is published."""

_DISTANCES = np.array(DISTANCES)


def venue_depth(state: InstrumentState) -> VenueDepth | None:
    """Depth of one instrument around its own mid price; None unless its book is synced."""
    mid = state.book.mid()
    if mid is None:
        return None
    bid, bid_known = state.book.notional_within(0, mid, _DISTANCES)
    ask, ask_known = state.book.notional_within(1, mid, _DISTANCES)
    columns = zip(
        DISTANCES, bid.tolist(), ask.tolist(), bid_known.tolist(), ask_known.tolist(), strict=True
    )
    return VenueDepth(state.spec.name, mid, [Band(*column) for column in columns])


def pooled_depth(states: Iterable[InstrumentState]) -> Depth | None:
    """Depth of an asset over all its instruments; None if no book is synced.

    Each instrument counts by the distance from its own mid price, since arbitrage keeps the
    distances, not the prices, together.
    """
    venues, missing = [], []
    for state in states:
        depth = venue_depth(state)
        if depth is None:
            missing.append(state.spec.name)
        else:
            venues.append(depth)
    if not venues:
        return None
    bands = [
        Band(
            distance,
            sum(row.bid_usd for row in rows),
            sum(row.ask_usd for row in rows),
            bid_complete=not missing and all(row.bid_complete for row in rows),
            ask_complete=not missing and all(row.ask_complete for row in rows),
        )
        for distance, *rows in zip(DISTANCES, *(venue.bands for venue in venues), strict=True)
    ]
    return Depth(bands, venues, missing)
