"""Fits the shipped coefficients on simulated runs (model.md A12).

    cascade-monitor backtest fit --seeds 200-215 --out monitor/core/forecast/coefficients.py

Both models are fitted on the causal label (`runs`), five runs of eight for the weights and the
others for the calibration, whole seeds each, and then moved from the base rate of these runs, in
which something happens nearly every hour, to that of an ordinary minute.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.backtest.command import Command, progress, seeds
from monitor.backtest.fitting import base_rates, fitted, rebased, written
from monitor.backtest.rivals import MAPPED, RIVALS
from monitor.backtest.runs import MINUTES, Run, runs
from monitor.core.forecast.coefficients import HAR_PRIOR
from monitor.core.forecast.features import BASELINE_INPUTS, INPUTS, PerHorizon
from monitor.core.forecast.model import Model, Variant
from monitor.sim.parameters import Variant as Market

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

VERSION: Final = "sim-4"
ORDINARY: Final = (1e-3, 3e-3, 1e-2)
"""Base rates of an ordinary minute over 5, 15 and 60 minutes: the order of magnitude of model.md
E21 and C2, a judgement and not a count. No simulation knows how often the world sends news."""
WARM_MIN: Final = 5
"""Minutes of a run that are left out: the present moves of the price are not known yet."""
RIDGE: Final = 10.0
_EIGHTH: Final = 8
_FIT: Final = (0, 1, 3, 4, 6)
"""Of eight seeds in a row, those that fit; the others calibrate."""


class Kind(Struct, frozen=True):
    """One model to be fitted: its inputs, and where some of them come from.

    Attributes:
        rival: whose map gives `MAPPED`, or empty for ours.
        own: input whose value is the z-score of the run itself, or empty.
    """

    name: str
    inputs: tuple[str, ...]
    rival: str = ""
    own: str = ""


OURS: Final = Kind("map", INPUTS)
BASELINE: Final = Kind("B5 no map", BASELINE_INPUTS)
KINDS: Final = (
    OURS,
    Kind("B1 volatility", ("passage", "sigma_fast", "sigma_slow")),
    Kind("B2 open interest z", ("interest",), own="interest"),
    Kind("B3 funding z", ("funding",), own="funding"),
    Kind("B4 depth ratio", ("depth",)),
    BASELINE,
    Kind("B6 public recipe", INPUTS, rival="recipe"),
    Kind("B7 static profile", INPUTS, rival="static"),
    Kind("B8 oracle map", INPUTS, rival="oracle"),
)


def table(found: Sequence[Run], kind: Kind) -> tuple[Floats, Floats]:
    """Inputs (n, horizons, inputs) and labels (n, horizons) of all runs, in order."""
    x = np.concatenate([_inputs(run, kind)[WARM_MIN:] for run in found])
    y = np.concatenate([run.labels[WARM_MIN:] for run in found])
    return x.reshape(-1, *x.shape[2:]), y.reshape(-1, y.shape[-1])


def _inputs(run: Run, kind: Kind) -> Floats:
    x = run.x.copy()
    if kind.rival:
        columns = [INPUTS.index(name) for name in MAPPED]
        x[..., columns] = run.rivals[:, :, RIVALS.index(kind.rival)]
    if kind.own:
        i = ("interest", "funding").index(kind.own)
        x[..., INPUTS.index(kind.own)] = run.z[:, :, i, None]
    return x


def calibrating(found: Sequence[Run]) -> Flags:
    """Rows of `table` that calibrate, by their run's seed."""
    rows = [2 * (len(run.x) - WARM_MIN) for run in found]
    return np.repeat([run.seed % _EIGHTH not in _FIT for run in found], rows)


def variant(found: Sequence[Run], kind: Kind) -> Variant:
    """The model of a kind, fitted on these runs, at their own base rate.

    Raises:
        TooFewPositivesError: they have too few events for it.
    """
    x, y = table(found, kind)
    return fitted(x, y, held_out=calibrating(found), inputs=kind.inputs, ridge=RIDGE)


