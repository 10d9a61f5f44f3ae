"""Sans-I/O codecs, one module a venue: bytes in, events and commands out."""

from typing import Final

from monitor.venues.base import Codec
from monitor.venues.binance import Binance

VENUES: Final[dict[str, type[Codec]]] = {codec.venue: codec for codec in (Binance,)}
"""Every venue by its name in the configuration."""
