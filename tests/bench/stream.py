"""What the benchmarks feed on: a seeded synthetic stream, and real recordings where there are some.

The synthetic stream has the statistics of the one behind the first measurements of this project:
Binance USD-M combined frames of one symbol, per depth update two trades, per ten of them a mark
price; 53 / 77 / 109 changed levels in the 10th / 50th / 90th percentile; a REST snapshot of 1000
levels a side; a whole ``U``/``u``/``pu`` chain and a book that is never crossed.

It is a loop: its last updates, the seam, bring the book back to the snapshot and the chain back to
its beginning, so that it can be played for hours without a gap.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import msgspec
from msgspec import Struct

from monitor.events import Frame, Reply
from monitor.recordings import inputs
from tests.builders import config, instrument

SYMBOL = "BTCUSDT"
TICK = 0.1
SEAM_LEVELS = 100
"""Changed levels in one update of the seam."""

RECORDINGS = Path("../shared/data/hftbacktest_raw/usdm")


class Stream(Struct):
    """A REST depth snapshot and the frames around it; `seam` leads back to the first frame."""

    name: str
    snapshot: bytes
    frames: list[bytes]
    seam: list[bytes] = []

    def save(self, path: Path) -> None:
        """Write it for the processes that measure; a frame contains no line feed."""
        counts = b"%d" % len(self.frames)
        lines = [self.name.encode(), counts, self.snapshot, *self.frames, *self.seam]
        path.write_bytes(b"\n".join(lines))

    @classmethod
    def load(cls, path: Path) -> "Stream":
        name, count, snapshot, *frames = path.read_bytes().split(b"\n")
        cut = int(count)
        return cls(name.decode(), snapshot, frames[:cut], frames[cut:])

    def loop(self) -> Iterator[bytes]:
        """The frames again and again, without end."""
        while True:
            yield from self.frames
            yield from self.seam

    def describe(self) -> str:
        """Its size, and the percentiles of changed levels in a depth update."""
        decoder = msgspec.json.Decoder(_Shape)
        updates = [decoder.decode(f).data for f in self.frames if b'"depthUpdate"' in f[:90]]
        changes = [len(update.b) + len(update.a) for update in updates]
        tenths = quantiles(changes, n=10)
        size = sum(map(len, self.frames)) / 1e6
        return (
            f"{self.name}: {len(self.frames):,} frames, {size:.1f} MB, {len(changes):,} of them "
            f"depth updates with {tenths[0]:.0f}/{tenths[4]:.0f}/{tenths[8]:.0f} levels "
            "(10th/50th/90th percentile)"
        )


class _Data(Struct):
    b: list[msgspec.Raw]
    a: list[msgspec.Raw]


class _Shape(Struct):
    data: _Data


# ---------------------------------------------------------------------------------- synthetic


class _Market:
    """A book that is always whole, as whole ticks and thousandths of a coin."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.home = self.bid = 670_375
        self.ask = self.bid + 1
        self.sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for side, best, away in ((0, self.bid, -1), (1, self.ask, 1)):
            tick = best
            for _ in range(1000):
                self.sides[side][tick] = self.quantity()
                tick += away * (1 if chance.random() < 0.8 else 2)

    def quantity(self) -> int:
        return 1 + int(self.chance.lognormvariate(4.5, 1.5))

    def update(self) -> tuple[dict[int, int], dict[int, int]]:
        """Move the touch, change some levels, and return the changes of both sides."""
        chance = self.chance
        wanted = max(4, round(chance.lognormvariate(math.log(77), 0.281)))
        before = (self.bid, self.ask)
        self.bid += round(chance.gauss((self.home - self.bid) * 0.0005, 2.5))
        self.ask = self.bid + chance.choice((1, 1, 1, 2, 3))
        changes: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for tick in range(self.bid + 1, before[0] + 1):
            if tick in self.sides[0]:
                changes[0][tick] = 0
        for tick in range(before[1], self.ask):
            if tick in self.sides[1]:
                changes[1][tick] = 0
        changes[0][self.bid] = self.quantity()
        changes[1][self.ask] = self.quantity()
        while len(changes[0]) + len(changes[1]) < wanted:
            side = chance.random() < 0.5
            away = 1 + self.distance()
            tick = self.ask + away if side else self.bid - away
            gone = chance.random() < 0.3
            changes[side][tick] = 0 if gone else self.quantity()
        for side in (0, 1):
            self.apply(side, changes[side])
        return changes

    def distance(self) -> int:
        """How far from the touch, in ticks: most changes are near, some are not."""
        share = self.chance.random()
        if share < 0.75:
            return int(self.chance.expovariate(1 / 60))
        if share < 0.97:
            return int(self.chance.expovariate(1 / 3000))
        return int(self.chance.random() * 60_000)

    def apply(self, side: int, changes: dict[int, int]) -> None:
        levels = self.sides[side]
        for tick, quantity in changes.items():
            if quantity:
                levels[tick] = quantity
            else:
                levels.pop(tick, None)


