"""What has happened, whatever was forecast: when a cascade runs, and when the market absorbs it.

A side's cascade takes unusual liquidations of that side and a move that hurts it. The way back of
the other side's cascade hurts it too, and squeezes those who entered late; that alone is none.
"""

from math import exp, log

from monitor.core.alerts.reasons import WORDS, Burst, Evidence, duration, percent
from monitor.core.alerts.rules import AlertRules
from monitor.core.conditions import SIGN
from monitor.events import NS, Direction


def is_heavy(e: Evidence, rules: AlertRules) -> bool:
    """Whether more is liquidated than usual, and enough to matter."""
    if e.liquidated_usd is None:
        return False
    normal = e.normal_liquidated_usd or 0.0
    return e.liquidated_usd[1] >= max(rules.cascade_usd, rules.cascade_rate * normal)


def has_moved(e: Evidence, rules: AlertRules) -> bool:
    """Whether the price has moved unusually far against the side at risk."""
    if e.moves is None or e.moves_sigma is None:
        return False
    return any(
        move >= rules.cascade_move and sigmas >= rules.cascade_sigma
        for move, sigmas in zip(e.moves, e.moves_sigma, strict=True)
    )


def is_rebound(e: Evidence, rules: AlertRules) -> bool:
    """Whether the move takes back the other side's cascade and hurts this one little.

    It does not where the price has gone beyond the level from which that began, nor where so much
    is liquidated as to be an event of its own. What is not known excuses nothing.
    """
    other = e.opposite
    if other is None or e.mark is None or e.liquidated_usd is None:
        return False
    beyond = SIGN[e.direction] * log(e.mark / other.origin)
    own_event = e.liquidated_usd[1] >= rules.rebound_share * other.peak_usd
    return beyond < rules.cascade_move and not own_event


def is_realised(e: Evidence, rules: AlertRules) -> bool:
    """Whether a cascade of this side runs now."""
    return is_heavy(e, rules) and has_moved(e, rules) and not is_rebound(e, rules)


class Cascade:
    """The latest cascade of one direction.

    Attributes:
        peak: the most USD that were liquidated in 60 s.
        extreme: the farthest price, and `extreme_at` when it was reached (ns).
        origin: the price before it began; None where it was not known.
        seen_at: when it was last seen to run (ns); 0 before any.
    """

    def __init__(self, direction: Direction, rules: AlertRules) -> None:
        self._direction: Direction = direction
        self._rules = rules
        self.peak = 0.0
        self.extreme: float | None = None
        self.extreme_at = 0
        self.origin: float | None = None
        self.seen_at = 0

    def begin(self, e: Evidence) -> None:
        """A new one begins, by the move that is seen."""
        self.peak, self.extreme, self.extreme_at = 0.0, e.mark, e.at
        self.origin = None
        if e.mark is not None and e.moves is not None:
            away = max(0.0, *e.moves)
            self.origin = e.mark * exp(-SIGN[self._direction] * away)

    def heard(self, e: Evidence) -> bool:
        """Keep peak and extreme; whether the price goes further."""
        if e.liquidated_usd is not None:
            self.peak = max(self.peak, e.liquidated_usd[1])
        if e.mark is None:
            # An unknown price is no proof of no new extreme.
            self.extreme_at = e.at
            return False
        further = self.extreme is None or (
            e.mark < self.extreme if self._direction == "down" else e.mark > self.extreme
        )
        if further:
            self.extreme, self.extreme_at = e.mark, e.at
        return further

    def burst(self, at: int) -> Burst | None:
        """As the other direction has to know it, for `rebound_s` after it was last seen."""
        if not self.seen_at or at - self.seen_at > self._rules.rebound_s * NS or not self.origin:
            return None
        return Burst(self.origin, self.peak)

    def lacking(self, e: Evidence) -> str:
        """What is not seen of its end, empty where all of it is."""
        rules, words = self._rules, WORDS[self._direction]
        if e.liquidated_usd is None:
            return "liquidations are not heard"
        if e.depth_recovered is None:
            return f"the {words.book} of before is not known"
        if e.mark is None:
            return "no mark price is heard"
        if e.liquidated_usd[1] > rules.absorbed_rate * self.peak:
            return f"liquidations at {percent(self._share(e.liquidated_usd[1]))} of their peak"
        quiet = (e.at - self.extreme_at) / NS
        if quiet < rules.absorbed_extreme_s:
            return f"a new {words.extreme} {duration(quiet)} ago"
        if e.depth_recovered < rules.absorbed_depth:
            return f"the {words.book} at {percent(e.depth_recovered)} of before"
        return ""

    def absorption(self, e: Evidence) -> str:
        """How its end is told."""
        assert e.liquidated_usd is not None, "absorption was seen"
        assert e.depth_recovered is not None, "absorption was seen"
        words = WORDS[self._direction]
        return (
            f"liquidations at {percent(self._share(e.liquidated_usd[1]))} of their peak, "
            f"no new {words.extreme} for {duration((e.at - self.extreme_at) / NS)}, "
            f"the {words.book} back to {percent(e.depth_recovered)} of before"
        )

    def _share(self, usd: float) -> float:
        return usd / self.peak if self.peak > 0 else 0.0
