"""No venue can make its codec raise, whatever it sends.

Everything here is for every venue in `VENUES`. A new one needs tests/data/<venue>/ with
``messages.json``, ``replies.json``, ``instruments.json`` (what those are about) and
``metadata.json`` (where they are from), and is tested with the others.
"""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config import PipelineConfig
from monitor.events import NS, Fetch, Frame, Listed, Opened, Reply, Tick
from monitor.pipeline import Pipeline
from monitor.venues import VENUES
from monitor.venues.base import FRAME_BYTES_MAX, REPLY_BYTES_MAX, Codec
from tests.builders import engine_config
from tests.venues.harness import (
    AT,
    ROOT,
    check,
    config,
    encoded,
    followed,
    payloads,
    refusals,
    specifications,
)

CASES = [(venue, name) for venue in VENUES for name in payloads(venue, "messages")]

each_venue = pytest.mark.parametrize("venue", VENUES)

EXTREMES = ["1e-300", "1e-30", "1e-9", "1", "1e9", "1e12", "9e14", "1e30", "1e150", "1e300"]
"""Numbers that are finite and no price, no quantity and no rate of ours."""


def hear(made: Codec, data: bytes) -> None:
    """A message on each of the codec's feeds."""
    for feed in made.feeds:
        check(made, made.receive(Frame(AT, feed.name, data)))


def answer(made: Codec, key: str, data: bytes) -> None:
    check(made, made.reply(Reply(AT, made.venue, key, 200, data)))


@cache
def own(venue: str) -> tuple[list[bytes], list[bytes]]:
    """Our own messages and answers."""
    messages, replies = payloads(venue, "messages"), payloads(venue, "replies")
    return [encoded(message) for message in messages.values()], [*map(encoded, replies.values())]


def practised(venue: str) -> Codec:
    """A codec that has heard everything of ours, and so is in the middle of everything."""
    return deepcopy(practice(venue, known=True))


@cache
def practice(venue: str, *, known: bool) -> Codec:
    made = followed(venue, known=known)
    messages, replies = own(venue)
    for text in messages:
        hear(made, text)
    for key in questions(venue):
        for text in replies:
            answer(made, key, text)
    for text in messages:  # once more, now that what they asked for has come
        hear(made, text)
    return made


@cache
def questions(venue: str) -> tuple[str, ...]:
    """The key of everything a codec asks over HTTP when it is told our own payloads."""
    made = followed(venue, known=False)
    keys = dict.fromkeys(made.requests._requests)
    messages, replies = own(venue)
    for _ in range(3):  # what is asked because of an answer comes in the next round
        for key in [*keys]:
            for text in replies:
                made.reply(Reply(AT, venue, key, 200, text))
        for text in messages:
            for feed in made.feeds:
                made.receive(Frame(AT, feed.name, text))
        keys |= dict.fromkeys(made.requests._requests)
    symbols = [spec.symbol for spec in specifications(venue)]
    pasts = (f"{kind}:{symbol}" for kind in ("candles", "interests") for symbol in symbols)
    return (*keys, *pasts, "?")


def words(tree: Any) -> set[str]:
    """Every key and every text in a payload."""
    if isinstance(tree, dict):
        return set(tree) | {word for value in tree.values() for word in words(value)}
    if isinstance(tree, list):
        return {word for value in tree for word in words(value)}
    return {tree} if isinstance(tree, str) else set()


@cache
def documents(venue: str) -> st.SearchStrategy[Any]:
    """Any JSON, by preference of the venue's own words."""
    own = sorted(words([payloads(venue, "messages"), payloads(venue, "replies")]))
    odd = st.sampled_from(["", "NaN", "nan", "inf", "-1", "0", "1e300", "1e400"])
    texts = odd | st.sampled_from(own) | st.text(max_size=8)
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=5),
        max_leaves=20,
    )


def mutated(data: st.DataObject, venue: str, name: str) -> Any:
    """One of our own payloads with some of its parts replaced, removed or repeated."""
    draw = data.draw
    tree = deepcopy(draw(st.sampled_from(list(payloads(venue, name).values()))))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = tree
        while node:
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
            if isinstance(node[key], dict | list) and draw(st.integers(0, 3)):
                node = node[key]
                continue
            action = draw(st.sampled_from(["replace", "remove", "repeat"]))
            if action == "replace":
                node[key] = draw(documents(venue))
            elif action == "remove":
                del node[key]
            elif isinstance(node, list):
                node.insert(key, deepcopy(node[key]))
            break
    return tree


def codec_for(data: st.DataObject, venue: str) -> Codec:
    """A codec that has heard nothing, or all, or all but what the instruments are."""
    match data.draw(st.sampled_from(["fresh", "practised", "unknowing"])):
        case "fresh":
            return followed(venue)
        case "practised":
            return practised(venue)
        case _:
            return followed(venue, known=False)


@each_venue
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_bytes_and_any_json_give_events_or_a_counted_refusal(
    venue: str, data: st.DataObject
) -> None:
    made = codec_for(data, venue)
    junk = st.binary(max_size=200) | documents(venue).map(encoded)
    for text in data.draw(st.lists(junk, min_size=1, max_size=3)):
        hear(made, text)
        for key in questions(venue):
            answer(made, key, text)
    check(made, made.tick(AT + 100 * NS))


@each_venue
@given(st.data())
@settings(max_examples=120, deadline=None)
def test_our_own_messages_changed_anywhere_give_events_or_a_counted_refusal(
    venue: str, data: st.DataObject
) -> None:
    made = codec_for(data, venue)
    for _ in range(data.draw(st.integers(1, 3))):
        hear(made, encoded(mutated(data, venue, "messages")))
    check(made, made.tick(AT + 100 * NS))


