"""The picture can be read at every size and never shows the unknown as empty."""

import struct
import sys
from itertools import combinations, pairwise
from math import exp, floor, log

import numpy as np
import pytest

from monitor import picture
from monitor.core.heatmap.pooling import row_of
from monitor.events import AtRisk, Heatmap
from monitor.picture import PictureError, draw
from monitor.summary import clusters, dollars, percent

AT = 1_790_000_000_000_000
STEP_US = 10_000_000
LOG_STEP = 0.0025


def heatmap(mark=100_000.0, *, scale=1e6, missing=(), **fields):
    """Peaks at 3 % below and 5 % above the mark on a gentle slope."""
    first = (floor(log(mark) / LOG_STEP) - 130) * LOG_STEP
    away = first + LOG_STEP * (np.arange(260) + 0.5) - log(mark)
    peaks = 1.0 + 8.0 * np.exp(-(((away + 0.03) / 0.004) ** 2) / 2)
    peaks += 8.0 * np.exp(-(((away - 0.05) / 0.004) ** 2) / 2)
    usd = {"long": np.where(away < 0, peaks, 0.0), "short": np.where(away > 0, peaks, 0.0)}
    values = {
        f"{side}_{name}": (factor * scale * usd[side]).tolist()
        for side in usd
        for name, factor in (("usd", 1.0), ("low", 0.3), ("high", 2.2))
    }
    return Heatmap(
        name="BTC", first_price=exp(first), log_step=LOG_STEP, n=260, scale_low=0.6,
        scale_high=1.67, mark=mark, coverage=0.97, heard=0.123, confidence=0.42,
        provenance="warm_start", venues=["binance", "bybit", "okx", "hyperliquid"],
        at_risk=[AtRisk(d, scale * 1e3 * d, scale * 2e3 * d) for d in (0.005, 0.01, 0.02, 0.05)],
        missing=list(missing), **values | fields,
    )  # fmt: skip


