"""``make bench``: what the daemon can do, beside what Python can do and what a peer does.

Every measurement runs in a process of its own, pinned to one core, and rounds are interleaved:
all candidates once, then all again. Only the ratios within one run mean anything.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from tests.bench import peer
from tests.bench.machine import cores, describe
from tests.bench.report import Bar, Section, markdown, show, spread, thousands
from tests.bench.stream import Stream, recorded, synthetic

ROUNDS = 5
WORKER_LIMIT_S = 120
SERVER_LIMIT_S = 240
LOAD_S = 12.0
Rounds = dict[str, list[dict[str, Any]]]

NAMES = {
    "minimal": "minimal pipeline",
    "ours": "cascade-monitor",
    "no journal": "cascade-monitor, journal off",
    "cryptofeed": "cryptofeed",
}


class Bench:
    """Runs workers one at a time on the core that is kept for them."""

    def __init__(self, rounds: int, directory: Path, console: Console) -> None:
        self.rounds = rounds
        self.directory = directory
        self.server_core, self.core = cores()
        self.console = console
        self.peer = peer.version()
        self.streams: dict[str, Path] = {}
        self.bars: list[Bar] = []

    def add(self, stream: Stream) -> Path:
        path = self.directory / f"stream{len(self.streams)}"
        stream.save(path)
        self.streams[stream.name] = path
        return path

    def run(self, task: str, *arguments: str) -> dict[str, Any]:
        """One worker; its failure is ours."""
        command = [sys.executable, "-m", "tests.bench.worker", str(self.core), task, *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=WORKER_LIMIT_S, check=True
            )
        except subprocess.CalledProcessError as error:
            sys.exit(f"the benchmark {task} {arguments[0]} failed:\n{error.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def repeat(self, task: str, stream: Path) -> list[dict[str, Any]]:
        """A worker that is compared with nothing, a few times."""
        self.console.print(f"[dim]{task}[/dim]")
        return [self.run(task, str(stream)) for _ in range(min(3, self.rounds))]

    def compare(
        self, task: str, candidates: list[str], *arguments: str, rounds: int | None = None
    ) -> Rounds:
        """All candidates in interleaved rounds. They must end with the same best bid and ask."""
        found: Rounds = defaultdict(list)
        for number in range(rounds or self.rounds):
            self.console.print(f"[dim]{task}, round {number + 1} of {rounds or self.rounds}[/dim]")
            for candidate in candidates:
                if candidate != "cryptofeed" or self.peer:
                    found[candidate].append(self.run(task, candidate, *arguments))
        bests = {tuple(figures["best"]) for rounds in found.values() for figures in rounds}
        if len(bests) != 1:
            sys.exit(f"{task}: the books do not agree: {bests}")
        return found

    @contextmanager
    def server(self, stream: Path) -> Iterator[str]:
        """A server process with a stream; yields its port."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.bench.server"),
                *(str(stream), str(self.server_core), str(SERVER_LIMIT_S)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()
            process.communicate()


def per_core(rounds: list[dict[str, Any]]) -> list[float]:
    """Frames a second of processor time."""
    return [1e6 / figures["cpu_us"] for figures in rounds]


def ratios(found: Rounds, candidate: str, base: str, key: str) -> list[float]:
    """How many times faster than the base, round by round; by `rate` or by `cpu_us`."""
    pairs = zip(found[candidate], found[base], strict=True)
    if key == "rate":
        return [a["rate"] / b["rate"] for a, b in pairs]
    return [b["cpu_us"] / a["cpu_us"] for a, b in pairs]


def rate_rows(found: Rounds) -> list[list[str]]:
    rows = []
    for candidate, rounds in found.items():
        rows.append(
            [
                NAMES[candidate],
                thousands(per_core(rounds)),
                spread((figures["cpu_us"] for figures in rounds), 1),
                spread(ratios(found, candidate, "minimal", "cpu_us")),
                spread(ratios(found, candidate, "cryptofeed", "cpu_us"), 1)
                if "cryptofeed" in found
                else "-",
                thousands(figures["rate"] for figures in rounds),
            ]
        )
    return rows


RATE_COLUMNS = [
    "frames/s per core",
    "CPU µs/frame",
    "x minimal",
    "x cryptofeed",
    "frames/s by the clock",
]


def handlers(bench: Bench) -> list[Section]:
    """(a) Frames in memory to a book."""
    sections = []
    rows = []
    latency = []
    for number, (name, path) in enumerate(bench.streams.items()):
        rounds = min(3, bench.rounds) if number else bench.rounds
        candidates = ["minimal", "ours", "cryptofeed"]
        found = bench.compare("handler", candidates, str(path), rounds=rounds)
        rows += [[f"{name}: {row[0]}", *row[1:]] for row in rate_rows(found)]
        for candidate, taken in found.items():
            figures = [spread((r[key] for r in taken), 1) for key in ("p50_us", "p99_us")]
            latency.append([f"{name}: {NAMES[candidate]}", *figures])
    first = next(iter(bench.streams.values()))
    steps = bench.repeat("step", first)
    latency.append(
        [
            "synthetic: cascade-monitor with journal and engine",
            *(spread((r[key] for r in steps), 1) for key in ("p50_us", "p99_us")),
        ]
    )
    title = "Decoder and book: frames in memory"
    sections.append(Section(title, ["stream: pipeline", *RATE_COLUMNS], rows))
    sections.append(
        Section("Time to handle one depth update (µs)", ["stream: pipeline", "p50", "p99"], latency)
    )
    return sections


def whole(bench: Bench, stream: Path) -> Section:
    """(b) The live path over a loopback websocket, and the bars on it."""
    with bench.server(stream) as port:
        found = bench.compare("whole", list(NAMES), str(stream), port)
    bench.bars.append(bar(found, "minimal", 0.5))
    bench.bars.append(bar(found, "cryptofeed", 3.0))
    return Section(
        "Whole live path: frames over a loopback websocket",
        ["pipeline", *RATE_COLUMNS],
        rate_rows(found),
        [
            (
                "cascade-monitor receives, stamps, queues, journals (on disk at the end), "
                "decodes, keeps the book and runs the engine with its ticks; the others receive, "
                "decode and keep the book."
            ),
        ],
    )


def bar(found: Rounds, base: str, least: float) -> Bar:
    what = f"whole live path against {NAMES[base]}, per core"
    text = f"at least {least:g}x"
    if base not in found:
        return Bar(what, text, None, met=False)
    shown = ratios(found, "ours", base, "cpu_us")
    by_clock = spread(ratios(found, "ours", base, "rate"))
    measured = median(shown)
    shown_text = f"{spread(shown)}; by the clock {by_clock}"
    return Bar(what, text, measured, met=measured >= least, text=shown_text)


def publishing(bench: Bench, stream: Path) -> Section:
    """(c) What a tick costs."""
    found = bench.repeat("publish", stream)
    bids, asks = found[0]["levels"]

    def row(what: str, key: str) -> list[str]:
        return [what, spread((r[key] for r in found), 0)]

    ticks = median(r["tick_us"] for r in found)
    return Section(
        "Publishing an asset with 4 venues",
        ["what", "µs"],
        [
            row("pooled depth, 10 distances, both sides", "pooled_us"),
            row("check of the deepest book, once a tick", "check_us"),
            row("mean tick (every fourth publishes, every twentieth reports)", "tick_us"),
        ],
        [
            (
                f"Books of {bids:,} + {asks:,}, 1000, 400 and 20 levels a side. At 4 ticks "
                f"a second the asset takes {ticks * 4 / 1e4:.2f} % of a core."
            ),
        ],
    )


def update(bench: Bench, stream: Path) -> Section:
    """(c) What an asset costs each second beside its books."""
    found = bench.repeat("update", stream)

    def row(what: str, key: str) -> list[str]:
        ratios = (r[key] / r["depth_us"] for r in found)
        return [what, spread((r[key] for r in found), 0), spread(ratios, 1)]

    measured = median(r["whole_us"] for r in found)
    text = f"{spread((r['whole_us'] for r in found), 0)} µs"
    what = "one full update of an asset with 4 venues"
    bench.bars.append(Bar(what, "under 1000 µs", measured, measured < 1000.0, text))
    solver = spread(r["plain_us"] / r["solver_us"] for r in found)
    map_mb = spread((r["map_mb"] for r in found), 1)
    return Section(
        "Map and risk of an asset with 4 venues, once a second",
        ["what", "µs", "x one depth update"],
        [
            row("four maps to estimates", "maps_us"),
            row("pooled, and published with intervals", "pooled_us"),
            row("curves, both directions, forecast, alerts, quantities", "risk_us"),
            row("one full update: all of these", "whole_us"),
            row("the slowest of 120", "most_us"),
            row("of it the solver, 12 nodes, both directions", "solver_us"),
            row("beside it: the same flow solver in plain numpy", "plain_us"),
            row("beside it: one depth update, decoder and book", "depth_us"),
        ],
        [
            (
                "Processor time in the 45th to 165th second of a simulated crash, seen over the "
                f"four wires. The plain solver takes {solver} times as long as ours, which also "
                f"finds the gain, the requote and what is closed. A map holds {map_mb} MB."
            ),
        ],
    )


def memory(bench: Bench, stream: Path) -> Section:
    """(d) Memory after many frames."""
    each = 500_000 if bench.rounds > 1 else 100_000
    bench.console.print("[dim]memory[/dim]")
    points = bench.run("memory", str(stream), "3", str(each))["points"]
    rise = points[-1]["peak_mb"] / points[0]["peak_mb"] - 1
    what = "peak memory from the first third of the frames to the last"
    bench.bars.append(Bar(what, "rises by 2 % at most", rise, rise <= 0.02, f"{rise:+.1%}"))
    return Section(
        "Memory of the process over time, one instrument",
        ["frames", "resident MB", "peak MB", "CPU µs/frame"],
        [
            [
                f"{p['frames']:,}",
                f"{p['resident_mb']:.1f}",
                f"{p['peak_mb']:.1f}",
                f"{p['cpu_us']:.1f}",
            ]
            for p in points
        ],
        [
            (
                "Peak since the point before, the stream itself (48 MB) included. "
                "Played at ten times real speed: 310 frames and 4 ticks a second."
            ),
        ],
    )


def growth(bench: Bench) -> Section:
    """(d) From 3 to 300 instruments of the simulator's load mode."""
    counts = (3, 30, 300)
    played = {count: bench.directory / f"load{count}" for count in counts}
    bench.console.print("[dim]load[/dim]")
    for count, journal in played.items():
        journal.mkdir()
        bench.run("load", str(journal), str(count), str(LOAD_S))
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for number in range(min(3, bench.rounds)):
        bench.console.print(f"[dim]growth, round {number + 1}[/dim]")
        for count, journal in played.items():
            found[count].append(bench.run("growth", str(journal), str(counts[-1] // count)))
    factors = [a["cpu_us"] / b["cpu_us"] for a, b in zip(found[300], found[3], strict=True)]
    what = "CPU per frame with 300 instruments against 3"
    measured = median(factors)
    bench.bars.append(Bar(what, "at most 1.5x", measured, measured <= 1.5, spread(factors)))
    held = {count: median(r["held_mb"] for r in rounds) for count, rounds in found.items()}
    return Section(
        "Growth with the number of instruments, equal total frames",
        ["instruments", "CPU µs/frame, ticks included", "MB held", "MB for each one more"],
        [
            [
                str(count),
                spread((r["cpu_us"] for r in rounds), 1),
                f"{held[count]:.0f}",
                "-" if count == 3 else f"{(held[count] - held[3]) / (count - 3):.2f}",
            ]
            for count, rounds in found.items()
        ],
        [
            (
                f"{found[300][0]['frames']:,} frames each: {LOAD_S:.0f} s of the simulator's load "
                "mode (`monitor/sim/wire/load.py`), fewer instruments so much more often, each "
                "time with new books. An instrument is an asset of its own on Bybit, with a map; "
                "it has 17 frames, 4 ticks and one publication a second. Its start is in it."
            ),
        ],
    )


def journal(bench: Bench, stream: Path) -> Section:
    """(e) Writing, reading and replaying."""
    found = bench.repeat("journal", stream)

    def row(what: str, key: str, digits: int) -> list[str]:
        return [what, spread((r[key] for r in found), digits)]

    return Section(
        "Journal, one core",
        ["what", "figure"],
        [
            row("written, MB/s of records (encoded, compressed, synchronised)", "write_mb_s", 0),
            row("read, MB/s of records (unpacked, parsed)", "read_mb_s", 0),
            row("compression, x", "ratio", 2),
            row("replay, inputs/s (read, codec, engine, ticks, publishing)", "replay_rate", 0),
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print Markdown to stdout")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="1 for a quick look")
    options = parser.parse_args()
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(options.rounds, Path(directory), progress)
        made = synthetic()
        streams = [made, *recorded()]
        lines = [
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {describe()}",
            f"cryptofeed {bench.peer}" if bench.peer else no_peer(),
            f"server on core {bench.server_core}, measured processes on core {bench.core}"
            if bench.core >= 0
            else "processes could not be pinned: server and client may share a core",
            f"median of {bench.rounds} interleaved rounds, elsewhere of 3 (least-most)",
            *(stream.describe() for stream in streams),
        ]
        first = bench.add(made)
        live = whole(bench, first)
        for stream in streams[1:]:
            bench.add(stream)
        sections = [
            live,
            *handlers(bench),
            publishing(bench, first),
            memory(bench, first),
            update(bench, first),
            growth(bench),
            journal(bench, first),
        ]
    bars = Section("Bars", ["what", "bar", "measured", ""], [b.row() for b in bench.bars])
    if options.markdown:
        print(markdown(lines, [bars, *sections]), end="")
    else:
        show(lines, [*sections, bars], Console())


def no_peer() -> str:
    log = Path(".venv-bench/cryptofeed.log")
    why = log.read_text(encoding="utf-8").strip().splitlines()[-1:] if log.exists() else []
    return f"cryptofeed NOT MEASURED: not installed here. {' '.join(why)}".strip()


if __name__ == "__main__":
    main()
