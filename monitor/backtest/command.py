"""What a report has to offer to be a subcommand of `cascade-monitor backtest`.

A module of this package has a `COMMAND`, and `monitor.cli` lists it.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SEEDS_MAX: Final = 1_000


class Command(Struct, frozen=True):
    """One subcommand.

    Attributes:
        name: the word on the command line.
        about: one line of help.
        arguments: adds its options to a parser.
        run: carries it out and prints its result; whatever it raises, the command line explains.
    """

    name: str
    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def seeds(text: str) -> list[int]:
    """``100-119`` or ``3,7,9``; for argparse."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        found = []
    if not found or len(found) > SEEDS_MAX or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give seeds as a range such as 100-119 or a list such as 3,7,9"
        )
    return found


@contextmanager
def progress(about: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, else one line of standard error for each thing done."""
    if not sys.stderr.isatty():
        yield lambda done: print(f"{about}: {done}", file=sys.stderr, flush=True)  # noqa: T201
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(about, total=total)
        yield lambda done: bar.update(task, advance=1, description=f"{about}: {done}")
