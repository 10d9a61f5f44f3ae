"""What is left of the forecast on a recorded past of five-minute samples (model.md C2, C3).

    cascade-monitor backtest history --data DIR --liquidations BTC=FILE --out DIR

`files` says which files, `labels` what is forecast, `inputs` and `map` from what, `grading` how it
is fitted and graded, and `liquidations` what the map is held against. There is no book and no print
in such data: depth, loop gain and critical shock are not part of this.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.backtest.command import Command, progress
from monitor.backtest.history.files import SAMPLE_S, HistoryError, Hours, hours, pasts, stretches
from monitor.backtest.history.grading import (
    BASELINE,
    CLIMATOLOGY,
    DRAWS,
    PATH,
    Rows,
    Walk,
    graded,
    interval,
    rows,
    walked,
)
from monitor.backtest.history.inputs import COLUMNS, Samples, samples
from monitor.backtest.history.labels import RULES
from monitor.backtest.history.liquidations import against, confirmed, liquidated
from monitor.backtest.history.map import instrument_of
from monitor.backtest.history.tables import tables
from monitor.events import NS

Floats = NDArray[np.float64]

EVENTS: Final = 5
"""Largest moves that are listed of each direction."""
_HOUR: Final = 12
_DAY_NS: Final = 86_400 * NS
_SHOWN: Final = ("volatility", BASELINE, PATH, "map")
_NEAR: Final = ("near map", "near blind", "near recipe", "hour")
_AROUND_MIN: Final = (-60, -15, 15, 60)


def report(
    found: Sequence[Samples], liquidations: Mapping[str, Hours], *, draws: int = DRAWS
) -> dict[str, Any]:
    """All figures, for `tables` and for the file."""
    out: dict[str, Any] = {"assets": _described(found), "labels": {}}
    walks: dict[str, tuple[Rows, Walk]] = {}
    for name, rule in RULES.items():
        table = rows(found, name)
        walk = walked(table)
        walks[name] = table, walk
        out["labels"][name] = {
            "rule": msgspec.to_builtins(rule),
            "onsets": {
                str(tier + 1): [
                    sum(int(np.nansum(s.onsets[name][:, d, tier])) for s in found) for d in (0, 1)
                ]
                for tier in range(len(rule.tiers))
            },
            "days": len({at // _DAY_NS for at in table.at[table.onset].tolist()}),
            "horizons": graded(table, walk, draws=draws),
            "sides": _sides(found, name, draws),
        }
    out["events"] = _events(found, walks, liquidations)
    out["liquidations"] = {}
    for asset, known in sorted(liquidations.items()):
        own = [s for s in found if s.stretch.asset == asset]
        onsets = {"onsets": confirmed(own, known)}
        out["liquidations"][asset] = against(own, known, draws=draws) | onsets
    return out


def _described(found: Sequence[Samples]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for s in found:
        asset = s.stretch.asset
        about = out.setdefault(
            asset,
            {
                "graded": [],
                "samples": 0,
                "tiers_known": bool(instrument_of(asset).tiers),
                "funding_known": bool(np.isfinite(s.stretch.funding).any()),
                "onsets": dict.fromkeys(RULES, 0),
            },
        )
        about["graded"].append([_time(s.at[0]), _time(s.at[-1])])
        about["samples"] += len(s.at)
        for name in RULES:
            about["onsets"][name] += int(np.nansum(s.onsets[name][:, :, 0]))
    return out


def _time(at: int) -> str:
    return str(np.datetime64(int(at) // NS, "s"))[:16].replace("T", " ")


def _sides(found: Sequence[Samples], label: str, draws: int) -> dict[str, Any]:
    """How often the side that broke had more fuel near the mark, a sample before the onset.

    Beside it how often it was the direction of the hour before.
    """
    out: dict[str, Any] = {}
    for column in _NEAR:
        more, day = [], []
        for s in found:
            near = s.x[label][:, :, 0, COLUMNS.index(column)]
            for i, d in np.argwhere(s.onsets[label][1:, :, 0] == 1.0).tolist():
                if np.isfinite(near[i]).all() and near[i, 0] != near[i, 1]:
                    more.append(float(near[i, d] > near[i, 1 - d]))
                    day.append(int(s.at[i + 1]) // _DAY_NS)
        if not more:
            continue
        each, place = np.unique(day, return_inverse=True)
        chance = np.random.Generator(np.random.PCG64(11))
        drawn = [np.ones(len(each))]
        drawn += [
            np.bincount(chance.integers(0, len(each), len(each)), minlength=len(each)).astype(float)
            for _ in range(draws)
        ]
        weight = np.array(drawn)[:, place]
        share = (weight @ np.array(more)) / weight.sum(axis=1)
        out[column] = {"onsets": len(more), "days": len(each), "share": interval(share)}
    return out


# -------------------------------------------------------------------------- largest moves


def _events(
    found: Sequence[Samples],
    walks: Mapping[str, tuple[Rows, Walk]],
    liquidations: Mapping[str, Hours],
) -> list[dict[str, Any]]:
    """The largest hours of the asset with the most open interest, one a day, after a fit."""
    usd = {
        asset: max(
            float(np.nanmean(s.stretch.price * s.stretch.interest))
            for s in found
            if s.stretch.asset == asset
        )
        for asset in {s.stretch.asset for s in found}
    }
    largest = max(sorted(usd), key=lambda asset: usd[asset])
    moves = []
    for number, s in enumerate(found):
        if s.stretch.asset != largest:
            continue
        skipped = len(s.stretch.at) - len(s.at)
        price, interest = s.stretch.price[skipped:], s.stretch.interest[skipped:]
        changes = np.log(price[_HOUR:] / price[:-_HOUR])
        moves += [
            (abs(float(c)), float(c), float(interest[i + _HOUR] / interest[i] - 1.0), number, i)
            for i, c in enumerate(changes)
            if np.isfinite(c) and np.isfinite(interest[[i, i + _HOUR]]).all()
        ]
    moves.sort(key=lambda m: (-m[0], m[3], m[4]))
    days: set[int] = set()
    out: list[dict[str, Any]] = []
    for _, change, interest_change, number, i in moves:
        s = found[number]
        at = int(s.at[i])
        same = sum((event["move"] > 0.0) == (change > 0.0) for event in out)
        if same == EVENTS or not any(
            walk.weeks and at >= walk.weeks[0] for _, walk in walks.values()
        ):
            continue
        if {at // _DAY_NS, (at + _HOUR * SAMPLE_S * NS) // _DAY_NS} & days:
            continue
        days |= {at // _DAY_NS, (at + _HOUR * SAMPLE_S * NS) // _DAY_NS}
        out.append(
            {
                "asset": largest,
                "begin": _time(at),
                "move": change,
                "interest_change": interest_change,
                "liquidated": liquidated(liquidations.get(largest), at, change),
                "said": _around(found, walks, number, i, change),
            }
        )
    return sorted(out, key=lambda event: event["begin"])


def _around(
    found: Sequence[Samples],
    walks: Mapping[str, tuple[Rows, Walk]],
    number: int,
    i: int,
    change: float,
) -> dict[str, Any]:
    """Ratio of what was said to the base rate, by label, model and minutes from the begin."""
    direction = 0 if change < 0.0 else 1
    out: dict[str, Any] = {}
    for label, (table, walk) in walks.items():
        start = int(np.flatnonzero(table.piece == 2 * number + direction)[0])
        usual = walk.p[CLIMATOLOGY][:, -1]
        out[label] = {}
        for name in _SHOWN:
            said: dict[str, float | None] = {}
            for minutes in _AROUND_MIN:
                j = i + minutes * 60 // SAMPLE_S
                inside = 0 <= j < len(found[number].at)
                p = walk.p[name][start + j, -1] if inside else np.nan
                said[str(minutes)] = float(p / usual[start + j]) if np.isfinite(p) else None
            out[label][name] = said
    return out


# ---------------------------------------------------------------------------- command line


def _named(text: str) -> tuple[str, Path]:
    """``BTC=FILE``; for argparse."""
    asset, sign, path = text.partition("=")
    if not (asset and sign and path):
        raise argparse.ArgumentTypeError(f"{text!r}: give it as ASSET=FILE, such as BTC=hours.csv")
    return asset, Path(path)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="CSV with a header, oldest row first: <ASSET>_oi_5m.csv[.gz] with t (Unix ms), "
        "oi (base units) and oi_usd or price; <ASSET>_funding.csv[.gz], optional, with "
        "ts (Unix ms) and rate (per interval)",
    )
    parser.add_argument(
        "--liquidations",
        type=_named,
        action="append",
        default=[],
        metavar="ASSET=FILE",
        help="CSV of hourly liquidations to compare the map with: timestamp (Unix ms, begin of "
        "the hour), longUsd and shortUsd; once for each asset",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("history-report"),
        metavar="DIR",
        help="where history.json and history.md go (default %(default)s)",
    )


def heard_from(directory: Path) -> list[Samples]:
    """Every stretch recorded in a directory, in order of assets and time.

    Raises:
        HistoryError: a file is not usable, or no stretch is long enough.
    """
    pieces = [stretch for past in pasts(directory) for stretch in stretches(past)]
    found = []
    with progress("stretches heard", len(pieces)) as done:
        for piece in pieces:
            heard = samples(piece)
            if heard is not None:
                found.append(heard)
            done(f"{piece.asset} from {_time(piece.at[0])}{'' if heard else ': too short'}")
    if not found:
        raise HistoryError(f"{directory}: no stretch of four days without a gap of an hour")
    return found


def _run(options: argparse.Namespace) -> None:
    known = {asset: hours(file) for asset, file in options.liquidations}
    found = heard_from(options.data)
    strange = sorted(set(known) - {s.stretch.asset for s in found})
    if strange:
        raise HistoryError(f"{options.data}: liquidations of {strange[0]}, but no open interest")
    result = report(found, known)
    options.out.mkdir(parents=True, exist_ok=True)
    body = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (options.out / "history.json").write_bytes(body)
    text = tables(result)
    (options.out / "history.md").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{text}{options.out / 'history.json'}\n")


COMMAND: Final = Command("history", "grade what recorded history can feed", _arguments, _run)
