"""What every codec shares: the watchdog of each stream, requests, refusals, small helpers."""

from itertools import pairwise

import msgspec
import pytest

from monitor.config import VenueConfig
from monitor.events import (
    NS,
    Close,
    Fetch,
    Frame,
    Gap,
    Instrument,
    Listed,
    OpenInterest,
    Rejected,
    Reply,
    Send,
    Silence,
    Syncing,
)
from monitor.venues.base import (
    FRAME_BYTES_MAX,
    REPAIR_PATIENCE_MAX_S,
    REPLY_BYTES_MAX,
    REPLY_PATIENCE_S,
    RETRY_MAX_S,
    STREAM_PATIENCE_S,
    Codec,
    FeedSpec,
    HttpSpec,
    Operation,
    Out,
    Requests,
    Stream,
    is_positive,
    multiplier_of,
    per_8h,
    spread,
)

AT = 1_790_000_000 * NS
FEED = "toy.ws.0"
CHANNELS = {"book": 60.0, "mark": 60.0, "liquidations": None}


class Toy(Codec):
    """A codec whose messages are ``channel:symbol``, or a command to go wrong."""

    venue = "toy"
    batch_max = 4

    def __init__(self, config: VenueConfig, known: list[Instrument]) -> None:
        super().__init__(config, known)
        self.feeds = [FeedSpec(FEED, "wss://toy.test")]
        self.http = HttpSpec("https://toy.test", weight=10, window_s=1.0)
        self.forgotten: list[str] = []
        self.numbers: list[int] = []
        for symbol in self.assets:
            for channel, patience in CHANNELS.items():
                self._add(f"{channel}:{symbol}", symbol, channel, FEED, patience_s=patience)

    def _decode(self, frame: Frame) -> Out:
        text = frame.data.decode()
        if text == "overflow":
            raise OverflowError
        if text in self.streams:
            return self._hear(self.streams[text], frame.at)
        return msgspec.json.decode(frame.data, type=list[Gap])  # type: ignore[return-value]

    def _answer(self, reply: Reply) -> Out:
        if reply.key == "list":
            rows = msgspec.json.decode(reply.data, type=list[Instrument])
            return self._list(rows, reply.at)
        value = msgspec.json.decode(reply.data, type=float)
        return [OpenInterest("toy:A", reply.at, value, None)]

    def _message(self, operation: Operation, streams: list[Stream], number: int) -> str:
        self.numbers.append(number)
        return "+-"[operation == "unsubscribe"] + ",".join(stream.topic for stream in streams)

    def _forget_book(self, symbol: str) -> None:
        self.forgotten.append(symbol)


def instrument(symbol: str, *, tick: float = 1.0) -> Instrument:
    return Instrument(
        name=f"toy:{symbol}",
        venue="toy",
        symbol=symbol,
        asset=symbol,
        kind="linear",
        contract=1.0,
        tick=tick,
        lot=1.0,
    )


def toy(*symbols: str, known: str = "AB", opened: bool = True) -> Toy:
    config = VenueConfig(
        enabled=True,
        required=True,
        ws_url="",
        http_url="",
        book_depth=1,
        symbols_per_socket=1,
        instruments_interval_s=1.0,
        instruments={symbol: symbol for symbol in symbols or ("A",)},
    )
    made = Toy(config, [instrument(symbol) for symbol in known])
    if opened:
        made.opened(FEED, AT)
    return made


def after(seconds: float) -> int:
    return AT + int(seconds * NS)


def hear(made: Toy, *topics: str, at: int) -> Out:
    return [event for topic in topics for event in made.receive(Frame(at, FEED, topic.encode()))]


def answer(key: str, data: bytes, *, at: int = AT, status: int = 200) -> Reply:
    return Reply(at, "toy", key, status, data)


# ------------------------------------------------------------------------------- the streams


def test_an_open_feed_subscribes_the_streams_of_known_symbols() -> None:
    made = toy("A", "C", opened=False)
    assert made.opened(FEED, AT) == [
        Listed(instrument("A")),
        Syncing("toy:A"),
        Send(FEED, "+book:A,mark:A,liquidations:A"),
    ]


def test_a_symbol_that_becomes_known_is_subscribed_on_the_open_feed() -> None:
    made = toy("A", "C")
    data = msgspec.json.encode([instrument("C")])
    assert made.reply(answer("list", data)) == [
        Listed(instrument("C")),
        Syncing("toy:C"),
        Send(FEED, "+book:C,mark:C,liquidations:C"),
    ]
    assert made.reply(answer("list", data)) == []


def test_a_request_has_only_so_many_streams_and_a_number_of_its_own() -> None:
    made = toy("A", "B", opened=False)
    assert [event.data for event in made.opened(FEED, AT) if isinstance(event, Send)] == [
        "+book:A,mark:A,liquidations:A,book:B",
        "+mark:B,liquidations:B",
    ]
    made.resync("B", AT)
    assert made.numbers == [1, 2, 3, 4]


