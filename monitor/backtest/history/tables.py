"""The report on recorded history as Markdown."""

from typing import Any, Final

from monitor.backtest.history.grading import BASELINE, CLIMATOLOGY, FALSE_PER_DAY
from monitor.backtest.markdown import figure, head, reliability_table

COLUMNS: Final = (
    "model",
    "PR-AUC",
    "lift",
    "Brier skill",
    "log skill",
    f"it less {BASELINE} (PR-AUC)",
    "Molchan",
    *(f"recall at {limit:g}/day" for limit in FALSE_PER_DAY),
    "median lead, min",
)


def tables(result: dict[str, Any]) -> str:
    """All tables of a `history.report`."""
    lines = _assets(result)
    for label, part in result["labels"].items():
        for horizon, figures in part["horizons"].items():
            lines += _graded(label, int(horizon) // 60, figures)
    for label, part in result["labels"].items():
        for horizon, figures in part["horizons"].items():
            if "reliability" in figures:
                title = f"Reliability, `{label}`, {int(horizon) // 60} min"
                lines += reliability_table(title, figures["reliability"], 4)
    lines += _sides(result["labels"])
    lines += _events(result["events"])
    for asset, figures in result["liquidations"].items():
        lines += _liquidations(asset, figures)
    return "\n".join(lines) + "\n"


def _assets(result: dict[str, Any]) -> list[str]:
    labels = list(result["labels"])
    names = ("asset", "graded", "samples", *(f"onsets {name}" for name in labels), "margin tiers")
    lines = head("What was heard", names)
    for asset, about in result["assets"].items():
        spans = ", ".join(f"{first[:10]} to {last[:10]}" for first, last in about["graded"])
        cells = [
            asset,
            spans,
            str(about["samples"]),
            *(str(about["onsets"][name]) for name in labels),
            "known" if about["tiers_known"] else "assumed",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for name, part in result["labels"].items():
        tiers = ", ".join(f"tier {t}: {d} down, {u} up" for t, (d, u) in part["onsets"].items())
        lines.append(f"Onsets of `{name}`: {tiers}; of the first tier on {part['days']} days.")
    return [*lines, ""]


def _graded(label: str, minutes: int, figures: dict[str, Any]) -> list[str]:
    title = f"Label `{label}`, {minutes} min"
    refused = [f"{day}: {why}" for day, why in figures["refused"].items()]
    if "ungraded" in figures:
        body = f"Not graded: {figures['ungraded']}; {figures['fits']} fits."
        listed = f" Refused: {'; '.join(refused)}." if refused else ""
        return [f"### {title}", "", body + listed, ""]
    about = (
        f"{title}: {figures['events']} of {figures['rows']} samples, {figures['onsets']} onsets on "
        f"{figures['onset_days']} of {figures['days']} days"
    )
    lines = head(about, COLUMNS)
    for name, m in figures["models"].items():
        less, alarms = figures["less_no_map"].get(name), figures["alarms"].get(name)
        molchan = figures["molchan"].get(name)
        cells = [
            name,
            _area(m["pr_auc"]),
            f"{m['lift']['value']:.1f}",
            figure(m["brier_skill"]),
            figure(m["log_skill"]),
            _area(less["pr_auc"]) if less and name != CLIMATOLOGY else "",
            "" if molchan is None else f"{molchan:.2f}",
            *(f"{a['recall']:.2f}" if alarms else "" for a in _limits(alarms)),
            _lead(alarms),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_pairs(figures["pairs"])]
    if refused:
        lines += ["", f"Without a fit: {'; '.join(refused)}."]
    return [*lines, ""]


def _pairs(found: dict[str, Any]) -> list[str]:
    return [
        f"- {name}: PR-AUC {_area(cell['pr_auc'])}, log skill {figure(cell['log_skill'])}"
        for name, cell in found.items()
    ]


def _limits(alarms: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [alarms[f"{limit:g}"] if alarms else {} for limit in FALSE_PER_DAY]


def _lead(alarms: dict[str, Any] | None) -> str:
    lead = alarms[f"{FALSE_PER_DAY[-1]:g}"]["median_lead_min"] if alarms else None
    return "" if lead is None else f"{lead:.0f}"


def _area(cell: dict[str, float]) -> str:
    """A PR-AUC, which is as small as the base rate."""
    return figure(cell, 4)


def _sides(labels: dict[str, Any]) -> list[str]:
    names = ("label", "by", "onsets", "days", "the side that broke had more fuel near")
    lines = head("Which side breaks", names)
    for label, part in labels.items():
        for column, f in part["sides"].items():
            cells = (label, column, str(f["onsets"]), str(f["days"]), figure(f["share"]))
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _events(found: list[dict[str, Any]]) -> list[str]:
    if not found:
        return []
    labels = list(found[0]["said"])
    models = list(found[0]["said"][labels[0]])
    around = list(found[0]["said"][labels[0]][models[0]])
    signs = " / ".join(f"{int(m):+d}" for m in around)
    lines = [
        f"### Largest hours of {found[0]['asset']}",
        "",
        (
            "Probability of an onset within the hour in the direction that the price then went, "
            f"as a multiple of the base rate, {signs} min from the begin of the hour."
        ),
        "",
    ]
    for label in labels:
        columns = ("begin", "move", "open interest", "liquidated, quantile", *models)
        lines += [
            f"Label `{label}`:",
            "",
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
        ]
        for event in found:
            usd = event["liquidated"]
            cells = [
                event["begin"],
                f"{100 * event['move']:+.1f} %",
                f"{100 * event['interest_change']:+.1f} %",
                "" if usd is None else f"{usd['usd'] / 1e6:.0f}m, {usd['quantile']:.3f}",
                *(
                    " / ".join(
                        "-" if v is None else f"{v:.1f}" for v in event["said"][label][m].values()
                    )
                    for m in models
                ),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def _liquidations(asset: str, figures: dict[str, Any]) -> list[str]:
    title = f"Liquidations of {asset} by the hour: {figures['hours']} hours"
    onsets = [
        f"Of {o['onsets']} onsets of `{label}` the hour's liquidations are known of {o['known']}, "
        f"and beyond the label's quantile of the month before in {o['confirmed']}."
        for label, o in figures["onsets"].items()
    ]
    if "refused" in figures:
        return [f"### {title}", "", f"Not compared: {figures['refused']}.", "", *onsets, ""]
    columns = (
        "side",
        "USD",
        "by",
        "rank correlation",
        "map less it",
        "beyond the way of the mark",
        "scale, first half",
        "said over printed, second half",
    )
    lines = head(title, columns)
    for side, f in figures["sides"].items():
        for name, cell in f["spearman"].items():
            less, given = f["map_less"].get(name), f["given_move"].get(name)
            cells = [
                side,
                f"{f['usd'] / 1e6:.0f}m",
                "way of the mark" if name == "move" else name,
                figure(cell),
                figure(less) if less else "",
                figure(given) if given else "",
                f"{f['scale'][name]:.3g}" if name in f["scale"] else "",
                f"{f['later'][name]:.2f}" if name in f["later"] else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *onsets, ""]
