"""How likely a move, or a flow, of a given size is within a time (model.md A10).

The structural probability of a cascade is that of reaching the critical point of the cascade map,
by price or by one-sided flow, averaged over what is not known of depth and fuel.
"""

from math import erfc, isnan
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

VOL_OF_VOL: Final = 0.45
"""Standard deviation of the logarithm of a volatility around its forecast."""

# Gauss-Hermite for a standard normal variable; written out, so that every machine has the same.
_HALF: Final = (1.154405394739968, 2.366759410734541, 3.750439717725742)
_NODES: Final[Floats] = np.array([*(-x for x in reversed(_HALF)), 0.0, *_HALF])
_BESIDE: Final = (2.4012317860501267e-01, 3.0757123967586480e-02, 5.4826885597221794e-04)
_WEIGHTS: Final[Floats] = np.array([*reversed(_BESIDE), 0.4571428571428571, *_BESIDE])

_FINE: Final = 1_000
_FAR: Final = 8.0
_ERFC: Final[Floats] = np.array(
    [erfc(i / _FINE) for i in range(round(_FAR * _FINE) + 1)] + [0.0, 0.0]
)
_FALL: Final[Floats] = np.append(np.diff(_ERFC), 0.0)
_ROOT2: Final = 2.0**0.5
_LEAST: Final = 1e-300


def erfc_of(z: Floats) -> Floats:
    """The complementary error function of `z` >= 0, infinity included; any shape.

    Interpolated in a table of `math.erfc`: relative error below 5e-5, never increasing in `z`,
    and 0 beyond z = 8, where the function is 1e-29.
    """
    scaled: Floats = np.minimum(z, _FAR + 1.0 / _FINE)
    scaled *= _FINE
    index = scaled.astype(np.intp)
    scaled -= index
    scaled *= _FALL.take(index)
    scaled += _ERFC.take(index)
    return scaled


def first_passage(
    x: Floats,
    sigma: Floats | float,
    tau: Floats | float,
    *,
    vol_of_vol: Floats | float = VOL_OF_VOL,
    jump_rate: float = 0.0,
    jump_size: float = 0.0,
) -> Floats:
    """Probability that a driftless price moves at least `x` one way within `tau`, in [0, 1].

    By the reflection principle; never increasing in `x`, never decreasing in `sigma`, `tau`,
    `jump_rate` and `jump_size`.

    Args:
        x: log distances; 0 or less is reached for certain, infinity never. Any shape.
        sigma: mean volatility over `tau`, per root second; broadcasts with `x` like the rest.
        tau: seconds.
        vol_of_vol: standard deviation of its logarithm, integrated over 7 nodes.
        jump_rate: jumps per second in the direction of the shock.
        jump_size: mean log size of a jump, exponential; 0 without jumps.
    """
    spread = np.asarray(sigma * np.sqrt(tau) * _ROOT2)[..., None]
    v = np.asarray(vol_of_vol)[..., None]
    scale = np.maximum(spread * np.exp(v * _NODES - 0.5 * v * v), _LEAST)
    away = np.maximum(np.asarray(x, dtype=np.float64), 0.0)
    parts = erfc_of(away[..., None] / scale)
    parts *= _WEIGHTS
    reached: Floats = parts.sum(axis=-1)
    if jump_rate > 0.0 and jump_size > 0.0:
        jumped = -np.expm1(-jump_rate * np.asarray(tau) * np.exp(-away / jump_size))
        reached = reached + jumped - reached * jumped
    return np.where(away > 0.0, np.minimum(reached, 1.0), 1.0)


def flow_passage(shocks: Floats, sigma_flow: float, tau: Floats | float) -> Floats:
    """Probability that net one-sided taker flow reaches `shocks` USD within `tau` seconds.

    `sigma_flow` is the standard deviation of signed taker flow in USD per root second, from sums
    over a minute, so that the persistence of flow is in it.
    """
    spread = np.maximum(sigma_flow * np.sqrt(tau) * _ROOT2, _LEAST)
    wanted = np.maximum(shocks, 0.0)
    return np.where(wanted > 0.0, np.minimum(erfc_of(wanted / spread), 1.0), 1.0)


def structural(
    by_price: Floats,
    shocks: Floats,
    weights: Floats,
    *,
    tau: Floats,
    sigma_flow: float | None = None,
) -> Floats:
    """Probability that the critical point is reached, shape (horizons, ...).

    Args:
        by_price: chance that a price alone moves as far as the critical move x0* of each node of
            depth survival and map scale (`first_passage`), shape (horizons, ..., nodes); 0 where a
            node has no critical point, which then contributes nothing.
        shocks: critical shock Q* in USD, shape (..., nodes), infinity likewise.
        weights: of the nodes, same shape, non-negative, summing to at most 1.
        tau: the horizons in seconds, shape (horizons,).
        sigma_flow: as in `flow_passage`; None while it is not known, which leaves price alone.
    """
    assert not isnan(shocks.sum()), "no critical point is infinity, not NaN"
    if sigma_flow is None:
        by_flow = np.where(shocks > 0.0, 0.0, 1.0)
    else:
        by_flow = flow_passage(shocks, sigma_flow, tau.reshape(-1, *[1] * shocks.ndim))
    found: Floats = np.minimum((np.maximum(by_price, by_flow) * weights).sum(axis=-1), 1.0)
    return found
