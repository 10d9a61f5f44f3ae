"""The words of the command line: which commands there are, what they take, what is no value."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Final, TypeAlias

from monitor import __version__
from monitor.backtest.command import Command as Report
from monitor.recordings import FORMATS
from monitor.sim.scenarios import NAMES

Command: TypeAlias = Callable[[argparse.Namespace], int]
"""Carries a command out and returns the exit code."""

HISTORY_MIN: Final = 60.0
"""Minutes of the picture over time, unless asked for others."""


def _speed(text: str) -> float | None:
    """``max``, or how many times faster than it was recorded."""
    return None if text == "max" else _factor(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 0")
    return int(text)


def _shock(text: str) -> float:
    """A signed ratio, or a percentage with its sign."""
    value = _number(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    if not 1e-6 <= abs(value) <= 0.3:
        raise argparse.ArgumentTypeError(
            f"{text!r}: a move from -30% to 30%, and not 0, such as -3% or -0.03"
        )
    return value


def _within(text: str) -> float:
    """Seconds from 0 to an hour."""
    value = _number(text)
    if not 0.0 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r}: seconds from 0 to 3600")
    return value


def _share(text: str) -> float:
    """A ratio from 0 to 1."""
    value = _number(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r}: a share from 0 to 1")
    return value


def _factor(text: str) -> float:
    number = _number(text)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _number(text: str) -> float:
    """What is no number is none that any range contains."""
    try:
        return float(text)
    except ValueError:
        return nan


def _size(text: str) -> tuple[int, int]:
    """``1600x900``."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: give width and height in pixels, as 1600x900")
    return int(width), int(height)


def parse(
    words: Sequence[str], commands: Mapping[str, Command], reports: Sequence[Report]
) -> argparse.Namespace:
    """What was asked for, with the function to carry it out as `command`.

    `reports` are those of ``backtest``, whose own function is `run`. Ends the process with exit
    code 2 where the words make no command.
    """
    parser = argparse.ArgumentParser(
        prog="cascade-monitor", description="Early warning of liquidation cascades."
    )
    parser.add_argument("--version", action="version", version=f"cascade-monitor {__version__}")
    names = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = names.add_parser(name, help=text, description=text)
        sub.set_defaults(command=commands[name])
        sub.add_argument("--config", type=Path, metavar="F", help="your settings (TOML)")
        return sub

    run = command("run", "live daemon on the configured venues")
    run.add_argument("--shard", default="1/1", metavar="I/N", help="own a part of the assets")

    demonstration = command("demo", "the daemon against simulated venues")
    demonstration.add_argument("--scenario", choices=NAMES, default="crash")
    demonstration.add_argument("--seed", type=_seed, default=1, metavar="N")
    demonstration.add_argument("--speed", type=_factor, default=1.0, metavar="X")
    demonstration.add_argument("--duration", type=_factor, metavar="S", help="end after S seconds")

    record = command("record", "feeds to a journal, nothing else")
    record.add_argument("--out", type=Path, required=True, metavar="DIR")
    record.add_argument("--shard", default="1/1", metavar="I/N", help="own a part of the assets")

    imports = command("import", "a public recording to a journal")
    imports.add_argument("format", choices=FORMATS)
    imports.add_argument("files", nargs="+", type=Path, metavar="FILE")
    imports.add_argument("--out", type=Path, required=True, metavar="JOURNAL")

    replay = command("replay", "a journal through the same pipeline")
    replay.add_argument("journals", nargs="+", type=Path, metavar="JOURNAL")
    replay.add_argument("--speed", type=_speed, default=None, metavar="max|X")
    replay.add_argument("--sinks", action="store_true", help="feed Redis and serve HTTP")
    replay.add_argument("--stay", action="store_true", help="keep serving after the end")
    replay.add_argument("--summary", type=Path, metavar="F", help="write the summary (JSON)")
    replay.add_argument("--dump-book", metavar="INSTRUMENT", help="print a book at the end")
    replay.add_argument("--json", action="store_true", help="print the summary as JSON")

    check = command("check-config", "effective configuration and its origins")
    check.add_argument("--shard", default="1/1", metavar="I/N")
    check.add_argument("--json", action="store_true")

    _questions(command)

    backtest = names.add_parser("backtest", help="grade the estimates, without a network")
    kinds = backtest.add_subparsers(required=True, metavar="WHAT")
    for report in reports:
        sub = kinds.add_parser(report.name, help=report.about, description=report.about)
        report.arguments(sub)
        sub.set_defaults(command=commands["backtest"], run=report.run)

    command("healthcheck", "exit 0 when the running daemon is ready")
    return parser.parse_args(_joined(words))


def _questions(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that ask a running daemon."""
    heatmap = command("heatmap", "where leverage would be force-closed, as a table or PNG")
    heatmap.add_argument("asset", metavar="ASSET", help="such as BTC")
    heatmap.add_argument("--venue", default="", metavar="V", help="one venue instead of all")
    heatmap.add_argument("--json", action="store_true", help="print the daemon's message")
    heatmap.add_argument("--png", type=Path, metavar="F", help="draw it (extra: picture)")
    heatmap.add_argument(
        "--minutes", type=_factor, metavar="N", help=f"drawn over time (default {HISTORY_MIN:g})"
    )
    heatmap.add_argument("--size", type=_size, default=(1600, 900), metavar="WxH", help="pixels")
    heatmap.add_argument("--dark", action="store_true", help="light on dark")
    where = heatmap.add_mutually_exclusive_group()
    where.add_argument("--url", metavar="URL", help="the daemon's HTTP address")
    where.add_argument("--redis", metavar="URL", help="read from Redis instead")

    stress = command("stress", "what a move of the price would set off")
    stress.add_argument("asset", metavar="ASSET", help="such as BTC")
    stress.add_argument(
        "--shock",
        type=_shock,
        required=True,
        metavar="R",
        help="of all books, such as -3%%",
    )
    stress.add_argument(
        "--within",
        type=_within,
        metavar="S",
        help="so many seconds after it, when marks have not followed yet (default: they have)",
    )
    stress.add_argument(
        "--spot-share",
        type=_share,
        metavar="R",
        help="with --within: share of the shock that is in spot as well (default: as measured)",
    )
    stress.add_argument("--json", action="store_true")
    where = stress.add_mutually_exclusive_group()
    where.add_argument("--url", metavar="URL", help="the daemon's HTTP address")
    where.add_argument("--redis", metavar="URL", help="solve it from what is published in Redis")
    where.add_argument(
        "--journal", type=Path, nargs="+", metavar="J", help="solve it at the end of a replay"
    )


def _joined(words: Sequence[str]) -> list[str]:
    """``--shock -3%`` as one word: argparse takes the second for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--shock":
            joined[-1] = f"--shock={word}"
        else:
            joined.append(word)
    return joined
