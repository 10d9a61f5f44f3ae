"""One underlying over all its venues: the maps of its instruments, added up.

Responsible for what is true of the asset as a whole; `instrument` knows each part.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from monitor.core.calibration import DEFAULT_PRIOR, ThrottleCorrection, Weights
from monitor.core.heatmap import Map
from monitor.core.instrument import MARK_FRESH_NS, InstrumentState
from monitor.core.pooling import Estimate, pooled
from monitor.core.saved import StateError, packed, unpacked
from monitor.events import NS

VERSION: Final = 1

STATE_KEPT_NS: Final = 72 * 3600 * NS
"""An older state is refused: the candles that say what it has missed do not reach further."""


class Saved(Struct, frozen=True):
    """What outlives a restart. `correction` is that of the whole process."""

    version: int
    asset: str
    at: int
    correction: list[list[float]]
    pool: list[list[list[float]]]
    maps: dict[str, bytes]


class Asset:
    """State of one asset.

    Attributes:
        name: such as ``BTC``.
        instruments: in the order in which they were listed.
    """

    def __init__(self, name: str, correction: ThrottleCorrection) -> None:
        """`correction` is shared by all assets."""
        self.name = name
        self.instruments: list[InstrumentState] = []
        self._correction = correction
        self._pool = Weights(DEFAULT_PRIOR)
        self._resumable: dict[str, bytes] = {}

    def add(self, state: InstrumentState) -> None:
        """Take over a new instrument."""
        self.instruments.append(state)

    def specify(self, at: int, state: InstrumentState) -> str | None:
        """Give an instrument the map that its margin tiers allow; why a saved one was refused.

        Without tiers there is no map: where positions are liquidated is then not known.
        """
        spec = state.spec
        if not spec.tiers:
            return None
        known = state.map
        if known is not None and known.instrument.kind == spec.kind:
            if known.instrument.tiers != spec.tiers:
                known.respecify(spec)
            return None
        state.map = Map(spec, correction=self._correction, pool=self._pool)
        reason = self._resume(at, state.map)
        state.tell()
        return reason

    # ------------------------------------------------------------------------------- outputs

    def pooled(self, estimates: Mapping[str, Estimate]) -> Estimate | None:
        """The estimates of all instruments together; None without any."""
        return pooled(self.name, list(estimates.values()), missing=self._missing(estimates))

    def by_venue(self, estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
        """The estimates of each venue's instruments together."""
        found = {}
        missing = self._missing(estimates)
        for venue in dict.fromkeys(state.spec.venue for state in self.instruments):
            own = [e for name, e in estimates.items() if name.startswith(f"{venue}:")]
            absent = [name for name in missing if name.startswith(f"{venue}:")]
            together = pooled(venue, own, missing=absent)
            if together is not None:
                found[venue] = together
        return found

    def _missing(self, estimates: Mapping[str, Estimate]) -> list[str]:
        return [s.spec.name for s in self.instruments if s.spec.name not in estimates]

    def estimates(self, at: int) -> dict[str, Estimate]:
        """What each instrument's map believes, as seen from a mark that is fresh.

        Where the mark is unheard the positions stand where they stood, and the price is taken to
        be that of the largest instrument that is heard. Nothing is known when none is.
        """
        found = {}
        for state in self.instruments:
            estimate = state.map.estimate(at) if state.map is not None else None
            if estimate is not None:
                found[state.spec.name] = (state, estimate)
        fresh = [e for s, e in found.values() if at - s.mark_at <= MARK_FRESH_NS]
        if not fresh:
            return {}
        mark = max(fresh, key=lambda e: e.open_interest_usd).mark
        return {
            name: e if at - s.mark_at <= MARK_FRESH_NS else replace(e, mark=mark)
            for name, (s, e) in found.items()
        }

    # ------------------------------------------------------------------------- warm restart

    def state(self, at: int) -> bytes:
        """Everything needed to go on in another process; empty while nothing is known."""
        maps = {m.instrument.name: m.state() for m in self._maps()}
        known = {name: data for name, data in maps.items() if data}
        if not known:
            return b""
        return packed(
            Saved(
                version=VERSION,
                asset=self.name,
                at=at,
                correction=self._correction.state(),
                pool=self._pool.state(),
                maps=known,
            )
        )

    def resume(self, at: int, data: bytes) -> Mapping[str, str]:
        """Go on from a saved state; the reasons of what was refused, by instrument or asset.

        Maps that are not there yet take theirs over once their specification is known.

        Raises:
            StateError: nothing of it can be used.
        """
        saved = unpacked(data, Saved)
        if saved.version != VERSION:
            raise StateError(f"state version {saved.version}, expected {VERSION}")
        if saved.asset != self.name:
            raise StateError(f"state of {saved.asset}, expected {self.name}")
        if not 0 <= at - saved.at <= STATE_KEPT_NS:
            raise StateError(f"state is {(at - saved.at) / NS / 3600:.1f} h old, at most 72 serve")
        try:
            self._pool.restore(saved.pool)
            self._correction.restore(saved.correction)
        except (ValueError, IndexError) as problem:
            raise StateError(f"state does not fit: {problem}") from problem
        self._resumable = dict(saved.maps)
        refused = {}
        for heatmap in self._maps():
            reason = self._resume(at, heatmap)
            if reason is not None:
                refused[heatmap.instrument.name] = reason
        return refused

    def _resume(self, at: int, heatmap: Map) -> str | None:
        data = self._resumable.pop(heatmap.instrument.name, None)
        if data is None:
            return None
        try:
            heatmap.resume(data)
        except StateError as problem:
            return str(problem)
        heatmap.lost(at)
        return None

    def _maps(self) -> Iterator[Map]:
        return (state.map for state in self.instruments if state.map is not None)
