"""Phases of the risk of one asset in one direction, and the alerts that tell of them.

``calm``, ``watch``, ``warning`` and ``critical`` follow the forecast: up at once, down one at a
time and only after a hold. ``cascading`` follows what has happened, whatever was forecast, and ends
in ``exhausted`` only on evidence that the market absorbs. Missing input holds a phase and never
lowers it; what is wrong with the inputs is told by alerts of their own kind (`quality`).
"""

from math import isfinite
from typing import Final, Literal

from msgspec import Struct

from monitor.core.alerts.budget import Budget
from monitor.core.alerts.quality import Latch, copied
from monitor.core.alerts.realised import Cascade, has_moved, is_heavy, is_realised
from monitor.core.alerts.reasons import Burst, Evidence, Picture, brief, duration, ranked
from monitor.core.alerts.rules import CRITICAL, RISK, SEVERITY, WARNING, AlertRules
from monitor.core.saved import StateError
from monitor.events import NS, Action, Alert, Direction, Phase, Reason

STATE_VERSION: Final = 1


class Standing(Struct, frozen=True):
    """The phase as it is to be shown.

    `held` says why it stands although the evidence of now would not raise it, else empty.
    `shown` is ``unknown`` where ``calm`` would rest on unusable inputs, or any phase has for long.
    """

    phase: Phase
    shown: Phase | Literal["unknown"]
    since: int
    id: str
    held: str
    abstaining: str
    silent: bool


class PhasesState(Struct, frozen=True):
    """Saved phases of one direction."""

    version: int
    asset: str
    direction: Direction
    at: int
    phase: Phase
    since: int
    episode: int
    quiet_since: int | None
    absent: list[str]
    cascaded: bool
    peak_usd: float
    extreme: float | None
    extreme_at: int
    muted: bool
    unknown: Latch
    origin: float | None = None
    burst_at: int = 0


