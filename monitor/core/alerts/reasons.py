"""What is known of an asset's risk in one direction, and how a trader would say it.

`Evidence` is what a phase is decided on, `Picture` the few further numbers that only words need.
`ranked` turns both into sentences, the largest contribution first and what is unknown last.
"""

from collections.abc import Iterable
from math import inf, isfinite

from msgspec import Struct
from msgspec.structs import astuple

from monitor.core.alerts.rules import SHOCK_GAIN
from monitor.core.cascade.curves import STEP
from monitor.core.cascade.loop import as_ratio
from monitor.core.prospect import LARGEST_MOVE, MOVED
from monitor.events import Direction, Phase, Reason

BASE_PROBABILITY = 1e-3
"""Of an ordinary quarter of an hour; where the weight of a probability begins (model.md A12)."""


LEAST_TOLD = 1e-4
"""A smaller move is not worth a word."""

SIGMAS_MOST = 20.0
"""A volatility says no more than that a move is beyond it: larger multiples are told as this."""

LACKS = {
    "structural": "the cascade map",
    "gain": "the cascade map",
    "fuel": "the cascade map",
    "passage": "volatility",
    "sigma_fast": "volatility",
    "sigma_slow": "volatility",
    "depth": "usual depth",
    "refill": "refill of the book",
    "funding": "usual funding",
    "interest": "usual open interest",
    "endogeneity": "self-excitation of liquidations",
    "prints": "usual liquidations",
    "contagion": "contagion",
    "plumbing": "lags and gaps of prices",
}
"""The inputs of a forecast (`monitor.core.forecast.features.INPUTS`) as they are named when they
are unknown."""


class Burst(Struct, frozen=True):
    """A cascade of the other side that runs or ran a short while ago.

    Attributes:
        origin: the price before it began.
        peak_usd: the most that was liquidated in 60 s.
    """

    origin: float
    peak_usd: float


class Evidence(Struct, frozen=True, kw_only=True):
    """What is known at one publication; None is unknown, never zero.

    Attributes:
        score: 0 to 1 (model.md A12); None when no forecast can be made.
        probabilities: of a cascade, by horizon in seconds.
        critical_shock: smallest move that sets a cascade off, a ratio of price. None: none is
            within the curve, or, where `stale` says so, it is not known.
        critical_usd: smallest sale (purchase, upwards) that does.
        critical_requote: smallest move of all quotes at once, as by news, that does; a ratio.
        normal_move: one standard deviation of the price over 15 minutes, a ratio.
        loop_gain: the largest along the path (model.md A8).
        amplification: of a move of `MOVED` standard deviations over 15 minutes; None where it runs
            beyond what is seen.
        reach: the distance within which `fuel_usd` and `depth_usd` are counted, a ratio.
        depth_ratio: usable depth over its 7-day normal.
        depth_recovered: usable depth over that of the time before the shock.
        mark: the asset's mark price.
        liquidated_usd: printed on the losing side in the last 10, 60 and 300 s, corrected for
            throttled feeds; None while no venue's liquidations are heard.
        normal_liquidated_usd: the running normal of the 60 s figure.
        moves: over the last 60 and 300 s, log ratios, positive in the direction of the shock.
        moves_sigma: the same in standard deviations of that duration, volatility as before them.
        open_interest_change: over the last 5 minutes, a ratio.
        confidence: 0 to 1.
        abstaining: why no forecast is stood by, or None.
        stale: why the inputs do not show the present, or None.
        missing: venues whose inputs are not heard.
        contagion: how large a round of moves is that the assets cause each other, to the one before
            (spectral radius, A9); None also while it is not learnt.
        opposite: the other side's cascade, whose retracement this move may be, or None.
    """

    at: int
    asset: str
    direction: Direction
    score: float | None = None
    probabilities: dict[int, float] | None = None
    critical_shock: float | None = None
    critical_usd: float | None = None
    critical_requote: float | None = None
    normal_move: float | None = None
    loop_gain: float | None = None
    amplification: float | None = None
    reach: float | None = None
    fuel_usd: float | None = None
    depth_usd: float | None = None
    depth_ratio: float | None = None
    depth_recovered: float | None = None
    mark: float | None = None
    liquidated_usd: tuple[float, float, float] | None = None
    normal_liquidated_usd: float | None = None
    moves: tuple[float, float] | None = None
    moves_sigma: tuple[float, float] | None = None
    open_interest_change: float | None = None
    confidence: float = 1.0
    abstaining: str | None = None
    stale: str | None = None
    missing: tuple[str, ...] = ()
    contagion: float | None = None
    opposite: Burst | None = None

    def __post_init__(self) -> None:
        """Raise ValueError naming a number that is not finite or not a probability."""
        for name, value in zip(self.__struct_fields__, astuple(self), strict=True):
            if isinstance(value, float):
                numbers: Iterable[object] = (value,)
            elif isinstance(value, tuple):
                numbers = value
            elif isinstance(value, dict):
                numbers = value.values()
            else:
                continue
            for number in numbers:
                if isinstance(number, float) and not isfinite(number):
                    raise ValueError(f"evidence: {name} is {number}")
        bounded = [self.score, self.confidence, *(self.probabilities or {}).values()]
        if any(number is not None and not 0 <= number <= 1 for number in bounded):
            raise ValueError(f"evidence: score, confidence or probability outside 0..1: {bounded}")

    def probability(self, horizon_s: int) -> float | None:
        """Of a cascade within a horizon, None when there is no forecast."""
        return None if self.probabilities is None else self.probabilities.get(horizon_s)


