"""A liquidation map as a PNG: price over time on the left, the map of now on the right.

Draws what it is given and asks nobody. matplotlib comes with the extra ``picture`` and is imported
only to draw.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise
from math import log
from statistics import median
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.events import Heatmap, HeatmapRow, Side
from monitor.summary import REACH, at_risk, clusters, dollars, edges_of, percent, price_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

NAMED: Final = 2
"""Clusters of each side whose amount is written beside them."""

GAP: Final = 2.5
"""Rows that many usual intervals apart have a gap between them, which stays empty."""

BRIGHTEST: Final = 0.99
"""Quantile of the amounts that has the full colour; what is above has it too."""

SMALLEST, LARGEST = (640, 400), (7680, 4320)
"""Pixels; below the first the text would not fit."""

DPI: Final = 100
_SIDES: Final[tuple[Side, Side]] = ("long", "short")
_MICROSECOND: Final = 1e-6


class PictureError(Exception):
    """There can be no picture; the message says why."""


class Theme(Struct, frozen=True):
    """Colours; longs and shorts differ to every kind of colour blindness (Okabe and Ito)."""

    paper: str
    ink: str
    faint: str
    long: str
    short: str
    alarm: str


LIGHT: Final = Theme("#ffffff", "#1a1a1a", "#d9d9d9", "#d55e00", "#0072b2", "#9b0040")
DARK: Final = Theme("#14171c", "#e8e8e8", "#3a404a", "#f0892b", "#56b4e9", "#ff8fb0")


def draw(
    heatmap: Heatmap,
    *,
    asset: str,
    venue: str,
    at_us: int,
    history: Sequence[tuple[int, HeatmapRow]] = (),
    size: tuple[int, int] = (1600, 900),
    dark: bool = False,
) -> bytes:
    """The PNG of a map.

    Args:
        heatmap: what is known now.
        asset: the underlying.
        venue: empty where all venues are pooled.
        at_us: time of the map, microseconds since 1970.
        history: time (microseconds) and row, oldest first; without any there is no left half.
        size: pixels.
        dark: light on dark.

    Raises:
        PictureError: matplotlib is not installed, or the picture would be too small to be read.
    """
    if not all(low <= n <= high for low, n, high in zip(SMALLEST, size, LARGEST, strict=True)):
        least, most = ("x".join(map(str, s)) for s in (SMALLEST, LARGEST))
        raise PictureError(f"a picture has from {least} to {most} pixels")
    try:
        from matplotlib import rc_context  # noqa: PLC0415 (optional and slow to load)
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise PictureError(
            "a PNG needs matplotlib; install it with: pip install 'cascade-monitor[picture]'"
        ) from error
    theme = DARK if dark else LIGHT
    with rc_context(style(theme, size)):
        figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        Page(figure, theme, heatmap, history).fill(asset, venue, at_us)
        out = BytesIO()
        figure.savefig(out, format="png", metadata={"Software": "cascade-monitor"})
    return out.getvalue()


def style(theme: Theme, size: tuple[int, int]) -> Any:  # noqa: ANN401 (matplotlib's own keys)
    """Settings of matplotlib; fonts grow with the picture, but slower."""
    font = min(22.0, max(7.0, 9.0 * (min(size[0] / 1600, size[1] / 900)) ** 0.6))
    return {
        "font.family": "DejaVu Sans",
        "font.size": font,
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "axes.edgecolor": theme.ink,
        "axes.labelcolor": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.faint,
        "axes.linewidth": 0.6,
        "grid.linewidth": 0.5,
    }


class Page:
    """One picture in the making, under `style`. Lengths are in inches, from left and bottom."""

    def __init__(
        self,
        figure: "Figure",
        theme: Theme,
        heatmap: Heatmap,
        history: Sequence[tuple[int, HeatmapRow]],
    ) -> None:
        import matplotlib as mpl  # noqa: PLC0415

        self.figure, self.theme, self.heatmap = figure, theme, heatmap
        # Rows of another bucket width cannot stand in the same picture.
        self.history = [(at, row) for at, row in history if row.log_step == heatmap.log_step]
        self.width, self.height = figure.get_size_inches().tolist()
        self.em = float(mpl.rcParams["font.size"]) / 72
        self.low, self.high = self._range()

    def fill(self, asset: str, venue: str, at_us: int) -> None:
        """Lay out and draw everything."""
        top = self.height - self._header(asset, venue, at_us)
        digits = len(price_text(self.high, self.high - self.low))
        left, right, bottom = (0.66 * digits + 3.0) * self.em, 5.2 * self.em, 4.6 * self.em
        inner = self.width - left - right
        tall = top - bottom
        if self.history:
            wide = 0.60 * inner
            picture = self._axes(left, bottom, wide, tall)
            self._picture(picture)
            gap = 7.6 * self.em
            profile = self._axes(left + wide + gap, bottom, inner - wide - gap, tall)
            self._colours(left + wide + 0.6 * self.em, bottom, tall)
            self._prices(profile, labels=False)
        else:
            profile = self._axes(left, bottom, inner, tall)
            self._prices(profile, labels=True)
        self._profile(profile)

    def _axes(self, left: float, bottom: float, width: float, height: float) -> "Axes":
        w, h = self.width, self.height
        return self.figure.add_axes((left / w, bottom / h, width / w, height / h))

    def _range(self) -> tuple[float, float]:
        """Prices from and to which is drawn: around the mark, and wherever it has been."""
        marks = [row.mark for _, row in self.history]
        mark, edges = self.heatmap.mark, edges_of(self.heatmap)
        low = min([mark * (1 - REACH), *(0.99 * m for m in marks)])
        high = max([mark * (1 + REACH), *(1.01 * m for m in marks)])
        return max(low, float(edges[0])), min(high, float(edges[-1]))

    # ------------------------------------------------------------------------------- words

    def _header(self, asset: str, venue: str, at_us: int) -> float:
        """Write what must be known to read the picture; returns the height it takes."""
        h, theme = self.heatmap, self.theme
        at = datetime.fromtimestamp(at_us * _MICROSECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        whose = venue or f"{len(h.venues)} venues pooled ({', '.join(h.venues)})"
        origin = (
            "warm start, the rest assumed from open interest and candles"
            if h.provenance == "warm_start"
            else "the rest assumed"
        )
        facts = (
            f"map confidence {percent(h.confidence)}",
            f"coverage {percent(h.coverage)} of open interest",
            f"heard {percent(h.heard)} ({origin})",
            f"level uncertain by {h.scale_low:.2f} to {h.scale_high:.2f} times (80 %)",
            "faint: 80 % interval of each bucket",
        )
        missing = (f"missing, so unknown and not zero: {', '.join(h.missing)}",)
        lines: list[tuple[tuple[str, ...], str, float, bool]] = [
            ((f"{asset} liquidation map", whose, at), theme.ink, 1.35, True),
            (at_risk(h, "long"), theme.long, 1.1, False),
            (at_risk(h, "short"), theme.short, 1.1, False),
            (facts, theme.ink, 0.95, False),
            (missing, theme.alarm, 1.0, True)
            if h.missing
            else (("nothing is missing",), theme.ink, 0.95, False),
        ]
        y = self.height - 0.8 * self.em
        for parts, colour, scale, is_bold in lines:
            em = self.em * scale
            # A letter is about 0.6 em wide, a bold one a little more.
            columns = int((self.width - 2 * self.em) / (em * (0.68 if is_bold else 0.6)))
            for text in _folded(parts, columns):
                self.figure.text(
                    self.em / self.width,
                    y / self.height,
                    text,
                    va="top",
                    color=colour,
                    fontsize=em * 72,
                    fontweight="bold" if is_bold else "normal",
                )
                y -= 1.5 * em
        return float(self.height - y + 1.6 * self.em)

    # ------------------------------------------------------------------------ price and time

    def _picture(self, axes: "Axes") -> None:
        from matplotlib.dates import AutoDateLocator, DateFormatter, date2num  # noqa: PLC0415

        times, rows = _columns(self.history)
        when = [datetime.fromtimestamp(t * _MICROSECOND, UTC) for t in times]
        day = date2num(when)  # type: ignore[no-untyped-call]  # matplotlib's dates have no types
        first, stacked = _stacked(rows)
        step = self.heatmap.log_step
        prices = np.exp((first + np.arange(stacked.shape[1] + 1)) * step)
        # A few buckets of one moment, such as a map without its past, must not dim all others.
        some = stacked[stacked > 0]
        self._scale = float(np.quantile(some, BRIGHTEST)) if some.size else 1.0
        # What is not known is hatched, what is known to be empty is blank.
        axes.patch.set(hatch="////", edgecolor=self.theme.faint, linewidth=0)
        known = np.ma.masked_where(np.isnan(stacked[:, :, 0]), np.zeros(stacked.shape[:2]))
        axes.pcolormesh(day, prices, known.T, cmap=self._map(self.theme.paper), rasterized=True)
        for side, colour in enumerate((self.theme.long, self.theme.short)):
            own, other = stacked[:, :, side], stacked[:, :, 1 - side]
            shown = np.ma.masked_where(~(own > 0) | (own < other), own)
            axes.pcolormesh(
                day, prices, shown.T, cmap=self._map(colour), norm=self._norm(), rasterized=True
            )
        marks = np.array([np.nan if row is None else row.mark for row in rows])
        axes.step(day, np.append(marks, marks[-1:]), where="post", color=self.theme.ink, lw=1.6)
        self._prices(axes, labels=True)
        axes.set_xlim(day[0], day[-1])
        dates = AutoDateLocator(minticks=2, maxticks=self._ticks(axes))  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(dates)
        lasted_s = (times[-1] - times[0]) * _MICROSECOND
        form = "%H:%M:%S" if lasted_s < 900 else "%H:%M" if lasted_s < 86_400 else "%d %b %H:%M"
        axes.xaxis.set_major_formatter(DateFormatter(form, tz=UTC))  # type: ignore[no-untyped-call]
        axes.set_xlabel("time (UTC); line: mark; hatched: not heard")
        axes.set_title("map over time, USD per bucket", fontsize=self.em * 72, pad=4)

    def _ticks(self, axes: "Axes") -> int:
        """Time labels that fit side by side."""
        inches = float(axes.get_position().width) * self.width
        return max(2, int(inches / (7.5 * self.em)))

    def _map(self, colour: str) -> Any:  # noqa: ANN401 (an optional package's type)
        from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415

        return LinearSegmentedColormap.from_list("side", [self.theme.paper, colour])

    def _norm(self) -> Any:  # noqa: ANN401
        from matplotlib.colors import PowerNorm  # noqa: PLC0415

        # A little brighter than in proportion, so that small amounts are seen too.
        return PowerNorm(0.7, 0.0, self._scale)

    def _colours(self, left: float, bottom: float, tall: float) -> None:
        """What the colours of the left half mean, beside it."""
        from matplotlib.cm import ScalarMappable  # noqa: PLC0415

        width, length = 0.9 * self.em, max(0.5 * tall - 4.4 * self.em, self.em)
        small = self.em * 72 * 0.85
        unit, size = _unit(self._scale)
        for base, name, colour in (
            (bottom + 0.6 * self.em, "longs", self.theme.long),
            (bottom + 0.5 * tall + 0.6 * self.em, "shorts", self.theme.short),
        ):
            axes = self._axes(left, base, width, length)
            bar = self.figure.colorbar(
                ScalarMappable(norm=self._norm(), cmap=self._map(colour)), cax=axes
            )
            ticks = [share * self._scale for share in (0.0, 0.5, 1.0)]
            names = ["0", *(f"{usd / size:.2g}" for usd in ticks[1:])]
            bar.set_ticks(ticks, labels=[*names[:-1], f"{names[-1]}+"])
            bar.ax.tick_params(labelsize=small, length=2)
            axes.set_title(f"{name}\n{unit}", fontsize=small, loc="left", pad=0.8 * small)

    # ------------------------------------------------------------------------------- profile

    def _profile(self, axes: "Axes") -> None:
        h, theme = self.heatmap, self.theme
        edges = edges_of(h)
        inside = (edges[1:] > self.low) & (edges[:-1] < self.high)
        sides = [
            (colour, [np.array(values) for values in (low, usd, high)])
            for colour, low, usd, high in (
                (theme.long, h.long_low, h.long_usd, h.long_high),
                (theme.short, h.short_low, h.short_usd, h.short_high),
            )
        ]
        most = max(float(values[inside].max()) for _, three in sides for values in three)
        unit, size = _unit(most)
        for colour, (low, mean, high) in sides:
            low_end = np.minimum(low, mean)
            for start, end, alpha in (
                (np.zeros_like(mean), low_end, 1.0),
                (low_end, mean, 0.8),
                (mean, np.maximum(high, mean), 0.2),
            ):
                axes.stairs(
                    end / size,
                    edges,
                    baseline=start / size,
                    orientation="horizontal",
                    fill=True,
                    color=colour,
                    alpha=alpha,
                    lw=0,
                )
        axes.set_xlim(0.0, most / size * 1.05 or 1.0)
        axes.axhline(h.mark, color=theme.ink, lw=1.4)
        axes.annotate(
            f"mark {price_text(h.mark, self.high - self.low)}",
            (1.0, h.mark),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontweight="bold",
            bbox={"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        )
        self._name_clusters(axes)
        axes.set_xlabel(f"{unit} per bucket of {percent(h.log_step)}")
        axes.set_title("map of now", fontsize=self.em * 72, pad=4)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        away = axes.secondary_yaxis(
            "right",
            functions=(
                lambda price: (np.asarray(price) / h.mark - 1) * 100,
                lambda percent: (1 + np.asarray(percent) / 100) * h.mark,
            ),
        )
        away.set_ylabel("distance from the mark, %", labelpad=2)
        away.yaxis.set_major_formatter(lambda x, _: f"{x:+.3g}" if abs(x) > 1e-9 else "0")

    def _name_clusters(self, axes: "Axes") -> None:
        """Write the amount of the largest clusters beside them, as far as there is room."""
        h = self.heatmap
        line = 1.8 * self.em / (axes.get_position().height * self.height) * (self.high - self.low)
        taken = [h.mark, h.mark + line]
        for side in _SIDES:
            for c in clusters(h, side, count=NAMED, reach=REACH):
                fits = self.low + line < c.price < self.high - line
                if not fits or min(abs(c.price - other) for other in taken) < line:
                    continue
                taken.append(c.price)
                axes.annotate(
                    f"{dollars(c.usd)} around {price_text(c.price, self.high - self.low)}",
                    (1.0, c.price),
                    xycoords=("axes fraction", "data"),
                    xytext=(-4, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    bbox={
                        "facecolor": self.theme.paper,
                        "edgecolor": "none",
                        "alpha": 0.6,
                        "pad": 1,
                    },
                )

    def _prices(self, axes: "Axes", *, labels: bool) -> None:
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

        axes.set_ylim(self.low, self.high)
        axes.tick_params(axis="x", pad=0.5 * self.em * 72)
        rows = max(4, int(axes.get_position().height * self.height / (2.4 * self.em)))
        axes.yaxis.set_major_locator(MaxNLocator(min(rows, 12)))
        if labels:
            axes.yaxis.set_major_formatter(lambda p, _: price_text(p, self.high - self.low))
            axes.set_ylabel("price, USD", labelpad=2)
        else:
            axes.tick_params(axis="y", labelleft=False)


# ------------------------------------------------------------------------------------ values


def _unit(top: float) -> tuple[str, float]:
    """Unit of an axis that reaches so many USD: millions, unless that were all noughts."""
    if top < 2e5:
        return "$k", 1e3
    return ("$M", 1e6) if top < 2e10 else ("$B", 1e9)


def _folded(parts: Sequence[str], columns: int) -> list[str]:
    """Parts side by side as far as they fit, folded between rather than within them."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= columns:
            lines[-1] += f" · {part}"
        else:
            lines += wrap(part, columns)
    return lines


