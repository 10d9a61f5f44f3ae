"""How many false alarms a day may have before the threshold rises."""

from typing import Final

from msgspec import Struct

from monitor.core.alerts.rules import CRITICAL, WARNING, AlertRules
from monitor.core.saved import StateError
from monitor.events import NS

STATE_VERSION: Final = 1


class BudgetState(Struct, frozen=True):
    """A saved budget."""

    version: int
    day: int
    false: list[int]
    withheld: int


class Budget:
    """False alarms of one asset, by rank, in the UTC day; shared by its two directions."""

    def __init__(self, rules: AlertRules) -> None:
        self._limits = {WARNING: rules.warning_budget, CRITICAL: rules.critical_budget}
        self._day = 0
        self._false = [0, 0, 0, 0]
        self.withheld = 0
        """Times a phase was not entered because the budget had been spent."""

    def charge(self, rank: int, at: int) -> None:
        """Count an alarm of this rank that ended without a cascade."""
        self._turn(at)
        self._false[rank] += 1

    def charged(self, rank: int, at: int) -> int:
        """False alarms of this rank since midnight."""
        self._turn(at)
        return self._false[rank]

    def spent(self, rank: int, at: int) -> bool:
        """Whether there are as many as a day may have."""
        return rank in self._limits and self.charged(rank, at) >= self._limits[rank]

    def _turn(self, at: int) -> None:
        day = at // (86_400 * NS)
        if day != self._day:
            self._day, self._false = day, [0, 0, 0, 0]

    def state(self) -> BudgetState:
        """For the engine's saved state."""
        return BudgetState(STATE_VERSION, self._day, list(self._false), self.withheld)

    def restore(self, state: BudgetState) -> None:
        """Take over a saved state; StateError when it does not fit."""
        if state.version != STATE_VERSION or len(state.false) != len(self._false):
            raise StateError(f"alarm budget of version {state.version}")
        self._day, self._false, self.withheld = state.day, list(state.false), state.withheld
