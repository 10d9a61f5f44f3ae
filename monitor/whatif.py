"""What-if from the command line: of a running daemon, of what it left in Redis, of a journal.

A running daemon answers by its own solver from the curves it holds, a replayed journal likewise.
From Redis the same solver gets what was published there: maps bucket by bucket, and depth as it is
displayed at ten distances, with power laws between and behind. What the daemon knows besides of its
books (what they reliably show, how the tail of one that shows little goes on, how fast arbitrage
is) is not published, so that answer is the coarser one; each says what it was solved on.
"""

from itertools import takewhile
from math import exp
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from msgspec import Struct

from monitor.ask import (
    InRedis,
    NotThereError,
    OverHttp,
    QuestionError,
    Unanswered,
    depth_in,
    heatmap_in,
    risk_in,
)
from monitor.core.cascade.curves import DISTANCES, Floats
from monitor.core.cascade.insurance import VenueFund
from monitor.core.cascade.stress import Stress, VenueCurves, stress
from monitor.core.depth.supply import (
    FIT_POINTS,
    KAPPA,
    KAPPA_MAX,
    KAPPA_MIN,
    continued,
    tail_exponent,
)
from monitor.core.forecast.prints import PSI, PSI_MOST
from monitor.core.heatmap.pooling import by_distance
from monitor.core.prospect import USUAL_W
from monitor.events import Band, DirectionRisk, Heatmap, Quantities
from monitor.feeds.replay import JournalFiles
from monitor.journal import Header, JournalError
from monitor.pipeline import Pipeline

STEEPEST: Final = 10.0
"""Depth nearer than the first published distance is taken to fall no faster than this power."""

AT_CAP: Final = 0.999
"""Of psi's cap, from which its estimate is taken to stand there."""

STOOD_IN: Final = ("order book", "mark price")
"""Inputs for which another stands in, as the risk message calls those that are not heard."""


class Question(Struct, frozen=True):
    """What is asked, as `monitor.core.cascade.stress.stress` takes it."""

    shock: float
    within_s: float | None = None
    spot_share: float | None = None


class Answer(Struct, frozen=True):
    """A what-if on what was known at `at_us`.

    `solved_on` the daemon's ``curves``, or on those made of its published ``messages``, which is
    coarser. `source` is whom the command asked: an address, or a journal.
    """

    at_us: int
    asset: str
    stress: Stress
    solved_on: Literal["curves", "messages"]
    source: str = ""


def of_daemon(daemon: OverHttp, asset: str, question: Question) -> Answer:
    """Let a running daemon answer.

    Raises:
        QuestionError: it has no such asset.
        Unanswered: nobody answers, or nothing is known of the asset.
    """
    known = msgspec.structs.asdict(question)
    given = {name: value for name, value in known.items() if value is not None}
    try:
        told = msgspec.json.decode(daemon.stress(asset, given), type=Answer)
    except msgspec.DecodeError as error:
        raise Unanswered(f"the answer is not one of ours: {error}") from error
    return msgspec.structs.replace(told, source=daemon.url)


def of_redis(redis: InRedis, asset: str, question: Question) -> Answer:
    """Solve it here, from what a daemon has published.

    Raises:
        Unanswered: the asset's messages are not there.
    """
    told = depth_in(redis.depth(asset))
    shock = question.shock
    side = 0 if shock < 0.0 else 1
    risk = risk_in(redis.risk(asset)).data
    measured = risk.quantities or Quantities()
    own = next((d for d in risk.directions if d.direction == ("down", "up")[side]), None)
    psi, capped = _psi(own)
    share = measured.spot_share_ratio if question.spot_share is None else question.spot_share
    depths: dict[str, Floats] = {}
    for venue in told.data.venues:
        name = venue.instrument.partition(":")[0]
        curve = _depth_curve(venue.bands, side)
        depths[name] = depths.get(name, np.zeros(len(DISTANCES))) + curve
    unheard = [said.partition(": ")[::2] for said in risk.missing]
    venues = []
    for name in dict.fromkeys([*depths, *(m.partition(":")[0] for m in told.data.missing)]):
        try:
            heatmap = heatmap_in(redis.heatmap(asset, name)).data
        except NotThereError:
            heatmap = None
        venues.append(
            VenueCurves(
                name=name,
                mark=None if heatmap is None else heatmap.mark,
                depth=depths.get(name),
                fuel=None if heatmap is None else _fuel_curve(heatmap, side),
                maintenance=measured.maintenance_margin_ratio.get(name),
                unheard=[what for what in STOOD_IN if (name, what) in unheard],
            )
        )
    found = stress(
        shock,
        venues,
        survival=USUAL_W,
        psi=psi,
        psi_capped=capped,
        within_s=question.within_s,
        spot_share=share,
        funds={name: VenueFund(usd, []) for name, usd in measured.insurance_fund_usd.items()},
        unlisted=list(dict.fromkeys(venue for venue, what in unheard if what == "specification")),
    )
    return Answer(told.at_us, asset, found, "messages", redis.url)