class Unheard(Struct, frozen=True):
    """An input of one venue that is missing; `age_s` is None when it never came."""

    venue: str
    what: str
    age_s: float | None


class Picture(Struct, frozen=True):
    """What only the words need.

    Attributes:
        gain_stretch: the prices between which the loop gain is largest, nearer one first.
        gain_capped: the loop gain is at least what is told: some of it is beyond measure.
        venue_fuel: share of the fuel by venue.
        unheard: inputs that are missing.
        lacking: what the score has to do without, of `LACKS`.
    """

    gain_stretch: tuple[float, float] | None = None
    gain_capped: bool = False
    venue_fuel: tuple[tuple[str, float], ...] = ()
    unheard: tuple[Unheard, ...] = ()
    lacking: tuple[str, ...] = ()


# ----------------------------------------------------------------------------- numbers in words


def money(usd: float) -> str:
    """``$212 M``, ``$1.4 M``, ``$85 k``: two digits or more."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        # A figure that would round up to the next unit is said in that unit.
        if abs(usd) >= 0.9995 * size:
            scaled = usd / size
            return f"${scaled:.0f}{unit}" if abs(scaled) >= 9.95 else f"${scaled:.1f}{unit}"
    return f"${usd:.0f}"


def price(value: float) -> str:
    """``63 900``, ``145.32``, ``0.000012340``: five digits, grouped by thousands."""
    exponent = int(f"{abs(value):.4e}".partition("e")[2])
    return f"{value:,.{max(0, 4 - exponent)}f}".replace(",", " ")


def percent(ratio: float) -> str:
    """``12 %``, ``1.8 %``, ``0.35 %``; what would read as zero is ``under 0.01 %``."""
    value = 100.0 * abs(ratio)
    if value == 0:
        return "0 %"
    if value < 0.01:
        return "under 0.01 %"
    digits = 0 if value >= 9.95 else 1 if value >= 0.995 else 2
    return f"{value:.{digits}f} %"


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2 h``."""
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    if seconds < 5_370:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def brief(listed: str) -> str:
    """``unknown: one, two, three and 4 more``: no more than three of a list."""
    names = listed.split(", ")
    return listed if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


class Words(Struct, frozen=True):
    """The terms of one direction."""

    side: str
    book: str
    move: str
    order: str
    extreme: str


WORDS: dict[Direction, Words] = {
    "down": Words(side="longs", book="bid", move="fall", order="sale", extreme="low"),
    "up": Words(side="shorts", book="ask", move="rise", order="purchase", extreme="high"),
}


# ------------------------------------------------------------------------------------- reasons


def ranked(
    evidence: Evidence, picture: Picture | None = None, *, phase: Phase = "calm"
) -> list[Reason]:
    """Reasons by contribution, largest first; what is unknown comes last, with weight 0.

    What is likely to come is another cascade where the phase is that of one. The weights are the
    components of model.md A12, or saturate as they do.
    """
    picture = Picture() if picture is None else picture
    found = [
        *_structure(evidence, picture),
        *_forecast(evidence, another=phase in ("cascading", "exhausted")),
        *_realised(evidence),
        *_unknown(evidence, picture),
    ]
    return sorted(found, key=lambda reason: (-reason.weight, reason.code, reason.text))


