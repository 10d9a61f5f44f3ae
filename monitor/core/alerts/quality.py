"""What is wrong with the inputs of an asset: raised after it has held, cleared when it is gone."""

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from monitor.core.alerts.rules import AlertRules
from monitor.core.saved import StateError
from monitor.events import NS, Action, Alert, Reason

STATE_VERSION: Final = 1


class Latch(Struct):
    """One fault, raised after it has held and cleared after it has been gone.

    Faulty time is counted up and sound time down, so that a fault that blinks is raised too.
    """

    at: int = 0
    began: int = 0
    faulty: int = 0
    sound_since: int | None = None
    raised: bool = False
    silent: bool = False

    def step(self, at: int, *, is_faulty: bool, rules: AlertRules, raise_s: float) -> Action | None:
        """Go on to `at`; what has just happened, if anything."""
        gap = round(rules.gap_s * NS)
        passed = at - self.at if self.at else 0
        if passed > gap:
            # Nobody looked: that has not shown it to be sound.
            passed, self.sound_since = gap, None
        self.at = at
        if is_faulty:
            if not self.faulty and not self.raised:
                self.began = at
            # A fault counts from when it is first seen; the 1 marks one that has not aged yet.
            self.faulty = self.faulty + passed if self.faulty else 1
            self.sound_since = None
            if not self.raised and self.faulty >= raise_s * NS:
                self.raised = True
                return "raised"
            return None
        self.faulty = max(0, self.faulty - passed)
        if self.sound_since is None:
            self.sound_since = at
        if self.raised and at - self.sound_since >= rules.quality_clear_s * NS:
            self.raised, self.faulty = False, 0
            return "cleared"
        return None


FaultCode: TypeAlias = Literal[
    "venue_silent",
    "unlisted",
    "book_unsynced",
    "mark_stale",
    "open_interest_stale",
    "map_confidence_low",
    "abstaining",
]


class Fault(Struct, frozen=True):
    """Something that is wrong now; `subject` is a venue or instrument, or empty."""

    code: FaultCode
    subject: str
    detail: str


class QualityState(Struct, frozen=True):
    """Saved faults of an asset."""

    version: int
    asset: str
    at: int
    latches: list[tuple[Fault, Latch]]


class Quality:
    """Data-quality alerts of one asset: one latch per fault and subject."""

    def __init__(self, asset: str, *, rules: AlertRules) -> None:
        self._asset = asset
        self._rules = rules
        self._started: int | None = None
        # By code and subject, which come from the configuration: no more than there are feeds.
        self._latches: dict[tuple[str, str], tuple[Fault, Latch]] = {}

    def standing(self) -> list[Fault]:
        """The faults that are raised."""
        return [f for _, (f, latch) in sorted(self._latches.items()) if latch.raised]

    def step(self, at: int, faults: Iterable[Fault]) -> list[Alert]:
        """Take all faults of this moment, the same ones again as long as they last."""
        self._started = at if self._started is None else self._started
        silent = at - self._started < self._rules.observe_s * NS
        now: dict[tuple[str, str], Fault] = {(f.code, f.subject): f for f in faults}
        for key, fault in now.items():
            latch = self._latches[key][1] if key in self._latches else Latch()
            self._latches[key] = (fault, latch)
        alerts = []
        for key, (fault, latch) in sorted(self._latches.items()):
            action = latch.step(
                at,
                is_faulty=key in now,
                rules=self._rules,
                raise_s=self._rules.quality_raise_s,
            )
            if action is None and latch.raised and latch.silent and not silent:
                action = "raised"
            if action == "raised":
                latch.silent = silent
            if action is not None:
                alerts.append(self._alert(action, fault, latch))
            if not latch.raised and not latch.faulty:
                del self._latches[key]
        return alerts

    def _alert(self, action: Action, fault: Fault, latch: Latch) -> Alert:
        of = " ".join(part for part in (self._asset, fault.subject) if part)
        name = fault.code.replace("_", " ")
        text = f"{of}: {name} is over" if action == "cleared" else f"{of}: {name}: {fault.detail}"
        return Alert(
            id=f"{self._asset}:{fault.code}:{fault.subject}:{latch.began // NS}",
            kind="quality",
            action=action,
            asset=self._asset,
            direction=None,
            phase=None,
            previous=None,
            since=latch.began,
            at=latch.at,
            severity="info" if action == "cleared" else "warning",
            score=None,
            probability_15m=None,
            reasons=[] if action == "cleared" else [Reason(fault.code, fault.detail, 0.0)],
            confidence=None,
            silent=latch.silent,
            held="",
            text=text,
            code=fault.code,
            subject=fault.subject,
        )

    def state(self) -> QualityState:
        """For the engine's saved state."""
        latches = [(f, copied(latch)) for _, (f, latch) in sorted(self._latches.items())]
        at = max((latch.at for _, latch in latches), default=0)
        return QualityState(STATE_VERSION, self._asset, at, latches)

    def restore(self, state: QualityState) -> None:
        """Take over a saved state; StateError when it is another's."""
        if (state.version, state.asset) != (STATE_VERSION, self._asset):
            raise StateError(f"quality of {state.asset}, version {state.version}")
        self._latches = {(f.code, f.subject): (f, copied(latch)) for f, latch in state.latches}


def copied(latch: Latch) -> Latch:
    """A latch of its own, for a saved state."""
    return Latch(latch.at, latch.began, latch.faulty, latch.sound_since, latch.raised, latch.silent)
