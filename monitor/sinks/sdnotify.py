"""Tells systemd how the daemon is: started, making progress, stopping.

The protocol is that of sd_notify(3): a datagram of ``NAME=value`` lines to the socket that
``NOTIFY_SOCKET`` names. Without that variable nothing is told, so the daemon is the same under any
supervisor. A supervisor that does not listen never holds up or ends the daemon.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from monitor.sinks.status import Health

POLL_S: Final = 1.0
"""How often the state is looked at; more often where the watchdog is impatient."""

STATUS_CHARACTERS_MAX: Final = 500
"""What `systemctl status` shows of the reasons."""

_log = logging.getLogger(__name__)


class Beats:
    """Decides what is due to be told; knows no clock and no socket."""

    def __init__(self, watchdog_s: float | None, grace_s: float) -> None:
        """`watchdog_s` is the supervisor's patience, None where it watches nothing.

        After `grace_s` the start counts as done though not everything is there: the supervisor must
        not restart us in a circle because one venue is away.
        """
        self._half_s = None if watchdog_s is None else watchdog_s / 2
        self._grace_s = grace_s
        self._is_started = False
        self._status = ""
        self._pinged_s = float("-inf")

    def due(self, uptime_s: float, idle_s: float, health: Health) -> list[str]:
        """The lines to send now; `idle_s` is how long the pump has taken nothing.

        The watchdog is told of progress only, at half of its patience: a loop that runs beside a
        pump that stands still says nothing.
        """
        lines = []
        if not self._is_started and (health.ok or uptime_s >= self._grace_s):
            self._is_started = True
            lines.append("READY=1")
        status = _status(health)
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if self._half_s is not None and idle_s < self._half_s <= uptime_s - self._pinged_s:
            self._pinged_s = uptime_s
            lines.append("WATCHDOG=1")
        return lines


class Supervisor:
    """The other end of `NOTIFY_SOCKET`, if there is one.

    Attributes:
        watchdog_s: how long it waits for a sign of progress; None if it does not watch us.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the null byte of the abstract namespace.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environment)
        self._is_deaf = False

    def tell(self, *lines: str) -> None:
        """Send some lines; never waits, and a failure is logged once."""
        if not self._address or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._is_deaf:
                _log.warning("supervisor_deaf", extra={"fields": {"error": str(error)}})
            self._is_deaf = True
        else:
            self._is_deaf = False

    async def run(
        self, idle_s: Callable[[], float], health: Callable[[], Health], grace_s: float
    ) -> None:
        """Tell what is due, until cancelled.

        Args:
            idle_s: how long the pump has taken nothing.
            health: whether what is published can be used.
            grace_s: how long the start may wait for that.
        """
        if not self._address:
            return
        beats = Beats(self.watchdog_s, grace_s)
        began = time.monotonic()
        pause_s = min(POLL_S, (self.watchdog_s or POLL_S * 4) / 4)
        while True:
            self.tell(*beats.due(time.monotonic() - began, idle_s(), health()))
            await asyncio.sleep(pause_s)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """The watchdog's patience, if it is meant for this process."""
    patience = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", "")
    if not patience.isdecimal() or int(patience) == 0 or meant_for not in {"", str(os.getpid())}:
        return None
    return int(patience) / 1e6


def _status(health: Health) -> str:
    text = "ready" if health.ok else f"not ready: {'; '.join(health.reasons)}"
    return " ".join(text.split())[:STATUS_CHARACTERS_MAX]