class Phases:
    """The phase of one asset in one direction."""

    def __init__(
        self, asset: str, direction: Direction, *, rules: AlertRules, budget: Budget
    ) -> None:
        self._asset = asset
        self._direction: Direction = direction
        self._rules = rules
        self._budget = budget
        self._started: int | None = None
        self._at = 0
        self._phase: Phase = "calm"
        self._since = 0
        self._episode = 0
        # Since when the evidence has spoken for leaving the phase, without interruption.
        self._quiet_since: int | None = None
        # Venues that were already missing when the phase was entered: only their absence cannot
        # be what makes it look calmer now.
        self._absent: tuple[str, ...] = ()
        self._cascaded = False
        self._cascade = Cascade(direction, rules)
        self._muted = False
        self._withheld = False
        self._unknown = Latch()
        self._held = ""
        self._abstaining = ""
        self._unforecast = ""
        self._blind = "not heard yet"

    # ----------------------------------------------------------------------------- outside

    def standing(self) -> Standing:
        """The phase as of the last evidence."""
        unknown = self._unknown.raised or (self._phase == "calm" and self._reserve() != "")
        return Standing(
            phase=self._phase,
            shown="unknown" if unknown else self._phase,
            since=self._since,
            id=self._id() if self._phase != "calm" else "",
            held=self._held,
            abstaining=self._abstaining,
            silent=self._is_silent(),
        )

    def burst(self, at: int) -> Burst | None:
        """The cascade of this direction, where it runs or ran a short while before `at` (ns)."""
        return self._cascade.burst(at)

    def step(self, e: Evidence, picture: Picture | None = None) -> list[Alert]:
        """Take the evidence of one publication; usually nothing follows."""
        assert (e.asset, e.direction) == (self._asset, self._direction), "another's evidence"
        assert e.at >= self._at, "evidence goes back in time"
        if self._started is None:
            self._started = e.at
            self._since = self._since or e.at
        if e.at - self._at > self._rules.gap_s * NS:
            # Nobody looked: neither quiet nor the absence of a new extreme has been seen.
            self._quiet_since = None
            self._cascade.extreme_at = e.at
        self._at = e.at
        self._look(e)
        realised = self._resumes(e) or is_realised(e, self._rules)
        after: Phase = "cascading" if realised else self._next(e)
        alerts: list[Alert] = []
        if after != self._phase:
            alerts.append(self._turn(after, e, picture))
        elif self._muted and self._phase != "calm" and not self._is_silent():
            # Raised while observing and still standing: now it has to be heard.
            alerts.append(self._alert("raised", self._phase, e, ranked(e, picture, phase=after)))
            self._muted = False
        if realised:
            self._cascade.seen_at = e.at
        # Why nothing steps down matters only where something could.
        self._held = "" if self._phase == "calm" else self._reserve() or self._above(e, realised)
        alerts += self._doubt(e)
        return alerts

    def state(self) -> PhasesState:
        """For the engine's saved state."""
        return PhasesState(
            version=STATE_VERSION,
            asset=self._asset,
            direction=self._direction,
            at=self._at,
            phase=self._phase,
            since=self._since,
            episode=self._episode,
            quiet_since=self._quiet_since,
            absent=list(self._absent),
            cascaded=self._cascaded,
            peak_usd=self._cascade.peak,
            extreme=self._cascade.extreme,
            extreme_at=self._cascade.extreme_at,
            muted=self._muted,
            unknown=copied(self._unknown),
            origin=self._cascade.origin,
            burst_at=self._cascade.seen_at,
        )

    def restore(self, state: PhasesState) -> None:
        """Take over a saved state; StateError when it is another's."""
        theirs = (state.version, state.asset, state.direction)
        if theirs != (STATE_VERSION, self._asset, self._direction):
            raise StateError(f"phases of {theirs}")
        if not all(isfinite(x or 0.0) for x in (state.peak_usd, state.extreme, state.origin)):
            raise StateError("phases with a number that is not finite")
        if state.origin is not None and state.origin <= 0.0:
            raise StateError(f"phases with a price of {state.origin}")
        self._at, self._phase, self._since = state.at, state.phase, state.since
        self._episode, self._quiet_since = state.episode, state.quiet_since
        self._absent, self._cascaded = tuple(state.absent), state.cascaded
        self._muted = state.muted
        self._cascade.peak, self._cascade.origin = state.peak_usd, state.origin
        self._cascade.extreme, self._cascade.extreme_at = state.extreme, state.extreme_at
        self._cascade.seen_at = state.burst_at
        self._unknown = copied(state.unknown)

    # ------------------------------------------------------------------------------ inside

    def _look(self, e: Evidence) -> None:
        """Note what keeps this evidence from lowering anything."""
        lost = [venue for venue in e.missing if venue not in self._absent]
        self._abstaining = "" if e.abstaining is None else f"abstaining: {e.abstaining}"
        self._unforecast = "no forecast" if e.score is None and e.abstaining is None else ""
        self._blind = ""
        if e.stale is not None:
            self._blind = e.stale or "inputs are stale"
        elif lost and self._phase != "calm":
            self._blind = f"{', '.join(lost)} missing since it was raised"
        # A venue that came back and goes again is a new loss.
        if self._phase != "calm":
            self._absent = tuple(venue for venue in self._absent if venue in e.missing)

    def _reserve(self) -> str:
        """Why nothing may step down, empty when it may."""
        return self._blind or self._abstaining or self._unforecast

    def _resumes(self, e: Evidence) -> bool:
        """Keep up with the cascade; whether an exhausted one goes on."""
        if self._phase not in ("cascading", "exhausted"):
            return False
        further = self._cascade.heard(e)
        # Volatility has risen by now, so that the second leg need not be as unusual as the first.
        return self._phase == "exhausted" and further and is_heavy(e, self._rules)

    def _above(self, e: Evidence, realised: bool) -> str:  # noqa: FBT001  (what was just found)
        """Why the phase stands where the evidence of now would not raise it, else empty."""
        rules = self._rules
        if self._phase == "cascading":
            waits = f"absorbed for {self._passed(e)} of {duration(rules.absorbed_s)}"
            return "" if realised else f"cascade: {self._cascade.lacking(e) or waits}"
        if self._phase == "exhausted":
            return f"exhausted: stands for {duration(rules.exhausted_s)} after the cascade"
        rank = RISK.index(self._phase)
        above = range(rank, CRITICAL + 1)
        if any(self._reaches(r, e, stays=False, lifted=False) for r in above):
            return ""
        if any(self._reaches(r, e, stays=True, lifted=False) for r in above):
            limit = self._threshold(rank) - rules.leave_margin
            left = f"hysteresis: left below a score of {limit:.2f}"
            if rank > 1:
                return left
            shock = rules.watch_shock * rules.shock_slack
            gain = rules.shock_gain / rules.shock_slack
            far = f"the critical shock beyond {shock:.1f} normal moves"
            return f"{left}, with {far} or a loop gain below {gain:.1f}"
        return f"hold: low enough for {self._passed(e)} of {duration(rules.hold_s)}"

    def _passed(self, e: Evidence) -> str:
        return duration(0.0 if self._quiet_since is None else (e.at - self._quiet_since) / NS)

    def _reaches(self, rank: int, e: Evidence, *, stays: bool, lifted: bool) -> bool:
        """Whether the evidence enters a risk phase, or (`stays`) keeps one that stands."""
        rules = self._rules
        score = (0.0, rules.watch_score, rules.warning_score, rules.critical_score)[rank]
        score += rules.budget_margin if lifted else -rules.leave_margin if stays else 0.0
        if e.score is not None and e.score >= score:
            return True
        if rank <= WARNING and e.liquidated_usd is None and has_moved(e, rules):
            # The move of a cascade while nobody's liquidations are heard.
            return True
        if rank > (WARNING if e.score is None else 1):
            return False
        if e.critical_shock is None or e.normal_move is None or e.loop_gain is None:
            return False
        slack = 1 / rules.shock_slack if lifted else rules.shock_slack if stays else 1.0
        shock = (0.0, rules.watch_shock, rules.warning_shock)[rank] * e.normal_move * slack
        return e.critical_shock <= shock and e.loop_gain >= rules.shock_gain / slack

    def _entered(self, e: Evidence, standing: int) -> int:
        """The highest rank that the evidence enters, counting what the budget withholds."""
        best = wished = 0
        for rank in (1, WARNING, CRITICAL):
            if self._reaches(rank, e, stays=False, lifted=False):
                wished = rank
            if self._reaches(rank, e, stays=False, lifted=self._budget.spent(rank, e.at)):
                best = rank
        withheld = wished > max(best, standing)
        self._budget.withheld += withheld and not self._withheld
        self._withheld = withheld
        return best

    def _next(self, e: Evidence) -> Phase:
        rules = self._rules
        if self._phase == "cascading":
            # The forecast has no say in whether a cascade has ended.
            done = not self._blind and not self._cascade.lacking(e)
            return "exhausted" if self._quiet(e, rules.absorbed_s, holds=done) else "cascading"
        if self._phase == "exhausted":
            # What has happened ends on what has happened: abstaining does not keep it up.
            over = self._quiet(e, rules.exhausted_s, holds=not (self._blind or self._unforecast))
            abstains = e.abstaining is not None
            return RISK[0 if abstains else self._entered(e, CRITICAL)] if over else "exhausted"
        rank = RISK.index(self._phase)
        if e.abstaining is None:
            entered = self._entered(e, rank)
            if entered > rank:
                return RISK[entered]
        if rank == 0:
            return "calm"
        stays = any(
            self._reaches(r, e, stays=True, lifted=False) for r in range(rank, CRITICAL + 1)
        )
        below = not (self._reserve() or stays)
        return RISK[rank - 1] if self._quiet(e, rules.hold_s, holds=below) else self._phase

    def _quiet(self, e: Evidence, seconds: float, *, holds: bool) -> bool:
        """Whether `holds` has been true for so long without interruption."""
        if not holds:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = e.at
        return e.at - self._quiet_since >= seconds * NS

    def _turn(self, after: Phase, e: Evidence, picture: Picture | None) -> Alert:
        before = self._phase
        action: Action = "changed"
        if before == "calm":
            action = "raised"
            self._episode = e.at
            self._cascaded = False
            self._muted = self._is_silent()
        elif after == "calm":
            action = "cleared"
        elif self._muted and not self._is_silent():
            # Nobody was told of it yet.
            action, self._muted = "raised", False
        if after == "cascading":
            if before != "exhausted":
                self._cascade.begin(e)
            self._cascade.heard(e)
            self._cascaded = True
        between = before in RISK and after in RISK
        falls = between and RISK.index(after) < RISK.index(before)
        if between and not falls:
            # An alarm of its own: the cascade before it does not make it right.
            self._cascaded = False
        if falls and not self._cascaded:
            self._budget.charge(RISK.index(before), e.at)
        reasons = ranked(e, picture, phase=after)
        if falls:
            limit = self._threshold(RISK.index(before)) - self._rules.leave_margin
            text = f"score below {limit:.2f} for {duration(self._rules.hold_s)}"
            reasons.insert(0, Reason("below", text, 1.0))
        elif after == "exhausted":
            reasons.insert(0, Reason("absorbed", self._cascade.absorption(e), 1.0))
        elif before == "exhausted" and after == "calm":
            text = f"no new cascade for {duration(self._rules.exhausted_s)}"
            reasons.insert(0, Reason("absorbed", text, 1.0))
        if after in RISK and RISK.index(after) > (RISK.index(before) if before in RISK else 0):
            # What was missing already cannot be what makes it look calmer later.
            self._absent = e.missing
        elif after == "cascading":
            self._absent = e.missing
        self._phase, self._since, self._quiet_since = after, e.at, None
        return self._alert(action, before, e, reasons)

    def _threshold(self, rank: int) -> float:
        rules = self._rules
        return (0.0, rules.watch_score, rules.warning_score, rules.critical_score)[rank]

    def _doubt(self, e: Evidence) -> list[Alert]:
        """Tell when the phase has been unknown for long, and when it is known again."""
        doubted = self._blind or self._unforecast
        action = self._unknown.step(
            e.at, is_faulty=doubted != "", rules=self._rules, raise_s=self._rules.unknown_s
        )
        if action == "raised":
            self._unknown.silent = self._is_silent()
        elif action is None and self._unknown.raised and self._unknown.silent:
            if self._is_silent():
                return []
            action, self._unknown.silent = "raised", False
        if action is None:
            return []
        why = doubted or "known again"
        alarm = self._phase in ("warning", "critical", "cascading")
        subject = f"{self._asset} {self._direction}"
        text = f"{subject}: phase unknown, last {self._phase}: {why}"
        return [
            Alert(
                id=f"{self._asset}:{self._direction}:phase_unknown:{self._unknown.began // NS}",
                kind="quality",
                action=action,
                asset=self._asset,
                direction=self._direction,
                phase=None,
                previous=None,
                since=self._unknown.began,
                at=e.at,
                severity="info" if action == "cleared" else "critical" if alarm else "warning",
                score=e.score,
                probability_15m=e.probability(900),
                reasons=[Reason("phase_unknown", why, 0.0)],
                confidence=e.confidence,
                silent=self._unknown.silent if action == "cleared" else self._is_silent(),
                held=self._reserve() if self._phase != "calm" else "",
                text=f"{subject}: phase known again" if action == "cleared" else text,
                code="phase_unknown",
            )
        ]

    def _alert(self, action: Action, previous: Phase, e: Evidence, reasons: list[Reason]) -> Alert:
        held = self._reserve()
        # What hardly contributes is not worth a line, what is unknown is.
        told = [reason.text for reason in reasons if reason.weight >= 0.1][:4]
        told += [brief(reason.text) for reason in reasons if reason.weight == 0][:2]
        why = "; ".join(told) or "no further evidence"
        was = f" (was {previous})" if previous != self._phase else ""
        text = f"{self._asset} {self._direction}: {self._phase}{was}: {why}"
        return Alert(
            id=self._id(),
            kind="risk",
            action=action,
            asset=self._asset,
            direction=self._direction,
            phase=self._phase,
            previous=previous,
            since=self._since,
            at=e.at,
            severity=SEVERITY[self._phase],
            score=e.score,
            probability_15m=e.probability(900),
            reasons=reasons,
            confidence=e.confidence,
            # What nobody was told of needs no all-clear.
            silent=self._is_silent() or (action == "cleared" and self._muted),
            held=held,
            text=f"{text} [{held}]" if held else text,
        )

    def _id(self) -> str:
        return f"{self._asset}:{self._direction}:{self._episode // NS}"

    def _is_silent(self) -> bool:
        return self._started is not None and self._at - self._started < self._rules.observe_s * NS
