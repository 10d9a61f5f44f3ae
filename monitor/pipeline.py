"""The pure wiring of codecs and engine: one input in, messages and commands out.

Live, replay, simulation and backtest all run this and differ only in where inputs come from and
whether commands are obeyed.
"""

from hashlib import sha256

import msgspec

from monitor.config import PipelineConfig
from monitor.core.engine import Engine
from monitor.events import (
    Close,
    Command,
    Desync,
    Fetch,
    Frame,
    Input,
    Lost,
    Message,
    Opened,
    Reply,
    Send,
    Tick,
)
from monitor.venues import VENUES
from monitor.venues.base import Codec, Out

_COMMANDS = frozenset({Send, Fetch, Close})


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
        self.engine = Engine(config.engine)
        self.inputs: dict[type, int] = dict.fromkeys((Frame, Reply, Opened, Lost, Tick), 0)
        self.unrouted = 0
        self._by_feed = {
            feed.name: codec for codec in self.codecs.values() for feed in codec.feeds
        }
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
        for message in messages:
            self._hash.update(self._encoder.encode(message))
            self._hash.update(b"\n")
        return messages, commands

    def _handle(
        self, at: int, out: Out, messages: list[Message], commands: list[Command]
    ) -> None:
        for item in out:
            if type(item) in _COMMANDS:
                commands.append(item)  # type: ignore[arg-type]  # a Send, Fetch or Close
            else:
                self._publish(at, item, messages, commands)  # type: ignore[arg-type]

    def _publish(self, at: int, event, messages: list[Message], commands: list[Command]) -> None:
        for result in self.engine.process(at, event):
            if isinstance(result, Desync):
                venue, _, symbol = result.instrument.partition(":")
                self._handle(at, self.codecs[venue].resync(symbol, at), messages, commands)
            else:
                messages.append(result)

    def _unrouted(self) -> Out:
        self.unrouted += 1
        return []
