"""The pure wiring of codecs and engine: one input in, messages and commands out.

Live, replay, simulation and backtest all run this and differ only in where inputs come from and
whether commands are obeyed.
"""

import re
from collections import Counter
from hashlib import sha256
from typing import Final, get_args

import msgspec

from monitor.config import PipelineConfig
from monitor.core.engine import Engine, Result
from monitor.core.instrument import InstrumentState
from monitor.events import (
    Close,
    Command,
    Desync,
    Fetch,
    Frame,
    Input,
    Lost,
    Market,
    Message,
    Opened,
    Reply,
    Restored,
    Send,
    Tick,
)
from monitor.venues import VENUES
from monitor.venues.base import Codec, Out

_COMMANDS: Final = frozenset({Send, Fetch, Close})
_EVENTS: Final[tuple[type, ...]] = get_args(Market)


class Pipeline:
    """Everything between the raw inputs and the messages that are published.

    Attributes:
        codecs: by venue.
        engine: the state of the market.
        inputs: how many inputs of each type came.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self.codecs: dict[str, Codec] = {
            name: VENUES[name](venue, config.instruments) for name, venue in config.venues.items()
        }
        self.engine = Engine(
            config.engine,
            (
                (f"{name}:{symbol}", asset)
                for name, venue in config.venues.items()
                for symbol, asset in venue.instruments.items()
            ),
        )
        self.inputs: dict[type, int] = dict.fromkeys(
            (Frame, Reply, Opened, Lost, Tick, Restored), 0
        )
        self.unrouted = 0
        self._by_feed = {feed.name: codec for codec in self.codecs.values() for feed in codec.feeds}
        self._hash = sha256()
        self._encoder = msgspec.json.Encoder()

    @property
    def digest(self) -> str:
        """SHA-256 over every message published so far, in order."""
        return self._hash.hexdigest()

    def step(self, record: Input) -> tuple[list[Message], list[Command]]:
        """Take one input."""
        messages: list[Message] = []
        commands: list[Command] = []
        self.inputs[type(record)] += 1
        out: Out
        match record:
            case Frame():
                codec = self._by_feed.get(record.feed)
                out = codec.receive(record) if codec else self._unrouted()
                self._handle(record.at, out, messages, commands)
            case Tick(at):
                for codec in self.codecs.values():
                    self._handle(at, codec.tick(at), messages, commands)
                self._publish(at, record, messages, commands)
            case Reply():
                codec = self.codecs.get(record.venue)
                out = codec.reply(record) if codec else self._unrouted()
                self._handle(record.at, out, messages, commands)
            case Opened(at, feed):
                self._publish(at, record, messages, commands)
                codec = self._by_feed.get(feed)
                out = codec.opened(feed, at) if codec else self._unrouted()
                self._handle(at, out, messages, commands)
            case Lost(at, feed, _):
                self._publish(at, record, messages, commands)
                codec = self._by_feed.get(feed)
                out = codec.lost(feed, at) if codec else self._unrouted()
                self._handle(at, out, messages, commands)
            case Restored(at):
                self._publish(at, record, messages, commands)
        for message in messages:
            self._hash.update(self._encoder.encode(message))
            self._hash.update(b"\n")
        return messages, commands

    def summary(self) -> dict[str, object]:
        """What came of the inputs so far; plain values, ready for JSON."""
        engine = self.engine
        errors: Counter[str] = Counter()
        for (_, reason), count in engine.rejected.items():
            errors[reason] += count
        if self.unrouted:
            errors["unrouted"] = self.unrouted
        return {
            "inputs": {_snake(kind): count for kind, count in self.inputs.items()},
            "events": {_snake(kind): engine.events[kind] for kind in _EVENTS},
            "decode_errors": dict(sorted(errors.items())),
            "instruments": {
                name: _instrument_summary(state) for name, state in engine.instruments.items()
            },
            "assets": {
                name: {
                    "instruments": [state.spec.name for state in asset.instruments],
                    "risk": msgspec.to_builtins(asset.risk, str_keys=True),
                }
                for name, asset in engine.assets.items()
            },
            "digest": self.digest,
        }

    def _handle(self, at: int, out: Out, messages: list[Message], commands: list[Command]) -> None:
        process = self.engine.process
        for item in out:
            if type(item) in _COMMANDS:
                commands.append(item)  # type: ignore[arg-type]  # a Send, Fetch or Close
            elif results := process(at, item):  # type: ignore[arg-type]  # seldom any
                self._deliver(at, results, messages, commands)

    def _publish(
        self,
        at: int,
        event: Market | Opened | Lost | Tick | Restored,
        messages: list[Message],
        commands: list[Command],
    ) -> None:
        self._deliver(at, self.engine.process(at, event), messages, commands)

    def _deliver(
        self, at: int, results: Result, messages: list[Message], commands: list[Command]
    ) -> None:
        for result in results:
            if isinstance(result, Desync):
                venue, _, symbol = result.instrument.partition(":")
                self._handle(at, self.codecs[venue].resync(symbol, at), messages, commands)
            else:
                messages.append(result)

    def _unrouted(self) -> Out:
        self.unrouted += 1
        return []


def _instrument_summary(state: InstrumentState) -> dict[str, object]:
    book = state.book
    bid, ask = book.best()
    bids, asks = book.size()
    return {
        "book": {
            "state": book.state,
            "best_bid": bid,
            "best_ask": ask,
            "bids": bids,
            "asks": asks,
            "gaps": book.gaps,
            "resyncs": book.resyncs,
            "checksum": book.checksum(state.quantity_decimals),
        },
        "mark": state.mark,
        "index": state.index,
        "last_price": state.last_price,
        "funding_rate": state.funding.rate_8h if state.funding else None,
        "open_interest_base": state.open_interest_base,
        "trades": state.trades,
        "transfers": state.transfers,
        "liquidations": {
            "long_usd": state.liquidated_usd["long"],
            "short_usd": state.liquidated_usd["short"],
        },
    }


def _snake(kind: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
