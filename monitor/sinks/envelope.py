"""The shape of every message outside this process: on Redis, MQTT, webhooks and the page.

The contract with readers is `docs/messages.md`.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from monitor.events import Body, Liquidation, Message

VERSION: Final = 1
"""Version of the envelope; changes only when a reader of the old one would break."""


class Envelope(Struct, frozen=True, omit_defaults=True):
    """The shape of every message on the wire."""

    v: int
    kind: str
    run: str
    seq: int
    at_us: int
    asset: str
    data: Any
    venue: str = ""


class LiquidationData(Struct, frozen=True):
    """A `Liquidation` with its time in microseconds: JavaScript cannot hold nanoseconds."""

    instrument: str
    sent_at_us: int
    side: str
    quantity: float
    usd: float
    price: float
    price_kind: str
    fill_price: float | None
    completeness: str
    raw_side: str


def encode(message: Message, run: str) -> bytes:
    """The JSON of a message; numbers that are no numbers become null."""
    return _encoder.encode(
        Envelope(
            v=VERSION,
            kind=message.kind,
            run=run,
            seq=message.seq,
            at_us=message.at // 1000,
            asset=message.asset,
            data=_data(message.data),
            venue=message.venue,
        )
    )


# msgspec writes NaN and the infinities as null.
_encoder = msgspec.json.Encoder()


def _data(body: Body) -> Any:  # noqa: ANN401  (whatever msgspec encodes)
    if not isinstance(body, Liquidation):
        return body
    return LiquidationData(
        instrument=body.instrument,
        sent_at_us=body.sent_at // 1000,
        side=body.side,
        quantity=body.quantity,
        usd=body.usd,
        price=body.price,
        price_kind=body.price_kind,
        fill_price=body.fill_price,
        completeness=body.completeness,
        raw_side=body.raw_side,
    )
