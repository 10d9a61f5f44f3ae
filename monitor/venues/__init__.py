"""Sans-I/O codecs, one module a venue: bytes in, events and commands out."""

from typing import Final

from monitor.venues.base import Codec
from monitor.venues.binance import Binance
from monitor.venues.bybit import Bybit
from monitor.venues.hyperliquid import Hyperliquid
from monitor.venues.okx import Okx

VENUES: Final[dict[str, type[Codec]]] = {
    codec.venue: codec for codec in (Binance, Bybit, Okx, Hyperliquid)
}
"""Every venue by its name in the configuration."""
