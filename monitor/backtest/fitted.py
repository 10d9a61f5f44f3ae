"""Prior of the simulated market, fitted to the true positions of training seeds only.

What `fit` does here with the simulator's positions is what an operator does with Hyperliquid's,
whose positions are public. Baselines get the same knowledge: the climatology is one of them.

    python -m monitor.backtest.fitted --seeds 0-9

prints the fields of a new `monitor.core.heatmap.priors.SIMULATED`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.backtest.tape import Tape, Truth, hear, record
from monitor.core.heatmap.calibration import CLIMATOLOGY_STEP, DEFAULT_PRIOR, Prior
from monitor.core.heatmap.grid import STEP, bin_of, mirrored
from monitor.core.heatmap.map import Map, Parameters
from monitor.core.heatmap.pooling import BUCKET
from monitor.core.heatmap.priors import SIMULATED

Floats = NDArray[np.float64]

_WINDOW = 130
"""Buckets of 25 bp from the mark outwards that the mix is fitted on; beyond them is one more."""
_ROUNDS = 300
_CLIMATOLOGY = 100


def fit(tapes: Sequence[Tape], parameters: Parameters) -> Prior:
    """Leverage mix, liquidatable share and distance climatology of the tapes' positions.

    The mix is found by expectation maximisation: true USD per bucket as a mixture of what each
    node alone would have left standing, given the same past.
    """
    nodes = DEFAULT_PRIOR.leverage
    flat = tuple([1 / len(nodes)] * len(nodes))
    start = Prior(nodes, (flat, flat), (1.0, 1.0), DEFAULT_PRIOR.climatology, "flat")
    made: list[list[Floats]] = [[], []]
    true: list[list[Floats]] = [[], []]
    liquidatable, interest = np.zeros(2), np.zeros(2)
    nearer = np.zeros((2, _CLIMATOLOGY))
    for tape in tapes:
        maps = [Map(i, prior=start, parameters=parameters) for i in tape.instruments]
        for m, candles, interests in zip(maps, tape.candles, tape.interests, strict=True):
            m.history(candles, interests)
        for truth in _heard(tape, maps):
            for i, m in enumerate(maps):
                for side in (0, 1):
                    away, base = _free(truth, i, side)
                    interest[side] += m.interest
                    liquidatable[side] += base.sum()
                    edges = np.arange(1, _CLIMATOLOGY + 1) * CLIMATOLOGY_STEP
                    nearer[side] += [float(base[away <= x].sum()) for x in edges]
                    cells, counted = _compared(m, side, away=away, base=base)
                    made[side].append(cells / m.interest)
                    true[side].append(counted / m.interest)
    mixes, shares = [], []
    for side in (0, 1):
        exposure = np.concatenate(made[side], axis=1)
        theta = _mixture(exposure, np.concatenate(true[side]))
        # Each node entered with an equal share; what it weighs now is its share of the mix.
        mixes.append(tuple(round(float(x), 4) for x in theta / theta.sum()))
        shares.append(round(float(liquidatable[side] / interest[side]), 4))
    climate = [tuple(round(float(x), 6) for x in nearer[s] / liquidatable[s]) for s in (0, 1)]
    return Prior(
        leverage=nodes,
        mix=(mixes[0], mixes[1]),
        share=(shares[0], shares[1]),
        climatology=(climate[0], climate[1]),
        source=f"fitted on simulated seeds {sorted({t.seed for t in tapes})}",
    )


def _heard(tape: Tape, maps: Sequence[Map]) -> Iterator[Truth]:
    """The truths of a tape, each after the maps have heard what came before it."""
    due = list(tape.truths)
    for second in tape.seconds:
        if due and second.at > due[0].at:
            yield due.pop(0)
        hear(maps[second.venue], second, None)
    yield from due


def _free(truth: Truth, venue: int, side: int) -> tuple[Floats, Floats]:
    """Distance and base size of one venue's positions without a stop."""
    here = (np.array(truth.venue) == venue) & (np.array(truth.side) == side)
    here &= ~np.array(truth.has_stop)
    return np.array(truth.distance)[here], np.array(truth.base)[here]


def _compared(m: Map, side: int, *, away: Floats, base: Floats) -> tuple[Floats, Floats]:
    """Per bucket away from the mark and beyond: quantity by node, and what is true."""
    assert m.cohorts is not None, "the tape has begun"
    cohorts = m.cohorts[side]
    here = bin_of(m.mark_price) if side == 0 else mirrored(bin_of(m.mark_price))
    first = here - _WINDOW * BUCKET
    cells = cohorts.window(first, _WINDOW * BUCKET).reshape(cohorts.rows, _WINDOW, BUCKET)
    near = cells.sum(axis=2)[:-1]
    far = (cohorts.by_row()[:-1] - near.sum(axis=1))[:, None]
    edges = np.arange(_WINDOW + 1) * BUCKET * STEP
    counted = np.histogram(away, edges, weights=base)[0][::-1]
    rest = base.sum() - counted.sum()
    return np.concatenate((near, np.maximum(far, 0.0)), axis=1), np.append(counted, rest)


def _mixture(exposure: Floats, true: Floats) -> Floats:
    """Node weights maximising the Poisson likelihood of `true`, by multiplicative updates."""
    theta: Floats = np.ones(len(exposure))
    total = np.maximum(exposure.sum(axis=1), 1e-12)
    for _ in range(_ROUNDS):
        said = np.maximum((theta[:, None] * exposure).sum(axis=0), 1e-12)
        theta = theta * (exposure * (true / said)).sum(axis=1) / total
    return theta


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit on fresh runs and print the file."""
    parser = argparse.ArgumentParser(description="Fit the simulated market's prior.")
    parser.add_argument("--seeds", default="0-9")
    options = parser.parse_args(arguments)
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    tapes = [record(s, variant=v, minutes=16) for v in ("first", "second") for s in seeds]
    prior = fit(tapes, SIMULATED.parameters)
    for name in prior.__struct_fields__:
        sys.stdout.write(f"{name}={getattr(prior, name)!r},\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