def of_journal(journals: list[Path], asset: str, question: Question) -> Answer:
    """Replay a journal to its end and solve it there.

    Raises:
        JournalError: there is no journal, it is damaged, or it holds several runs.
        QuestionError: the journal has no such asset.
        OSError: a file cannot be read.
    """
    files = JournalFiles(dict.fromkeys(path.resolve() for path in journals))
    try:
        header = files.run()
    except JournalError as error:
        raise JournalError(f"--journal {error}") from error
    pipeline = Pipeline(header.pipeline)
    at = 0
    for record in files:
        if not isinstance(record, Header):
            pipeline.step(record)
            at = record.at
    for damage in files.damages:
        if damage.reason != "torn":  # which is what a crash leaves
            raise JournalError(
                f"--journal {damage.path}: {damage.reason} from byte {damage.offset} on; what came "
                "after it is not known"
            )
    known = pipeline.engine.assets.get(asset)
    if known is None:
        there = ", ".join(pipeline.engine.assets) or "none"
        raise QuestionError(f"the journal has no {asset}; it has {there}")
    found = known.stress(
        at, question.shock, within_s=question.within_s, spot_share=question.spot_share
    )
    return Answer(at // 1000, asset, found, "curves", ", ".join(map(str, journals)))


def _psi(risk: DirectionRisk | None) -> tuple[float, bool]:
    """Psi as published, and whether its estimate, before what is refilled, stands at its cap."""
    if risk is None or risk.mechanism is None:
        return PSI, False
    left = risk.components.get("refill_failure")
    whole = risk.mechanism.psi / (1.0 if left is None else left)
    return risk.mechanism.psi, whole >= AT_CAP * PSI_MOST


def _depth_curve(bands: list[Band], side: int) -> Floats:
    """Cumulative USD by distance: power laws through what is displayed at the published distances.

    The book is taken to end where the law of the last two bands that are shown in full reaches
    what is displayed in the next. From there on the tail is the daemon's, and nowhere less than
    what is displayed.
    """
    ratios = np.array([b.distance for b in bands])
    near = np.log(-np.log1p(-ratios) if side == 0 else np.log1p(ratios))
    shown = [max(b.bid_usd if side == 0 else b.ask_usd, 1.0) for b in bands]
    logs = np.log(np.maximum.accumulate(shown))
    # Where not even the first is shown in full, it is taken so: a lower bound.
    full = sum(takewhile(bool, (b.bid_complete if side == 0 else b.ask_complete for b in bands)))
    last = max(full, 1) - 1
    if 0 < last < len(bands) - 1:
        slope = (logs[last] - logs[last - 1]) / (near[last] - near[last - 1])
        slope = min(max(slope, KAPPA_MIN), KAPPA_MAX)
        end = near[last] + (logs[last + 1] - logs[last]) / slope
        if near[last] < end < near[last + 1]:
            near = np.insert(near, last + 1, end)
            logs = np.insert(logs, last + 1, logs[last + 1])
        last += int(end > near[last])
    here = np.log(DISTANCES[1:])
    first = (logs[1] - logs[0]) / (near[1] - near[0]) if last else KAPPA
    inner = logs[0] + min(max(first, 1.0), STEEPEST) * (here - near[0])
    found = np.where(here < near[0], inner, np.interp(here, near, logs))
    displayed = np.concatenate(([0.0], np.maximum.accumulate(np.exp(found))))
    reach = exp(near[last])
    # A law through fewer bands has no error by which the fit could know how little it is worth.
    kappa = tail_exponent(displayed, reach) if last >= FIT_POINTS else KAPPA
    return continued(displayed, reach, exp(logs[last]), kappa)


def _fuel_curve(heatmap: Heatmap, side: int) -> Floats:
    edges = np.log(heatmap.first_price) + heatmap.log_step * np.arange(heatmap.n + 1)
    usd = np.array(heatmap.long_usd if side == 0 else heatmap.short_usd)
    return by_distance(edges, usd, heatmap.mark, "down" if side == 0 else "up")