def test_a_changed_tick_resynchronises_the_book() -> None:
    made = toy("A")
    data = msgspec.json.encode([instrument("A", tick=0.5)])
    assert made.reply(answer("list", data)) == [
        Listed(instrument("A", tick=0.5)),
        Send(FEED, "-book:A"),
        Send(FEED, "+book:A"),
    ]
    assert made.forgotten == ["A"]


def test_a_lost_feed_leaves_no_book_in_sequence() -> None:
    made = toy("A", "B")
    assert made.lost(FEED, AT) == [
        Gap(f"toy:{symbol}", reason) for symbol in "AB" for reason in ("feed_lost", "marks_lost")
    ]
    assert made.forgotten == ["A", "B"]
    assert made.lost(FEED, AT) == []
    assert Syncing("toy:B") in made.opened(FEED, AT)


def test_a_resync_touches_only_that_symbols_book() -> None:
    assert toy("A", "B").resync("B", AT) == [Send(FEED, "-book:B"), Send(FEED, "+book:B")]


# ------------------------------------------------------------------------------ the watchdog


def test_a_stream_that_speaks_is_not_reported() -> None:
    made = toy()
    for second in range(0, 600, 30):
        hear(made, "book:A", "mark:A", at=after(second))
        assert made.tick(after(second + 1)) == []


def test_quiet_liquidations_are_never_reported() -> None:
    made = toy()
    for second in range(0, 7200, 50):
        hear(made, "book:A", "mark:A", at=after(second))
        out = made.tick(after(second))
        assert not [e for e in out if isinstance(e, Silence) and e.channel == "liquidations"]
        assert not [e for e in out if isinstance(e, Close)]


def silent_mark(made: Toy, seconds: int) -> list[tuple[int, Out]]:
    """What is said each second of a time in which only the book is heard."""
    said = []
    for second in range(1, seconds):
        hear(made, "book:A", at=after(second))
        if out := made.tick(after(second)):
            said.append((second, out))
    return said


def test_a_silent_mark_is_reported_once_and_resubscribed_with_doubling_patience() -> None:
    said = silent_mark(toy(), 2400)
    resubscribe: Out = [Send(FEED, "-mark:A"), Send(FEED, "+mark:A")]
    first = int(STREAM_PATIENCE_S) + 1
    assert said[0] == (first, [Silence("toy:A", "mark", AT), *resubscribe])
    assert all(out == resubscribe for _, out in said[1:])
    times = [second for second, _ in said]
    waits = [later - sooner - 1 for sooner, later in pairwise(times)]
    longest = int(REPAIR_PATIENCE_MAX_S)
    assert waits == [60, 120, 240, 480, longest, longest]


def test_a_stream_heard_again_is_said_to_be_and_starts_with_fresh_patience() -> None:
    made = toy()
    silent_mark(made, 400)
    assert hear(made, "mark:A", at=after(400)) == [Silence("toy:A", "mark", None)]
    assert hear(made, "mark:A", at=after(401)) == []
    hear(made, "book:A", at=after(460))
    assert made.tick(after(461)) == []
    hear(made, "book:A", at=after(461))
    assert made.tick(after(462))[0] == Silence("toy:A", "mark", after(401))


def test_silence_counts_from_the_subscription_and_not_from_the_last_connection() -> None:
    made = toy()
    hear(made, "book:A", "mark:A", at=AT)
    made.lost(FEED, after(10))
    assert made.tick(after(500)) == []
    made.opened(FEED, after(500))
    assert made.tick(after(560)) == []
    assert Silence("toy:A", "mark", after(500)) in made.tick(after(561))


def test_a_feed_with_all_its_streams_silent_is_closed_once() -> None:
    made = toy("A", "B")
    out = made.tick(after(61))
    assert [e.channel for e in out if isinstance(e, Silence)] == ["book", "mark"] * 2
    assert [e for e in out if isinstance(e, Close)] == [Close(FEED, "silent")]
    assert made.tick(after(61.25)) == []
    later = made.tick(after(122))
    assert later == [Close(FEED, "silent")]


def test_a_symbol_the_venue_never_listed_does_not_keep_a_dead_feed_open() -> None:
    made = toy("A", "UNKNOWN")
    assert Close(FEED, "silent") in made.tick(after(61))


def test_a_stream_still_silent_after_a_reconnect_is_not_reported_again() -> None:
    made = toy()
    made.tick(after(61))
    made.lost(FEED, after(62))
    made.opened(FEED, after(63))
    out = made.tick(after(124))
    assert [e for e in out if isinstance(e, Silence)] == []
    assert hear(made, "mark:A", at=after(125)) == [Silence("toy:A", "mark", None)]


# ------------------------------------------------------------------------------ the requests


def keys(fetches: list[Fetch]) -> list[str]:
    return [fetch.key for fetch in fetches]


def fetch(key: str = "k") -> Fetch:
    return Fetch("toy", key, f"/{key}")


