"""A client of a pure wire: says things, and keeps what it is told."""

import json

import msgspec

from monitor.sim.market import Book, Step
from monitor.sim.wire import WIRES
from monitor.sim.wire.base import Request

PATHS = {
    "binance": "/public/stream",
    "bybit": "/v5/public/linear",
    "okx": "/ws/v5/public",
    "hyperliquid": "/ws",
}


def decoded(data):
    try:
        return json.loads(data)
    except ValueError:
        return data.decode()


class Client:
    """One connection; `told` is everything that came, decoded, oldest first."""

    def __init__(self, source, venue, *, path=None, query=None, wire=None):
        self.market = source
        self.wire = wire or WIRES[venue](source)
        self.session = self.wire.connect(path or PATHS[venue], query or {})
        self.told = [decoded(data) for data in self.session.opened()]
        self.clock = 0

    def say(self, message):
        """Send, and return the answers."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.clock += 10**9
        answers = [decoded(data) for data in self.session.receive(text, self.clock)]
        self.told += answers
        return answers

    def run(self, seconds, *, others=()):
        """Step the market and return what was pushed meanwhile."""
        start = len(self.told)
        for _ in range(round(seconds * 1000 / self.market.step_ms)):
            step = self.market.step()
            for message in self.wire.publish(step):
                for client in (self, *others):
                    if message.topic in client.session.topics:
                        client.told.append(decoded(client.session.render(message)))
        return self.told[start:]

    def get(self, path, body=None, **query):
        """The status and decoded answer of an HTTP request."""
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        query = {key: str(value) for key, value in query.items()}
        answer = self.wire.http(Request(method, path, query, data, self.clock))
        return answer.status, decoded(answer.body)


class Quiet:
    """A market of one asset that changes only when a test says so; the wires' `Source`."""

    def __init__(self, model, *, step_ms=100):
        self._model = model
        self.assets, self.venues = model.assets, model.venues
        self.at, self.step_ms = model.at, step_ms
        self.silent = False
        self.before = []
        self.held = []
        self.bids = {}
        self.asks = {}
        self.pending = ({}, {})
        self.happened = ([], [], [])
        self.fields = {}

    def set(self, *, bids=None, asks=None):
        for side, pending, changes in (
            (self.bids, self.pending[0], bids),
            (self.asks, self.pending[1], asks),
        ):
            for tick, lots in (changes or {}).items():
                pending[tick] = lots
                if lots:
                    side[tick] = lots
                else:
                    side.pop(tick, None)

    def step(self):
        self.at += self.step_ms * 1_000_000
        happened, self.happened = self.happened, ([], [], [])
        return Step(self.at, *happened)

    def contract(self, venue, asset):
        return self._model.contract(venue, asset)

    def peek_book(self, venue, asset):
        bids, asks = sorted(self.bids.items(), reverse=True), sorted(self.asks.items())
        return Book(self.at, venue, asset, bids, asks)

    def book(self, venue, asset):
        self.pending = ({}, {})
        return self.peek_book(venue, asset)

    def book_changes(self, venue, asset):
        bids, asks = self.pending
        self.pending = ({}, {})
        return Book(self.at, venue, asset, sorted(bids.items()), sorted(asks.items()))

    def ticker(self, venue, asset):
        ticker = self._model.ticker(venue, asset)
        return msgspec.structs.replace(ticker, at=self.at, **self.fields)

    def past(self, venue, asset):  # noqa: ARG002
        return self.before

    def past_interest(self, venue, asset):  # noqa: ARG002
        return self.held

    def is_silent(self, venue):  # noqa: ARG002
        return self.silent
