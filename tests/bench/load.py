"""The simulator's wires without sockets and clocks: what the daemon would hear of them."""

import time
from pathlib import Path

from monitor.events import Input, Tick
from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS
from monitor.sim.scenarios import scenario
from monitor.sim.wire.load import LoadMarket
from tests.bench.ours import recorder
from tests.sim.wire.desk import Desk

TICK_NS = 250_000_000
EPOCH_NS = 1_760_000_000 * 1_000_000_000


class Wire(Desk):
    """Our pipeline against the wires, four ticks a second; `inputs` is all that it was given."""

    def __init__(self, source, **options):
        self.inputs: list[Input] = []
        self.ticked = 0
        super().__init__(source, **options)

    def step(self, record):
        if type(record) is Tick:
            if record.at // TICK_NS == self.ticked:
                return
            self.ticked = record.at // TICK_NS
        self.inputs.append(record)
        super().step(record)
        self.messages.clear()
        self.frames.clear()

    def check(self):
        """Every book is true to its venue, and nothing was refused or lost on the way."""
        engine = self.pipeline.engine
        states = {name: state.book.state for name, state in engine.instruments.items()}
        assert set(states.values()) == {"synced"}, states
        assert not engine.rejected, engine.rejected
        assert not self.lost, self.lost


def record(directory: Path, instruments: int, seconds: float) -> None:
    """A journal of what so many instruments of Bybit say in the simulator's load mode.

    Bybit, because its books come by the socket: Binance allows so few snapshots that 300 books take
    a minute.
    """
    source = LoadMarket(instruments, venues=("bybit",), epoch_ns=EPOCH_NS)
    wire = Wire(source, venues=("bybit",)).run(seconds)
    wire.check()
    writer = recorder(directory, wire.config)
    for number, made in enumerate(wire.inputs):
        writer.write(made)
        while writer.queued > 8 and number % 100 == 0:
            time.sleep(0.001)
    writer.close()
    assert writer.lost_slow == writer.lost_disk == 0


def asset(seconds: float) -> Wire:
    """One asset on four venues, so many seconds into a simulated crash."""
    market = Market(scenario("crash"), seed=1, assets=ASSETS[:1], step_ms=250, epoch_ns=EPOCH_NS)
    wire = Wire(market).run(seconds)
    wire.check()
    return wire