class _Writer:
    """Frames of one symbol with their times and numbers."""

    def __init__(self) -> None:
        self.at_ms = 1_760_000_000_000
        self.last = self.first = 9_000_000_000_000
        self.trade_id = 3_000_000_000

    def depth(self, changes: tuple[dict[int, int], dict[int, int]], last: int | None = None) -> str:
        previous, self.last = self.last, last or self.last + 150
        bids, asks = (_levels(sorted(side.items())) for side in changes)
        return (
            f'{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":{self.at_ms + 3},'
            f'"T":{self.at_ms},"s":"{SYMBOL}","U":{previous + 1},"u":{self.last},"pu":{previous},'
            f'"b":[{bids}],"a":[{asks}],"st":1}}}}'
        )

    def trade(self, tick: int, quantity: int, maker: str) -> str:
        self.trade_id += 1
        return (
            f'{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":{self.at_ms + 2},'
            f'"a":{self.trade_id},"s":"{SYMBOL}","p":"{_price(tick)}","q":"{quantity / 1000:.3f}",'
            f'"f":{self.trade_id},"l":{self.trade_id},"T":{self.at_ms},"m":{maker},"st":1}}}}'
        )

    def mark(self, tick: int) -> str:
        return (
            f'{{"stream":"btcusdt@markPrice@1s","data":{{"e":"markPriceUpdate",'
            f'"E":{self.at_ms},"s":"{SYMBOL}","p":"{tick / 10 + 0.013:.8f}",'
            f'"i":"{tick / 10 + 21.7:.8f}","P":"{tick / 10 - 3.1:.8f}","r":"0.00010000",'
            f'"T":{self.at_ms - self.at_ms % 28_800_000 + 28_800_000},"st":1}}}}'
        )


def synthetic(seed: int = 7, depth_updates: int = 20_000) -> Stream:
    """The stream of a seed: 3.1 frames for each depth update, and the seam."""
    chance = random.Random(seed)
    market, writer = _Market(chance), _Writer()
    start = [dict(side) for side in market.sides]
    snapshot = (
        f'{{"lastUpdateId":{writer.last},"E":{writer.at_ms},"T":{writer.at_ms},'
        f'"bids":[{_levels(sorted(start[0].items(), reverse=True))}],'
        f'"asks":[{_levels(sorted(start[1].items()))}]}}'
    )
    frames = []
    for number in range(depth_updates):
        writer.at_ms += 100
        frames.append(writer.depth(market.update()))
        for _ in range(2):
            buy = chance.random() < 0.5
            tick = market.ask if buy else market.bid
            frames.append(writer.trade(tick, market.quantity(), "false" if buy else "true"))
        if number % 10 == 9:
            frames.append(writer.mark(market.bid))
    seam = _seam(market, start, writer)
    return Stream(
        f"synthetic, seed {seed}",
        snapshot.encode(),
        [frame.encode() for frame in frames],
        [frame.encode() for frame in seam],
    )


def _seam(market: _Market, start: list[dict[int, int]], writer: _Writer) -> list[str]:
    """First remove what the snapshot does not have, then restore what it has: never crossed."""
    gone = [(s, t, 0) for s in (0, 1) for t in market.sides[s] if t not in start[s]]
    back = [(s, t, q) for s in (0, 1) for t, q in start[s].items() if market.sides[s].get(t) != q]
    todo = [*gone, *back]
    frames = []
    for begin in range(0, len(todo), SEAM_LEVELS):
        changes: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for side, tick, quantity in todo[begin : begin + SEAM_LEVELS]:
            changes[side][tick] = quantity
        final = writer.first if begin + SEAM_LEVELS >= len(todo) else None
        frames.append(writer.depth(changes, final))
    return frames


def _price(tick: int) -> str:
    return f"{tick // 10}.{tick % 10}0"


def _levels(levels: list[tuple[int, int]]) -> str:
    return ",".join(f'["{_price(tick)}","{quantity / 1000:.3f}"]' for tick, quantity in levels)


# ----------------------------------------------------------------------------------- recorded


def recorded() -> Iterator[Stream]:
    """The depth updates of real recordings of BTCUSDT, and the snapshot they were recorded with.

    Only these, since the others were recorded from streams that the daemon does not use
    (``@trade``, ``@bookTicker``) or that a peer does not know.
    """
    for days in (("20230404.dat", "20230405.dat"), ("20240718", "20240719")):
        files = [RECORDINGS / f"btcusdt_{day}.gz" for day in days]
        if not all(file.exists() for file in files):
            continue
        whole = config()
        base = msgspec.structs.replace(_bare(whole), instruments=[instrument(SYMBOL)])
        snapshot = b""
        frames = []
        for record in inputs("hftbacktest", files, base)[1]:
            if isinstance(record, Frame) and b'"depthUpdate"' in record.data[:90]:
                frames.append(record.data)
            elif isinstance(record, Reply) and not snapshot:
                snapshot = record.data
        yield Stream(f"recorded {days[0][:8]}-{days[1][6:8]}", snapshot, frames)


def _bare(whole):
    from monitor.config import PipelineConfig

    return PipelineConfig(whole.venues, whole.engine, [])