def _structure(e: Evidence, picture: Picture) -> list[Reason]:
    words = WORDS[e.direction]
    found: list[Reason] = []
    within = "" if e.reach is None else f" within {percent(e.reach)}"
    if e.fuel_usd is not None:
        text = f"{money(e.fuel_usd)} of {words.side} liquidate{within}"
        shares = sorted(picture.venue_fuel, key=lambda pair: (-pair[1], pair[0]))
        if shares and shares[0][1] >= 0.5:
            text += f"; of those within 5 %, {percent(shares[0][1])} on {shares[0][0]}"
        # Without a depth to compare with, forced selling counts as equal to what can absorb it.
        depth = e.fuel_usd if e.depth_usd is None else e.depth_usd
        found.append(Reason("fuel", text, _share(e.fuel_usd, depth)))
    normal = _against_normal(e.depth_ratio)
    thin = 0.0 if e.depth_ratio is None else 1 - min(1.0, max(0.0, e.depth_ratio))
    if e.depth_usd is not None:
        text = f"the {words.book} absorbs {money(e.depth_usd)}{within}"
        found.append(Reason("depth", f"{text}, {normal}" if normal else text, max(thin, 0.01)))
    elif normal:
        found.append(Reason("depth", f"the {words.book} is {normal}", max(thin, 0.01)))
    if e.loop_gain is not None:
        # A book that is empty within a step gives no number, only a bound.
        text = f"loop gain {e.loop_gain:.{0 if e.loop_gain >= 9.95 else 1}f}"
        text += " or more" if picture.gain_capped else ""
        if picture.gain_stretch is not None:
            near, far = picture.gain_stretch
            text += f" between {price(near)} and {price(far)}"
        found.append(Reason("loop_gain", text, _share(e.loop_gain, 1.0)))
    if e.critical_shock is not None:
        text = f"a {words.move} of {percent(e.critical_shock)}"
        news = e.critical_requote
        if e.critical_usd is not None:
            text += f" by a {words.order} of {money(e.critical_usd)} and what it closes on its way"
            if news is not None and STEP <= news < e.critical_shock:
                text += f", or of {percent(news)} by news,"
        if _is_here(e):
            text = f"by the map any {words.move} from here runs on by itself; "
            weak = e.loop_gain is not None and e.loop_gain < SHOCK_GAIN
            text += (
                "its loop gain is within the error" if weak else "the chance allows for the error"
            )
            text += " of map and depth"
        else:
            text += " sets it off"
        scale = e.normal_move or 0.01
        found.append(Reason("critical_shock", text, _share(scale, e.critical_shock)))
    found += _amplified(e)
    if e.contagion is not None and e.contagion >= 0.05:
        digits = 2 if e.contagion < 0.995 else 1
        text = f"{words.move}s of the assets cause further ones {e.contagion:.{digits}f} times as"
        text += " large, by how they moved in violent minutes"
        text += ": they would not fade" if e.contagion >= 1 else ""
        found.append(Reason("contagion", text, _share(e.contagion, 1.0)))
    return found


def _is_here(e: Evidence) -> bool:
    """Whether the critical shock is closer than the grid can tell."""
    return e.critical_shock is not None and e.critical_shock < STEP


def _amplified(e: Evidence) -> list[Reason]:
    """What becomes of an ordinary move, which may be one that needs no further push."""
    if e.normal_move is None or e.loop_gain is None or _is_here(e):
        return []
    move = min(MOVED * e.normal_move, LARGEST_MOVE)
    nearest = min((x for x in (e.critical_shock, e.critical_requote) if x is not None), default=inf)
    runs = nearest <= move
    if not runs and e.amplification is not None and e.amplification <= 1.05:
        return []
    text = f"a {WORDS[e.direction].move} of {percent(move)},"
    text += " twice what is normal in 15 min," if move < LARGEST_MOVE else ""
    text += " is past the critical one and" if runs else ""
    if e.amplification is None:
        text += " would run farther than can be seen"
    else:
        text += f" would {'run' if runs else 'go'} {max(e.amplification, 1.0):.1f} times as far"
    weight = 1.0 if e.amplification is None else 1 - 1 / max(e.amplification, 1.0)
    if runs:
        # It adds nothing to the critical shock but how far that is.
        weight = min(weight, _share(e.normal_move, nearest))
    return [Reason("amplification", text, weight)]