@each_venue
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_our_own_answers_changed_anywhere_give_events_or_a_counted_refusal(
    venue: str, data: st.DataObject
) -> None:
    made = codec_for(data, venue)
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from(questions(venue)))
        answer(made, key, encoded(mutated(data, venue, "replies")))
    check(made, made.tick(AT + 100 * NS))


def numbers_of(node: Any) -> Iterator[tuple[Any, Any]]:
    """Where the numbers of a payload stand: their container and their key in it."""
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(inner, dict | list):
            yield from numbers_of(inner)
        elif type(inner) in (float, int) or str(inner).replace(".", "").isdecimal():
            yield node, key


@each_venue
@pytest.mark.parametrize("seed", range(3))
def test_no_number_a_venue_may_send_ends_the_engine(venue: str, seed: int) -> None:
    """Our own payloads for ten minutes, each seventh with one number out of all bounds."""
    draw = random.Random(f"{venue} {seed}")
    specs = specifications(venue)
    followed = config(*(spec.symbol for spec in specs))
    pipeline = Pipeline(PipelineConfig({venue: followed}, engine_config(), specs))
    feeds = [feed.name for feed in pipeline.codecs[venue].feeds]
    heard = [
        (name, body)
        for kind in ("messages", "replies")
        for name, body in payloads(venue, kind).items()
        for _ in range(4 if kind == "messages" else 1)
    ]
    replies = payloads(venue, "replies")
    at = AT
    for feed in feeds:
        pipeline.step(Opened(at, feed))
    for _ in range(150):
        at += draw.choice((NS // 2, NS, 10 * NS))
        for name, body in draw.choices(heard, k=4):
            changed = deepcopy(body)
            found = [*numbers_of(changed)] if draw.random() < 0.15 else []
            if found:
                node, key = draw.choice(found)
                value = draw.choice(EXTREMES)
                node[key] = value if isinstance(node[key], str) else float(value)
            if name in replies:
                pipeline.step(Reply(at, venue, name, 200, encoded(changed)))
            else:
                pipeline.step(Frame(at, draw.choice(feeds), encoded(changed)))
        pipeline.step(Tick(at))
    for asset in pipeline.engine.assets:
        assert isinstance(pipeline.engine.state(asset, at), bytes)


@each_venue
@pytest.mark.parametrize("known", [True, False])
def test_our_own_payloads_give_events_or_a_counted_refusal(venue: str, *, known: bool) -> None:
    made = practice(venue, known=known)
    assert made.instruments
    assert [stream for stream in made.streams.values() if stream.messages]


@each_venue
def test_the_origin_of_every_file_of_ours_is_told(venue: str) -> None:
    folder = ROOT / "tests" / "data" / venue
    listed = json.loads((folder / "metadata.json").read_text())["files"]
    names = {row["file"] for row in listed} if isinstance(listed, list) else set(listed)
    assert names == {path.name for path in folder.iterdir()} - {"metadata.json"}
    for row in listed if isinstance(listed, list) else []:
        data = (folder / row["file"]).read_bytes()
        assert (sha256(data).hexdigest(), len(data)) == (row["sha256"], row["size"])


@each_venue
def test_the_answers_of_ours_tell_what_the_instruments_are(venue: str) -> None:
    made = followed(venue, known=False)
    assert made.instruments == {}
    out = [
        event
        for key in questions(venue)
        for body in payloads(venue, "replies").values()
        for event in made.reply(Reply(AT, venue, key, 200, encoded(body)))
    ]
    assert {event.instrument.symbol for event in out if isinstance(event, Listed)} == set(
        made.assets
    )


@pytest.mark.parametrize(("venue", "name"), CASES)
def test_a_message_cut_at_any_byte_is_refused(venue: str, name: str) -> None:
    made = practised(venue)
    whole = msgspec.json.encode(payloads(venue, "messages")[name])
    feed = made.feeds[0].name
    for end in range(len(whole)):
        assert refusals(made.receive(Frame(AT, feed, whole[:end]))) == ["not_json"]
        rest = made.receive(Frame(AT, feed, whole[end + 1 :]))
        assert refusals(rest) in (["not_json"], ["schema"])
        assert len(rest) == 1


@each_venue
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not_json"),
        (b"pongs", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[]", "schema"),
        (b'{"deep":' * 100_000, "not_json"),
        (b" " * (FRAME_BYTES_MAX + 1), "too_large"),
    ],
    ids=["empty", "text", "no UTF-8", "list", "deep", "large"],
)
def test_bytes_that_are_no_message_are_refused(venue: str, text: bytes, reason: str) -> None:
    made = followed(venue)
    assert refusals(made.receive(Frame(AT, made.feeds[0].name, text))) == [reason]


@each_venue
@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (0, b"", "http"),
        (403, b"{}", "http"),
        (429, b"{}", "http"),
        (503, b"<html>", "http"),
        (200, b"<html>", "not_json"),
        (200, b"7", "schema"),
        (200, b" " * (REPLY_BYTES_MAX + 1), "too_large"),
    ],
    ids=["none", "403", "429", "503", "page", "number", "large"],
)
def test_a_failed_request_is_counted_and_repeated_more_and_more_patiently(
    venue: str, status: int, text: bytes, reason: str
) -> None:
    made = followed(venue, known=False)
    at, waits = AT, []
    key = questions(venue)[0]
    for _ in range(4):
        assert refusals(made.reply(Reply(at, venue, key, status, text))) == [reason]
        asked = at
        while key not in [event.key for event in made.tick(at) if isinstance(event, Fetch)]:
            at += NS // 4
        waits.append((at - asked) / NS)
    assert waits == [2.0, 4.0, 8.0, 16.0]
