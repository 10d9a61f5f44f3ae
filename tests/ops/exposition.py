"""A page of metrics with every name and label there is, made from the golden file.

`announced.txt` has metrics that rules and dashboards read and the golden file does not have yet.
"""

import re
from pathlib import Path

GOLDEN = Path("tests/golden/metrics.txt")
ANNOUNCED = Path("tests/ops/announced.txt")

VALUES = {
    "asset": ("BTC", "ETH"),
    "direction": ("down", "up"),
    "side": ("long", "short"),
    "venue": ("bybit", "okx"),
    "symbol": ("BTCUSDT", "ETHUSDT"),
    "channel": ("book", "trades"),
    "feed": ("bybit.public.0", "okx.public.0"),
    "horizon": ("5m", "15m", "1h"),
    "phase": ("calm", "watch", "warning", "critical", "cascading", "exhausted"),
    "component": ("fuel", "loop_gain", "proximity", "thinness", "heat"),
    "action": ("raised", "changed", "cleared"),
    "bin": ("0.05", "0.15"),
    "intentional": ("false", "true"),
    "sink": ("redis", "journal"),
    "queue": ("inbox", "redis"),
    "le": ("0.01", "0.1", "1", "+Inf"),
}
BANDS = ("0.005", "0.01", "0.02", "0.03", "0.05", "0.1", "0.2")


def _families(path):
    lines = re.findall(r"^(\w+)\{(.*)\}$", path.read_text("utf-8"), re.MULTILINE)
    return {name: tuple(filter(None, labels.split(","))) for name, labels in lines}


def announced():
    """Labels by sample name, of what the daemon will expose."""
    return _families(ANNOUNCED) if ANNOUNCED.exists() else {}


def golden():
    """Labels by sample name, of what the daemon exposes."""
    return _families(GOLDEN)


def known():
    """Labels by sample name, of what it exposes or will."""
    return announced() | golden()


def _combinations(labels):
    rows = [{}]
    for label in labels:
        values = BANDS if label == "band" else VALUES.get(label, ("x",))
        rows = [row | {label: value} for row in rows for value in values]
    # A feed is of one venue, which its name begins with.
    return [
        row
        for row in rows
        if row.get("feed", "").startswith(row.get("venue", "")) or "feed" not in row
    ]


def _value(name, row, scrape):
    if name == "cascade_phase":
        return int(row["phase"] == "critical")
    if name.endswith("_timestamp_seconds"):
        return 1_700_000_000 + scrape
    if name.endswith(("_total", "_count", "_sum", "_sequence")):
        return 10 * scrape
    if name.endswith("_bucket"):
        return scrape * (2 + VALUES["le"].index(row["le"]))
    if "band" in row:
        bands = BANDS
        return 1e6 * (1 + bands.index(row["band"]))
    return 0.5 if name.endswith("_ratio") else 1


def page(scrape):
    """The page of the n-th scrape: counters grow, gauges stay."""
    lines = []
    for name, labels in known().items():
        for row in _combinations(labels):
            inside = ",".join(f'{label}="{value}"' for label, value in row.items())
            lines.append(f"{name}{{{inside}}} {_value(name, row, scrape)}")
    lines += [
        f"process_cpu_seconds_total {scrape}",
        "process_resident_memory_bytes 1e8",
        "process_open_fds 20",
    ]
    return "\n".join(lines) + "\n"
