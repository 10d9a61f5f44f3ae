"""The shape of every message outside this process: on Redis, MQTT, webhooks and the page.

The contract with readers is `docs/messages.md`.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from monitor.events import Alert, Body, Forecast, ForecastVerdict, Liquidation, Message

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


TIMES: Final[dict[type, tuple[str, ...]]] = {
    Liquidation: ("sent_at",),
    Alert: ("since", "at"),
    Forecast: ("at", "due"),
    ForecastVerdict: ("forecast_at", "at"),
}
"""Times in these bodies, which are told in microseconds: JavaScript cannot hold nanoseconds."""


def _data(body: Body) -> Any:  # noqa: ANN401  (whatever msgspec encodes)
    times = TIMES.get(type(body))
    if times is None:
        return body
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    return {
        f"{name}_us" if name in times else name: value // 1000 if name in times else value
        for name, value in fields.items()
    }
