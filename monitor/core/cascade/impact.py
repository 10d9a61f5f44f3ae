"""Where a shock stops: with the closes it forces, by the book alone, by the square-root law.

Distances are logarithmic (`monitor.core.cascade.curves`), money is USD.
"""

from math import isnan, nan, sqrt
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import DISTANCES, POINTS, STEP, Floats
from monitor.core.cascade.loop import checked, load_of, marked

IMPACT_FACTOR: Final = 1.15
"""Y of the square-root law, published between 1 and 1.3 (model.md A8)."""

DISAGREEMENT: Final = 5.0
"""Ratio from which walking the book and the square-root law contradict each other."""

MARK_WINDOW_S: Final = 150.0
"""How long a basis average takes to follow the last price entirely (model.md A13.2)."""

_GRID_END: Final = float(DISTANCES[-1])


def inverse(curve: Floats, amounts: Floats) -> Floats:
    """The smallest distances within which a curve reaches these amounts; nan where it does not."""
    at = curve.searchsorted(amounts)
    inside = np.minimum(at, POINTS - 1)
    before = np.maximum(inside - 1, 0)
    low, high = curve[before], curve[inside]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        part = (amounts - low) / (high - low)
    distances = np.where(at > 0, STEP * (before + part), 0.0)
    return np.where(at < POINTS, distances, np.nan)


# -------------------------------------------------------------------- with forced closes


def stop_of_flow(
    depth: Floats,
    fuel: Floats,
    usd: Floats,
    *,
    survival: float,
    scale: float = 1.0,
    psi: float,
    beta: float = 1.0,
) -> Floats:
    """Where the price stops when somebody sells these amounts into the book; nan beyond the grid.

    The least u with ``W D(u) = usd + psi s L(beta u)`` that is reached from 0 (model.md A8).
    """
    load = load_of(survival, scale, psi)
    surplus = checked(depth, "depth") - load * marked(checked(fuel, "fuel"), beta)
    amounts = usd / survival
    at = np.maximum.accumulate(surplus).searchsorted(amounts)
    inside = np.clip(at, 1, POINTS - 1)
    low, high = surplus[inside - 1], surplus[inside]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        distances = STEP * (inside - 1 + (amounts - low) / (high - low))
    return np.where(at == 0, 0.0, np.where(at < POINTS, distances, np.nan))


def stop_of_requote(
    depth: Floats,
    fuel: Floats,
    move: float,
    *,
    survival: float,
    scale: float = 1.0,
    psi: float,
    beta: float = 1.0,
) -> float:
    """Where the price stops when news moves the whole book by a distance; nan beyond the grid.

    The least u from the move on with ``W D(u - move) = psi s L(beta u)`` (model.md A8). Curves that
    are none (`loop.checked`) are not refused here.
    """
    pushed = load_of(survival, scale, psi) * marked(fuel, beta)
    reached = DISTANCES + move
    surplus = depth - np.interp(reached, DISTANCES, pushed)
    at = int((surplus >= 0.0).argmax())
    low, high = float(surplus[at - 1]), float(surplus[at])
    if not high >= 0.0 or reached[at] > _GRID_END + 1e-9:
        return nan
    return move + (STEP * (at - high / (high - low)) if at > 0 else 0.0)


def amplification(stops: Floats, alone: Floats) -> Floats:
    """How many times farther the price goes than the shock alone takes it; nan beyond the grid.

    `alone` holds the moves given to `stop_of_requote`, or what the amounts given to `stop_of_flow`
    walk the book by themselves (`slippage`).
    """
    quiet = alone <= 0.0
    return np.where(quiet, np.where(stops > 0.0, np.nan, 1.0), stops / np.where(quiet, 1.0, alone))


# ------------------------------------------------------------------------------- one order


class Impact(Struct, frozen=True):
    """How far one order moves the price, as log distances, by two models.

    Attributes:
        book: by walking the book; None where it does not hold the order within the grid.
        square_root: by the square-root law; None while volatility or volume is unknown.
        used: the larger one, which risk is computed with; None if the book cannot say.
        impact_model_disagreement: they differ by more than `DISAGREEMENT`; None if one is unknown.
    """

    book: float | None
    square_root: float | None
    used: float | None
    impact_model_disagreement: bool | None


def slippage(depth: Floats, usd: Floats, *, survival: float = 1.0) -> Floats:
    """How far orders of these amounts walk the book; nan where it does not hold them."""
    if not survival > 0.0:
        raise ValueError(f"survival {survival} is not positive")
    return inverse(depth, usd / survival)


def impact(
    depth: Floats,
    usd: float,
    *,
    survival: float = 1.0,
    daily_volatility: float | None,
    daily_volume_usd: float | None,
) -> Impact:
    """The impact of one order, with the square-root law as a bound of sanity (model.md A8)."""
    walked = float(slippage(checked(depth, "depth"), np.array([usd]), survival=survival)[0])
    book = None if isnan(walked) else walked
    root = None
    if daily_volatility is not None and daily_volume_usd:
        root = IMPACT_FACTOR * daily_volatility * sqrt(usd / daily_volume_usd)
    if root is None:
        return Impact(book, None, book, None)
    if book is None:
        # More than the book holds: only a law that puts it off the grid as well agrees.
        return Impact(None, root, None, root * DISAGREEMENT < _GRID_END)
    apart = max(book, root) > DISAGREEMENT * min(book, root)
    return Impact(book, root, max(book, root), apart)


def mark_pass_through(elapsed_s: float, spot_share: float) -> float:
    """Share of a move that the mark has taken over (model.md A13.2).

    `spot_share` is how much of it spot made as well: that part is in the index at once, the rest
    arrives with the basis average.
    """
    if not (0.0 <= spot_share <= 1.0 and elapsed_s >= 0.0):
        raise ValueError(f"spot share {spot_share} after {elapsed_s} s")
    return spot_share + (1.0 - spot_share) * min(1.0, elapsed_s / MARK_WINDOW_S)