def _against_normal(ratio: float | None) -> str:
    if ratio is None:
        return ""
    if 0.95 < ratio < 1.05:
        return "at its 7-day normal"
    if ratio >= 2:
        return f"{ratio:.1f} times its 7-day normal"
    return f"{percent(1 - ratio)} {'below' if ratio < 1 else 'above'} its 7-day normal"


def _forecast(e: Evidence, *, another: bool) -> list[Reason]:
    p = e.probability(900)
    if p is None:
        return []
    weight = e.score if e.score is not None else min(1.0, p / (p + 30 * BASE_PROBABILITY))
    text = f"{percent(p)} chance of {'another' if another else 'a'} cascade within 15 minutes"
    return [Reason("probability", text, max(weight, 0))]


def _realised(e: Evidence) -> list[Reason]:
    words = WORDS[e.direction]
    found: list[Reason] = []
    if e.liquidated_usd is not None and e.liquidated_usd[1] > 0:
        latest, normal = e.liquidated_usd[1], e.normal_liquidated_usd
        text = f"{money(latest)} of {words.side} liquidated in 60 s"
        if normal:
            # Less than a dollar a minute is nothing to compare with.
            times = latest / max(normal, 1.0)
            text += f", {times:.0f} times normal" if times >= 1.5 else ", no more than normal"
        # Where nobody knows what is normal, a book that it would empty is the measure.
        usual = 10 * normal if normal else e.depth_usd
        weight = _share(latest, latest if usual is None else usual)
        found.append(Reason("liquidations", text, weight))
    if e.moves is not None:
        sigmas = e.moves_sigma or (0.0, 0.0)
        # The window in which the move is the more unusual one.
        at = 0 if sigmas[0] > sigmas[1] else 1
        if e.moves[at] >= LEAST_TOLD:
            move = as_ratio(e.moves[at], e.direction)
            text = f"a {words.move} of {percent(move)} within {(60, 300)[at]} s"
            if sigmas[at] >= 1:
                beyond = sigmas[at] > SIGMAS_MOST
                multiple = f"more than {SIGMAS_MOST:.0f}" if beyond else f"{sigmas[at]:.1f}"
                text += f", {multiple} standard deviations by the volatility before it"
            text += _back(e)
            found.append(Reason("move", text, _share(max(0.0, sigmas[at]), 4.0)))
    if e.open_interest_change is not None and e.open_interest_change <= -0.0025:
        # 3 % is the strongest tier of the label (model.md A12).
        text = f"open interest down {percent(e.open_interest_change)} in 5 min"
        found.append(Reason("open_interest", text, min(1.0, -e.open_interest_change / 0.03)))
    return found


def _back(e: Evidence) -> str:
    """Said of a move that takes back the other side's."""
    if e.opposite is None or e.mark is None:
        return ""
    short = e.mark > e.opposite.origin if e.direction == "down" else e.mark < e.opposite.origin
    other = WORDS["up" if e.direction == "down" else "down"].move
    return f", back towards {price(e.opposite.origin)} where the {other} began" if short else ""


def _unknown(e: Evidence, picture: Picture) -> list[Reason]:
    found = []
    for gap in picture.unheard:
        if gap.age_s is None:
            text = f"{gap.what} of {gap.venue} never heard: it is not counted"
        else:
            text = f"{gap.what} of {gap.venue} unheard for {duration(gap.age_s)}"
            text += ": its fuel is as of then" if gap.what == "open interest" else ""
        found.append(Reason("unheard", text, 0.0))
    told = {gap.venue for gap in picture.unheard}
    found += [Reason("unheard", f"{v} is not heard", 0.0) for v in e.missing if v not in told]
    unknown = {
        "fuel": e.fuel_usd is None,
        "depth": e.depth_usd is None and e.depth_ratio is None,
        "liquidations": e.liquidated_usd is None,
        "the forecast": e.score is None,
    }
    names = [name for name, is_unknown in unknown.items() if is_unknown]
    # Of what is not known at all nobody asks what is usual.
    lacking = [LACKS[name] for name in picture.lacking]
    names += [name for name in dict.fromkeys(lacking) if name.removeprefix("usual ") not in names]
    if names:
        found.append(Reason("unknown", f"unknown: {', '.join(names)}", 0.0))
    if e.stale is not None:
        found.append(Reason("stale", e.stale, 0.0))
    return found


def _share(part: float, rest: float) -> float:
    """``part / (part + rest)``, 0 when both are."""
    total = part + rest
    return part / total if total > 0 else 0.0
