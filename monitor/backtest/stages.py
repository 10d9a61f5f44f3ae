"""The named scenarios through the engine: what was said before, during and after the cascade.

A burst is the first second at which the forced closes of the side at risk, summed over a minute
and all venues, reach `BURST` of the asset's usual depth within 1 %. A phase counts as said before
it only when it was published earlier. As in the demo, maps begin with the prior that is fitted to
the simulated market.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from msgspec import Struct

from monitor.backtest.hearing import Hearing, configured
from monitor.backtest.runs import asset_of
from monitor.core.conditions import SIDE_OF
from monitor.core.engine import Engine
from monitor.events import Alert, Direction, Risk
from monitor.sim.market import Market
from monitor.sim.parameters import Variant
from monitor.sim.scenarios import Name, scenario

NAMES: Final[tuple[Name, ...]] = ("crash", "squeeze", "calm", "venue-outage")
MINUTES: Final = 15
PUBLISH_S: Final = 5
BURST: Final = 0.1
ORDER: Final = ("unknown", "calm", "watch", "warning", "critical", "exhausted", "cascading")
"""Phases from the least to the most alarming."""
LEVELS: Final = ("watch", "warning", "critical")


class Staged(Struct, frozen=True):
    """One run of a scenario; times in seconds from its start, None where it never happened.

    Attributes:
        burst_s: when the first large burst was reached.
        reached_s: when each phase, or a more alarming one, was first published on the side at risk.
        wrong_s: the same on the other side.
        during: whether ``cascading`` was published within two minutes after the burst.
        exhausted_s: when ``exhausted`` was first published on the side at risk.
        fault_s: when a data-quality alert was first raised.
        lowered: whether the phase of the side at risk fell during the outage.
        first_score: of the first publication with one, on the side at risk.
    """

    scenario: str
    seed: int
    burst_s: int | None
    reached_s: dict[str, int]
    wrong_s: dict[str, int]
    during: bool
    exhausted_s: int | None
    fault_s: int | None
    lowered: bool
    first_score: float | None


def play(name: Name, seed: int, *, variant: Variant = "first", minutes: int = MINUTES) -> Staged:
    """Run a scenario through the engine."""
    asset = asset_of(seed)
    chosen = scenario(name, seed)
    market = Market(chosen, seed=seed, variant=variant, assets=(asset,))
    hearing = Hearing(market, Engine(configured(PUBLISH_S, prior="simulated")))
    at_risk: Direction = "up" if name == "squeeze" else "down"
    recent: deque[float] = deque(maxlen=60)
    burst: int | None = None
    fault: int | None = None
    first_score: float | None = None
    phases: dict[Direction, list[tuple[int, str]]] = {"down": [], "up": []}
    for second in range(1, minutes * 60 + 1):
        said = hearing.second()
        recent.append(hearing.forced.get((asset.name, SIDE_OF[at_risk]), 0.0))
        if burst is None and sum(recent) >= BURST * asset.depth_usd:
            burst = second
        for message in said:
            body = message.data
            if isinstance(body, Alert) and body.kind == "quality" and body.action == "raised":
                is_feed = body.code in ("venue_silent", "book_unsynced", "mark_stale")
                fault = second if fault is None and is_feed else fault
            if isinstance(body, Risk):
                for risk in body.directions:
                    phases[risk.direction].append((second, risk.phase))
                    if risk.direction == at_risk and first_score is None:
                        first_score = risk.score
    own = phases[at_risk]
    other = phases["up" if at_risk == "down" else "down"]
    cascading = [s for s, phase in own if phase == "cascading"]
    return Staged(
        scenario=name,
        seed=seed,
        burst_s=burst,
        reached_s=_reached(own),
        wrong_s=_reached(other),
        during=burst is not None and any(burst - 60 <= s <= burst + 120 for s in cascading),
        exhausted_s=next((s for s, phase in own if phase == "exhausted"), None),
        fault_s=fault,
        lowered=any(_fell(own, o.start_s, o.start_s + o.over_s) for o in chosen.outages),
        first_score=first_score,
    )


def _reached(phases: Sequence[tuple[int, str]]) -> dict[str, int]:
    found = {}
    for level in (*LEVELS, "cascading"):
        rank = ORDER.index(level)
        # Exhausted stands above critical only because a cascade came before it.
        first = next((s for s, phase in phases if ORDER.index(phase) >= rank), None)
        if first is not None:
            found[level] = first
    return found


def _fell(phases: Sequence[tuple[int, str]], start_s: float, end_s: float) -> bool:
    ranks = [ORDER.index(phase) for s, phase in phases if start_s - PUBLISH_S <= s <= end_s]
    # The end of a cascade is no fall of the risk by the outage.
    ranks = [min(rank, ORDER.index("exhausted")) for rank in ranks]
    return any(after < before for before, after in pairwise(ranks))


def table(
    seeds: Sequence[int], *, progress: Callable[[str], None] = lambda _: None
) -> list[Staged]:
    """Every scenario on every seed."""
    found = []
    for name in NAMES:
        for seed in seeds:
            found.append(play(name, seed))
            progress(f"{name} {seed}")
    return found


def summary(found: Sequence[Staged]) -> dict[str, Any]:
    """Shares by scenario; of runs with a burst where a burst is asked for."""
    out: dict[str, Any] = {}
    for name in NAMES:
        own = [s for s in found if s.scenario == name]
        bursts = [s for s in own if s.burst_s is not None]
        before = {level: [s for s in bursts if _led(s, level) > 0] for level in LEVELS}
        out[name] = {
            "runs": len(own),
            "bursts": len(bursts),
            "median_burst_s": _median([float(s.burst_s or 0) for s in bursts]),
            "before": {level: _share(len(before[level]), len(bursts)) for level in LEVELS},
            "median_lead_s": {
                level: _median([float(_led(s, level)) for s in before[level]]) for level in LEVELS
            },
            "cascading_during": _share(sum(s.during for s in bursts), len(bursts)),
            "exhausted_after": _share(sum(s.exhausted_s is not None for s in bursts), len(bursts)),
            "raised": {
                level: _share(sum(level in s.reached_s for s in own), len(own))
                for level in (*LEVELS, "cascading")
            },
            "raised_other_side": {
                level: _share(sum(level in s.wrong_s for s in own), len(own))
                for level in (*LEVELS, "cascading")
            },
            "quality_alert": _share(sum(s.fault_s is not None for s in own), len(own)),
            "lowered_in_outage": _share(sum(s.lowered for s in own), len(own)),
        }
    return out


def _led(s: Staged, level: str) -> int:
    """Seconds by which the burst came after the phase; 0 or less if it did not."""
    reached = s.reached_s.get(level)
    return 0 if reached is None or s.burst_s is None else s.burst_s - reached


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