def history(mark=100_000.0, *, rows=40, gap=0):
    """Rows of a price that falls 4 %, with so many rows left out in the middle."""
    falling = [mark * exp(0.04 * (1 - i / rows)) for i in range(rows)]
    kept = [i for i in range(rows) if not rows // 2 <= i < rows // 2 + gap]
    return [
        (AT - (rows - i) * STEP_US, row_of(heatmap(falling[i], scale=mark * 10), 0.15))
        for i in kept
    ]


def page(size, h, rows=(), **fields):
    """What is written and where, as (text, box in pixels)."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    drawn = []
    draw_text = Text.draw

    def noted(text, *args, **kwargs):
        if text.get_visible():
            drawn.append(text)
        return draw_text(text, *args, **kwargs)

    with rc_context(picture.style(picture.LIGHT, size)), pytest.MonkeyPatch.context() as patch:
        figure = Figure(figsize=(size[0] / picture.DPI, size[1] / picture.DPI), dpi=picture.DPI)
        canvas = FigureCanvasAgg(figure)
        made = picture.Page(figure, picture.LIGHT, h, rows)
        made.fill(**{"asset": "BTC", "venue": "", "at_us": AT} | fields)
        # Only this tells which labels of an axis are drawn.
        patch.setattr(Text, "draw", noted)
        canvas.draw()
        renderer = canvas.get_renderer()
        return [(t.get_text(), t.get_window_extent(renderer)) for t in drawn if t.get_text()]


LONG_LIST = [
    f"{v}:BTC{n}" for v in ("binance", "hyperliquid", "okx") for n in ("USDT", "USDC", "USD")
]


@pytest.mark.parametrize("size", [(640, 400), (3840, 2160), (700, 1400)])
@pytest.mark.parametrize(
    ("h", "rows", "venue"),
    [
        (heatmap(missing=LONG_LIST), history(gap=8), ""),
        (heatmap(1.234e-5, scale=1e3), history(1.234e-5), ""),
        (heatmap(163.2, scale=5e7), (), "hyperliquid"),
        (heatmap(), history(rows=1), ""),
    ],
)
def test_no_word_covers_another_or_leaves_the_picture(size, h, rows, venue):
    boxes = page(size, h, rows, venue=venue)
    assert len(boxes) > 15
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text  # noqa: PT018
        assert box.x1 <= size[0] and box.y1 <= size[1], text  # noqa: PT018
    for (one, a), (other, b) in combinations(boxes, 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width <= 1 or height <= 1, (one, other)


def test_everything_a_reader_needs_is_written():
    written = " ".join(t for t, _ in page((1600, 900), heatmap(missing=["okx:BTC"]), history()))
    for needed in (
        "BTC", "4 venues pooled (binance, bybit, okx, hyperliquid)", "UTC", "confidence 42 %",
        "coverage 97 %", "heard 12 %", "warm start", "not zero: okx:BTC", "80 % interval",
        "falls by 1 %: $10.0M · 2 %: $20.0M · 5 %: $50.0M", "rises by 1 %: $20.0M", "mark 100,000",
        "price, USD", "distance from the mark, %", "$M per bucket of 0.25 %", "100,000", "+5", "-5",
    ):  # fmt: skip
        assert needed in written, needed


@pytest.mark.parametrize("dark", [False, True])
def test_the_picture_has_the_size_that_was_asked_for_and_is_the_same_every_time(dark):
    h = heatmap()
    once, again = (
        draw(h, asset="BTC", venue="", at_us=AT, history=history(), size=(800, 450), dark=dark)
        for _ in range(2)
    )
    assert once == again
    assert struct.unpack(">II", once[16:24]) == (800, 450)


@pytest.mark.parametrize("size", [(639, 400), (640, 399), (8000, 900)])
def test_a_size_nobody_could_read_is_refused(size):
    with pytest.raises(PictureError, match="640x400"):
        draw(heatmap(), asset="BTC", venue="", at_us=AT, size=size)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PictureError, match=r"cascade-monitor\[picture\]"):
        draw(heatmap(), asset="BTC", venue="", at_us=AT)


def test_a_gap_in_time_is_neither_filled_nor_shown_as_empty():
    times, rows = picture._columns(history(rows=40, gap=8))
    assert rows.count(None) == 1
    hole = rows.index(None)
    assert times[hole + 1] - times[hole] == 8 * STEP_US
    assert len(times) == len(rows) + 1
    _, stacked = picture._stacked(rows)
    assert np.isnan(stacked[hole]).all()
    assert not np.isnan(stacked[hole - 1]).all()


def test_rows_of_a_moving_price_stand_at_their_prices():
    rows = [row for _, row in history(rows=10)]
    first, stacked = picture._stacked(rows)
    for i, row in enumerate(rows):
        place = round(log(row.first_price) / LOG_STEP) - first
        assert stacked[i, place : place + len(row.long_usd), 0].tolist() == row.long_usd
        assert np.isnan(stacked[i, :place, 0]).all()
    assert {round(log(r.first_price) / LOG_STEP) for r in rows} != {first}


def test_clusters_are_the_peaks_and_share_no_bucket():
    h = heatmap()
    (long,) = clusters(h, "long", count=1, reach=0.1)
    assert long.price == pytest.approx(h.mark * exp(-0.03), rel=2 * LOG_STEP)
    (short,) = clusters(h, "short", count=1, reach=0.1)
    assert short.price == pytest.approx(h.mark * exp(0.05), rel=2 * LOG_STEP)
    found = sorted(clusters(h, "long", count=50, reach=0.1), key=lambda c: c.low)
    assert all(a.high <= b.low * (1 + 1e-12) for a, b in pairwise(found))
    assert sum(c.usd for c in found) <= sum(h.long_usd)
    assert clusters(h, "long", count=5, reach=0.001) == []


@pytest.mark.parametrize(
    ("usd", "written"),
    [(0, "$0"), (999.4, "$999"), (999_900, "$1.00M"), (12_345_678, "$12.3M"), (2.5e9, "$2.50B")],
)
def test_amounts_have_three_digits_that_matter(usd, written):
    assert dollars(usd) == written


def test_shares_are_written_with_two_digits():
    assert [percent(x) for x in (0.0025, 0.01, 0.055, 0.42, 1.0)] == [
        "0.25 %", "1 %", "5.5 %", "42 %", "100 %",
    ]  # fmt: skip
