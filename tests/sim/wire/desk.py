"""Our daemon's pipeline against the pure wires: no sockets, no clock, one thread of events."""

from collections import Counter, deque

import msgspec

from monitor.config import PipelineConfig
from monitor.events import NS, Close, Fetch, Frame, Lost, Opened, Reply, Send, Tick
from monitor.pipeline import Pipeline
from monitor.sim.market import Market, Step
from monitor.sim.scenarios import scenario
from monitor.sim.wire import WIRES
from monitor.sim.wire.base import Request
from monitor.sim.wire.faults import NONE, Cut, Injector
from tests.builders import config, engine_config

SYMBOLS = {"binance": "{}USDT", "bybit": "{}USDT", "okx": "{}-USDT-SWAP", "hyperliquid": "{}"}
RECONNECT_NS = NS


def market(name="crash", **options):
    options = {"seed": 3, "step_ms": 250, "population": 0.2} | options
    return Market(scenario(name), **options)


class Desk:
    """A pipeline whose every command is answered by a wire, one step later where it is HTTP."""

    def __init__(self, source, *, venues=tuple(WIRES), faults=NONE, depths=None, **wire_options):
        self.market = source
        self.now = source.at
        chosen = {
            name: msgspec.structs.replace(
                config().venues[name],
                ws_url=f"ws://{name}",
                http_url=f"http://{name}",
                book_depth=(depths or {}).get(name, config().venues[name].book_depth),
                instruments={SYMBOLS[name].format(a.name): a.name for a in source.assets},
            )
            for name in venues
        }
        self.config = PipelineConfig(chosen, engine_config(), [])
        self.pipeline = Pipeline(self.config)
        self.faults = faults
        self.injectors = {v: Injector(faults, v, source.at) for v in venues}
        self.wires = {
            v: WIRES[v](source, skew_ms=faults.skew_ms, **wire_options.get(v, {})) for v in venues
        }
        self.specs = {f.name: (v, f) for v in venues for f in self.pipeline.codecs[v].feeds}
        self.open = {}
        self.opening = dict.fromkeys(self.specs, self.now)
        self.replies = deque()
        self.frames = []
        self.records = []
        self.lost = Counter()
        self.messages = []
        self.pinged = {}

    # ------------------------------------------------------------------------------ driving

    def run(self, seconds):
        end = self.market.at + round(seconds * NS)
        while self.market.at < end:
            step = self.market.step()
            self.now = self.market.at
            self._account(step)
            self._connect()
            self._answer()
            for wire in self.wires.values():
                for message in wire.publish(step):
                    for session in list(wire.subscribers.get(message.topic, ())):
                        self._deliver(session, message)
            self._keep_alive()
            self.step(Tick(self.now))
        return self

    def idle(self, seconds):
        """Time passes for the daemon while the market stands still."""
        for _ in range(round(seconds * 4)):
            self.now += NS // 4
            self._answer()
            self.step(Tick(self.now))
        return self

    def step(self, record):
        messages, commands = self.pipeline.step(record)
        self.messages += messages
        for command in commands:
            self._obey(command)

    def _account(self, step: Step):
        self.records += [(self.market.at, record) for record in step.liquidations]

    def _connect(self):
        for feed, at in list(self.opening.items()):
            if at > self.now:
                continue
            venue, spec = self.specs[feed]
            del self.opening[feed]
            path = spec.url.removeprefix(f"ws://{venue}")
            session = self.wires[venue].connect(path, {})
            link = self.injectors[venue].link(self.now)
            self.open[feed] = (session, link)
            self.pinged[feed] = self.now
            self.step(Opened(self.now, feed))
            self._receive(feed, session.opened())

    def _deliver(self, session, message):
        feed = next((f for f, (s, _) in self.open.items() if s is session), None)
        if feed is None:
            return
        link = self.open[feed][1]
        for data in link.deliver(self.now, message, session.render(message)):
            if isinstance(data, Cut):
                self._lose(feed, "cut")
                return
            self._receive(feed, [data])
            if feed not in self.open:
                return

    def _receive(self, feed, frames):
        for data in frames:
            self.frames.append((feed, data))
            self.step(Frame(self.now, feed, data))

    def _lose(self, feed, reason):
        session, _ = self.open.pop(feed)
        session.closed()
        self.lost[reason] += 1
        self.opening[feed] = self.now + RECONNECT_NS
        self.step(Lost(self.now, feed, reason))

    def _obey(self, command):
        match command:
            case Send(feed, data):
                if feed in self.open:
                    self._say(feed, data)
            case Fetch():
                self._fetch(command)
            case Close(feed, reason):
                if feed in self.open:
                    self._lose(feed, reason)

    def _say(self, feed, text):
        session = self.open[feed][0]
        venue = self.specs[feed][0]
        if self.market.is_silent(venue):
            return
        # The shell spaces messages; here they would all come in the same instant.
        answers = session.receive(text, 0)
        session._received.clear()
        assert session.closing is None, session.closing
        self._receive(feed, answers)

    def _fetch(self, fetch):
        path, _, rest = fetch.path.partition("?")
        query = dict(part.split("=", 1) for part in rest.split("&") if part)
        method = "POST" if fetch.body else "GET"
        injector = self.injectors[fetch.venue]
        fault = injector.http(self.now)
        due = self.now + NS // 4 + round(fault.delay_s * NS)
        if fault.retry_after_s is not None:
            self.replies.append((due, fetch, 429, b"{}"))
            return
        if self.market.is_silent(fetch.venue):
            self.replies.append((due, fetch, 503, b""))
            return
        request = Request(method, path, query, fetch.body, self.now)
        answer = self.wires[fetch.venue].http(request)
        self.replies.append((due, fetch, answer.status, answer.body))

    def _answer(self):
        waiting, self.replies = self.replies, deque()
        for due, fetch, status, body in waiting:
            if due > self.now:
                self.replies.append((due, fetch, status, body))
            else:
                self.step(Reply(self.now, fetch.venue, fetch.key, status, body))

    def _keep_alive(self):
        for feed in list(self.open):
            spec = self.specs[feed][1]
            if spec.ping and self.now - self.pinged[feed] >= spec.ping_after_s * NS:
                self.pinged[feed] = self.now
                self._say(feed, spec.ping)

    # ------------------------------------------------------------------------------ looking

    def state(self, venue, asset):
        return self.pipeline.engine.instruments[f"{venue}:{SYMBOLS[venue].format(asset)}"]

    def book(self, venue, asset):
        """The daemon's book in the simulator's ticks and lots."""
        contract = self.market.contract(venue, asset)
        book = self.state(venue, asset).book
        sides = []
        for side in (0, 1):
            rows = []
            for tick, quantity in book.levels(side):
                price = tick * book.tick / contract.tick_usd
                lots = quantity / contract.lot_base
                assert abs(price - round(price)) < 1e-3, (venue, asset, tick)
                assert abs(lots - round(lots)) < 1e-3, (venue, asset, quantity)
                rows.append((round(price), round(lots)))
            sides.append(rows)
        return sides

    def differences(self, venue, asset, depth):
        """Levels within the venue's visible depth where the daemon and the truth differ."""
        whole = self.market.peek_book(venue, asset)
        found = []
        for ours, true, sign in zip(
            self.book(venue, asset), (whole.bids, whole.asks), (-1, 1), strict=True
        ):
            visible = true[:depth]
            reach = visible[-1][0]
            seen = [(t, n) for t, n in ours if sign * t <= sign * reach]
            found += sorted(set(seen) ^ set(visible))
        return found
