"""The simulated venues' protocols, sans I/O: one module a venue over `base`, `faults` beside them.

Written from docs/exchanges.md alone. Nothing here may import `monitor.venues` or `monitor.core`:
what the daemon reads and what the simulator writes are two opinions of the same documents, and
each is the other's test.
"""

from typing import Final

from monitor.sim.wire.base import Wire
from monitor.sim.wire.binance import Binance
from monitor.sim.wire.bybit import Bybit
from monitor.sim.wire.hyperliquid import Hyperliquid
from monitor.sim.wire.okx import Okx

WIRES: Final[dict[str, type[Wire]]] = {
    wire.venue: wire for wire in (Binance, Bybit, Okx, Hyperliquid)
}
"""Every venue's wire by the venue's name in the simulated market."""