def test_a_periodic_request_is_due_at_once_and_then_after_each_answer() -> None:
    requests = Requests()
    requests.every(fetch(), 30.0)
    assert requests.due(AT) == [fetch()]
    requests.answered("k", after(1))
    assert requests.due(after(30)) == []
    assert requests.due(after(31)) == [fetch()]


def test_a_single_request_is_asked_until_it_is_answered() -> None:
    requests = Requests()
    requests.once(fetch(), after(5))
    assert requests.due(after(4)) == []
    assert keys(requests.due(after(5))) == ["k"]
    assert requests.due(after(5 + REPLY_PATIENCE_S - 1)) == []
    assert keys(requests.due(after(5 + REPLY_PATIENCE_S))) == ["k"]
    requests.answered("k", after(30))
    assert requests.due(after(1000)) == []


def test_a_single_request_made_twice_is_one() -> None:
    requests = Requests()
    requests.once(fetch(), AT)
    requests.once(fetch(), AT)
    assert keys(requests.due(AT)) == ["k"]
    requests.once(fetch(), after(1))
    assert requests.due(after(1)) == []


def test_a_forgotten_request_is_not_asked_again() -> None:
    requests = Requests()
    requests.once(fetch(), AT)
    requests.forget("k")
    requests.forget("never asked")
    assert requests.due(after(1000)) == []


def test_a_request_may_fail_for_ever() -> None:
    requests = Requests()
    requests.once(fetch(), AT)
    at = AT
    for _ in range(2000):
        requests.due(at)
        request = requests.answered("k", at)
        assert request is not None
        requests.failed(request, at)
        at += int(RETRY_MAX_S * NS)
    assert keys(requests.due(at)) == ["k"]


@pytest.mark.parametrize(
    ("status", "data", "reason"),
    [
        (0, b"timed out", "http"),
        (403, b"<html>", "http"),
        (418, b"{}", "http"),
        (429, b"{}", "http"),
        (451, b"", "http"),
        (200, b"<html>", "not_json"),
        (200, b'{"code":-1}', "schema"),
        (200, b" " * (REPLY_BYTES_MAX + 1), "too_large"),
    ],
)
def test_an_answer_of_no_use_is_counted_and_asked_for_again(
    status: int, data: bytes, reason: str
) -> None:
    made = toy()
    made.requests.every(fetch(), 60.0)
    assert made.tick(AT) == [fetch()]
    assert made.reply(answer("k", data, status=status)) == [Rejected("toy", "toy.http", reason)]
    assert made.tick(after(1)) == []
    assert made.tick(after(2)) == [fetch()]
    assert made.reply(answer("k", b"7.5", at=after(2))) == [
        OpenInterest("toy:A", after(2), 7.5, None)
    ]
    assert fetch() not in made.tick(after(61))
    assert fetch() in made.tick(after(62))


def test_an_answer_nobody_asked_for_is_still_read() -> None:
    assert toy().reply(answer("other", b"1")) == [OpenInterest("toy:A", AT, 1.0, None)]


# ------------------------------------------------------------------------------ the refusals


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[", "not_json"),
        (b"\xff", "not_json"),
        (b'{"a":1}', "schema"),
        (b"overflow", "bad_number"),
        (b"x" * (FRAME_BYTES_MAX + 1), "too_large"),
    ],
)
def test_whatever_the_decoder_raises_on_remote_input_is_a_refusal(data: bytes, reason: str) -> None:
    assert toy().receive(Frame(AT, FEED, data)) == [Rejected("toy", FEED, reason)]


# ------------------------------------------------------------------------------- the helpers


def test_a_known_instrument_is_followed_as_the_asset_it_is_configured_as() -> None:
    config = msgspec.structs.replace(toy().config, instruments={"A": "ELSE"})
    made = Toy(config, [instrument("A")])
    [listed] = [event for event in made.tick(AT) if isinstance(event, Listed)]
    assert (listed.instrument.asset, made.instruments["A"].asset) == ("ELSE", "ELSE")


def test_positive_means_above_zero_and_of_a_size_that_there_is() -> None:
    assert is_positive(1.0, 1e-12, 1e14)
    for bad in (0.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-300, 1e15, 1e300):
        assert not is_positive(1.0, bad)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("BTC", ("BTC", 1.0)),
        ("1000PEPE", ("PEPE", 1000.0)),
        ("1000000MOG", ("MOG", 1_000_000.0)),
        ("1INCH", ("1INCH", 1.0)),
        ("100X", ("100X", 1.0)),
    ],
)
def test_a_multiplied_name_tells_its_underlying(base: str, expected: tuple[str, float]) -> None:
    assert multiplier_of(base) == expected


def test_symbols_are_spread_in_order() -> None:
    assert spread("abc", per_feed=2, prefix="f") == {"a": "f.0", "b": "f.0", "c": "f.1"}


def test_funding_is_scaled_to_8_hours() -> None:
    assert [per_8h(0.0001, hours) for hours in (1.0, 4.0, 8.0)] == [0.0008, 0.0002, 0.0001]