def model(found: Sequence[Run]) -> Model:
    """What is to be shipped.

    Raises:
        TooFewPositivesError: as in `variant`.
    """
    _, y = table(found, OURS)
    before = base_rates(y)
    events = np.nansum(y, axis=0).astype(int).tolist()
    rows = np.isfinite(y).sum(axis=0).tolist()
    onsets = sum(int(run.onsets.sum()) for run in found)
    names = sorted({run.variant for run in found})
    numbers = [run.seed for run in found]
    made = (
        f"simulated seeds {min(numbers)}-{max(numbers)}, markets {' and '.join(names)}, "
        f"{len(found)} runs of {len(found[0].x)} minutes, {onsets} causal onsets; positive rows "
        f"{_listed(events)} of {_listed(rows)} over 5, 15 and 60 minutes; moved from their base "
        f"rates {_rates(before)} to {_rates(ORDINARY)}"
    )
    return Model(
        version=VERSION,
        made=made,
        base=ORDINARY,
        map=rebased(variant(found, OURS), before, ORDINARY),
        baseline=rebased(variant(found, BASELINE), before, ORDINARY),
    )


def _listed(counts: list[int]) -> str:
    return "/".join(str(c) for c in counts)


def _rates(base: PerHorizon) -> str:
    return "/".join(f"{p:.3g}" for p in base)


_HEAD: Final = '''\
"""Shipped coefficients of the forecast; only numbers live here.

Written by ``cascade-monitor backtest fit`` (`monitor.backtest.fit`): ridge logistic regression per
horizon with the signs of `RISING` and `FALLING`, calibrated on seeds of their own, on the causal
label of the simulated market; `Model.made` says on what. What they are worth is in docs/skill.md.
`base` is a judgement of the order of magnitude (model.md E21 and C2), not a count.
"""

from typing import Final

from monitor.core.forecast.model import Calibration, Model, Variant

LABEL_SIGMAS: Final = 6.0
"""The baseline's move, in standard deviations of 5 minutes (model.md A12, k of the label)."""

'''


def source(found: Model) -> str:
    """`monitor/core/forecast/coefficients.py` with these numbers, before formatting."""
    return _HEAD + written(found, HAR_PRIOR)


# ---------------------------------------------------------------------------- command line


def options_of_runs(parser: argparse.ArgumentParser) -> None:
    """Options that say which runs, shared with the report."""
    parser.add_argument(
        "--variant", choices=("first", "second", "both"), default="both", help="of the market"
    )
    parser.add_argument("--minutes", type=_minutes, default=MINUTES, metavar="N", help="of a run")
    parser.add_argument(
        "--runs", type=Path, metavar="DIR", help="keep runs here, and take those that are there"
    )


def _minutes(text: str) -> int:
    if not text.isdecimal() or not 62 + WARM_MIN <= int(text) <= 1_440:
        raise argparse.ArgumentTypeError(
            f"{text!r}: at least {62 + WARM_MIN}, so that an hour's forecast can be graded"
        )
    return int(text)


def variants(options: argparse.Namespace) -> list[Market]:
    """The market variants that were asked for."""
    return ["first", "second"] if options.variant == "both" else [options.variant]


def gathered(options: argparse.Namespace, chosen: Sequence[int], about: str) -> list[Run]:
    """The runs of these seeds under the options."""
    if options.runs is not None:
        options.runs.mkdir(parents=True, exist_ok=True)
    markets = variants(options)
    with progress(about, len(chosen) * len(markets)) as done:
        return runs(chosen, markets, minutes=options.minutes, directory=options.runs, progress=done)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=seeds, default="200-215", metavar="A-B", help="a range A-B or a list A,B,C"
    )
    options_of_runs(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="F", help="Python source")


def _run(options: argparse.Namespace) -> None:
    found = model(gathered(options, options.seeds, "markets heard"))
    options.out.write_text(source(found), encoding="utf-8")
    sys.stdout.write(f"{found.made}\n{options.out}\n")


COMMAND: Final = Command("fit", "fit the coefficients on simulated runs", _arguments, _run)