def _columns(
    history: Sequence[tuple[int, HeatmapRow]],
) -> tuple[list[int], list[HeatmapRow | None]]:
    """Edges in time and what lies between: a row lasts until the next, a gap is None."""
    at = [t for t, _ in history]
    steps = [b - a for a, b in pairwise(at) if b > a]
    usual = int(median(steps)) if steps else 10_000_000
    times: list[int] = []
    rows: list[HeatmapRow | None] = []
    for (t, row), after in zip(history, [*at[1:], at[-1] + usual], strict=True):
        if after <= t:  # a clock that was set back
            continue
        times.append(t)
        rows.append(row)
        if after - t > GAP * usual:
            times.append(t + usual)
            rows.append(None)
    return [*times, at[-1] + usual], rows


def _stacked(rows: Sequence[HeatmapRow | None]) -> tuple[int, Floats]:
    """Number of the first bucket, and USD of shape (rows, buckets, sides); nan is not heard."""
    known = [row for row in rows if row is not None]
    firsts = [round(log(row.first_price) / row.log_step) for row in known]
    low = min(firsts)
    count = max(f + len(row.long_usd) for f, row in zip(firsts, known, strict=True)) - low
    stacked = np.full((len(rows), count, 2), np.nan)
    for i, row in enumerate(rows):
        if row is None:
            continue
        start = round(log(row.first_price) / row.log_step) - low
        for side, usd in enumerate((row.long_usd, row.short_usd)):
            stacked[i, start : start + len(usd), side] = usd
    return low, stacked
