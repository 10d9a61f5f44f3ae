"""What-if from the command line: of a running daemon, of what it left in Redis, of a journal.

A running daemon answers by its own solver from the curves it holds, a replayed journal likewise.
From Redis the same solver gets what was published there: maps bucket by bucket, and depth as it is
displayed at ten distances, which is interpolated between them by a power law. What the daemon knows
besides of its books (what they reliably show, how far, how fast arbitrage is) is not published, so
the answers differ; each says what it was solved on.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from msgspec import Struct

from monitor.ask import InRedis, OverHttp, QuestionError, Unanswered, depth_in, heatmap_in, risk_in
from monitor.core.cascade.curves import DISTANCES, Floats
from monitor.core.cascade.insurance import VenueFund
from monitor.core.cascade.stress import Stress, VenueCurves, stress
from monitor.core.forecast.prints import PSI
from monitor.core.heatmap.pooling import by_distance
from monitor.core.prospect import USUAL_W
from monitor.events import Band, Heatmap, Quantities
from monitor.feeds.replay import JournalFiles
from monitor.journal import Header, JournalError
from monitor.pipeline import Pipeline

STEEPEST: Final = 10.0
"""Depth nearer than the first published distance is taken to fall no faster than this power."""


class Question(Struct, frozen=True):
    """What is asked, as `monitor.core.cascade.stress.stress` takes it."""

    shock: float
    within_s: float | None = None
    spot_share: float | None = None


class Answer(Struct, frozen=True):
    """A what-if on what was known at `at_us`.

    `solved_on` the daemon's ``curves``, or on those made of its published ``messages``.
    """

    at_us: int
    asset: str
    stress: Stress
    solved_on: Literal["curves", "messages"]


def of_daemon(daemon: OverHttp, asset: str, question: Question) -> Answer:
    """Let a running daemon answer.

    Raises:
        QuestionError: it has no such asset.
        Unanswered: nobody answers, or nothing is known of the asset.
    """
    known = msgspec.structs.asdict(question)
    given = {name: value for name, value in known.items() if value is not None}
    try:
        return msgspec.json.decode(daemon.stress(asset, given), type=Answer)
    except msgspec.DecodeError as error:
        raise Unanswered(f"the answer is not one of ours: {error}") from error


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
    mechanism = next(
        (d.mechanism for d in risk.directions if d.direction == ("down", "up")[side]), None
    )
    share = measured.spot_share_ratio if question.spot_share is None else question.spot_share
    depths: dict[str, Floats] = {}
    for venue in told.data.venues:
        name = venue.instrument.partition(":")[0]
        curve = _depth_curve(venue.bands, side)
        depths[name] = depths.get(name, np.zeros(len(DISTANCES))) + curve
    venues = []
    for name in dict.fromkeys([*depths, *(m.partition(":")[0] for m in told.data.missing)]):
        try:
            heatmap = heatmap_in(redis.heatmap(asset, name)).data
        except Unanswered:
            heatmap = None
        venues.append(
            VenueCurves(
                name=name,
                mark=None if heatmap is None else heatmap.mark,
                depth=depths.get(name),
                fuel=None if heatmap is None else _fuel_curve(heatmap, side),
                maintenance=measured.maintenance_margin_ratio.get(name),
            )
        )
    found = stress(
        shock,
        venues,
        survival=USUAL_W,
        psi=PSI if mechanism is None else mechanism.psi,
        within_s=question.within_s,
        spot_share=share,
        funds={name: VenueFund(usd, []) for name, usd in measured.insurance_fund_usd.items()},
    )
    return Answer(told.at_us, asset, found, "messages")


def of_journal(journals: list[Path], asset: str, question: Question) -> Answer:
    """Replay a journal to its end and solve it there.

    Raises:
        JournalError: there is no journal, or it holds several runs.
        QuestionError: the journal has no such asset.
        OSError: a file cannot be read.
    """
    files = JournalFiles(dict.fromkeys(path.resolve() for path in journals))
    if len({header.run for header in files.headers}) != 1:
        raise JournalError("name the journal of one run")
    pipeline = Pipeline(files.headers[0].pipeline)
    at = 0
    for record in files:
        if not isinstance(record, Header):
            pipeline.step(record)
            at = record.at
    known = pipeline.engine.assets.get(asset)
    if known is None:
        there = ", ".join(pipeline.engine.assets) or "none"
        raise QuestionError(f"the journal has no {asset}; it has {there}")
    found = known.stress(
        at, question.shock, within_s=question.within_s, spot_share=question.spot_share
    )
    return Answer(at // 1000, asset, found, "curves")


def _depth_curve(bands: list[Band], side: int) -> Floats:
    """Cumulative USD by distance; a power law through the published points and beyond them."""
    usd = np.maximum.accumulate([max(b.bid_usd if side == 0 else b.ask_usd, 1.0) for b in bands])
    near = np.log([b.distance for b in bands])
    logs = np.log(usd)
    here = np.log(DISTANCES[1:])
    first = min(max((logs[1] - logs[0]) / (near[1] - near[0]), 1.0), STEEPEST)
    found = np.interp(here, near, logs)
    found = np.where(here < near[0], logs[0] + first * (here - near[0]), found)
    return np.concatenate(([0.0], np.maximum.accumulate(np.exp(found))))


def _fuel_curve(heatmap: Heatmap, side: int) -> Floats:
    edges = np.log(heatmap.first_price) + heatmap.log_step * np.arange(heatmap.n + 1)
    usd = np.array(heatmap.long_usd if side == 0 else heatmap.short_usd)
    return by_distance(edges, usd, heatmap.mark, "down" if side == 0 else "up")
