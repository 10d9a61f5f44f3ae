"""The kinds of panel that the dashboards are made of, each with one obvious look.

A panel has a title that is a quantity or a claim, a description, a unit, and the limits of the
alert that watches the same quantity, if one does.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.source.rules import ALERTS

SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="prometheus")
"""The provisioned data source; its uid is fixed in `provisioning/datasources`."""

COLOURS: Final = {"critical": "red", "warning": "orange", "info": "yellow"}

SCORE_BANDS: Final = (
    (None, "green"),
    (0.2, "blue"),
    (0.4, "yellow"),
    (0.6, "orange"),
    (0.8, "red"),
)
"""The five bands of the score."""

PHASES: Final = (
    ("calm", "green"),
    ("watch", "yellow"),
    ("warning", "orange"),
    ("critical", "red"),
    ("cascading", "purple"),
    ("exhausted", "blue"),
)
"""By `asset_direction:cascade_phase:level`."""

Query: TypeAlias = tuple[str, str]
"""An expression and the legend of its series."""

Panel: TypeAlias = (
    timeseries.Panel
    | stat.Panel
    | bargauge.Panel
    | heatmap.Panel
    | statetimeline.Panel
    | table.Panel
)

Steps: TypeAlias = Sequence[tuple[float | None, str]]

NEUTRAL: Final[Steps] = ((None, "text"),)
"""No value is good or bad."""

ABOVE_ZERO: Final = 1e-9

UNLESS_ZERO: Final[Steps] = ((None, "green"), (ABOVE_ZERO, "orange"))
"""Anything above nothing is worth a look."""


def limit(alert: str) -> Steps:
    """Colours that change where this alert fires."""
    rule = ALERTS[alert]
    colour = COLOURS[rule.severity]
    if rule.sign == ">":
        # A step begins at its value, an alert above its limit: nought itself must stay green.
        return ((None, "green"), (rule.limit or ABOVE_ZERO, colour))
    return ((None, colour), (rule.limit, "green"))


def _steps(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=colour) for value, colour in steps])
    )


def _query(query: Query, ref: str) -> prometheus.Dataquery:
    expression, legend = query
    return (
        prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref).datasource(SOURCE)
    )


def _refs(queries: Sequence[Query]) -> list[tuple[Query, str]]:
    return list(zip(queries, "ABCDEFGH", strict=False))


def _names(states: Sequence[tuple[str, str]]) -> list[model.ValueMapping]:
    """Words and colours for 0, 1, 2 and so on."""
    return [
        model.ValueMap(
            options={
                str(value): model.ValueMappingResult(text=text, color=colour, index=value)
                for value, (text, colour) in enumerate(states)
            }
        )
    ]


def lines(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    steps: Steps = NEUTRAL,
    span: int = 12,
    bars: bool = False,
    stacked: bool = False,
    floor: float | None = 0.0,
    ceiling: float | None = None,
) -> Panel:
    """Quantities over time. `steps` other than neutral ones are drawn as dashed lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .thresholds(_steps(steps))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .line_width(1)
        .fill_opacity(60 if bars or stacked else 0)
        .show_points(looks.VisibilityMode.NEVER)
        .span_nulls(False)
        .draw_style(looks.GraphDrawStyle.BARS if bars else looks.GraphDrawStyle.LINE)
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(looks.TooltipDisplayMode.MULTI)
            .sort(looks.SortOrder.DESCENDING)
        )
    )
    if steps is not NEUTRAL:
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED)
        )
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
    if floor is not None:
        panel.axis_soft_min(floor)
    if ceiling is not None:
        panel.axis_soft_max(ceiling)
    for query, ref in _refs(queries):
        panel.with_target(_query(query, ref).range())
    return panel


def numbers(
    title: str, about: str, unit: str, *queries: Query, steps: Steps = NEUTRAL, span: int = 6
) -> Panel:
    """The present value of each series, large. Absence reads as unknown, never as nought."""
    panel = (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .thresholds(_steps(steps))
        .no_value("unknown")
        .color_mode(looks.BigValueColorMode.VALUE)
        .graph_mode(looks.BigValueGraphMode.NONE)
        .text_mode(looks.BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for query, ref in _refs(queries):
        panel.with_target(_query(query, ref).instant())
    return panel


def bars(
    title: str,
    about: str,
    unit: str,
    query: Query,
    *,
    steps: Steps = NEUTRAL,
    span: int = 8,
    ceiling: float | None = None,
) -> Panel:
    """The present value of each series as a bar, in the order of the query."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .min(0.0)
        .thresholds(_steps(steps))
        .no_value("unknown")
        .display_mode(looks.BarGaugeDisplayMode.BASIC)
        .value_mode(looks.BarGaugeValueMode.TEXT)
        .orientation(looks.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(query, "A").instant())
    )
    if ceiling is not None:
        panel.max(ceiling)
    return panel


def states(
    title: str, about: str, query: Query, names: Sequence[tuple[str, str]], *, span: int = 12
) -> Panel:
    """States over time; `names` has the word and the colour of each number from 0."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit("none")
        .span(span)
        .height(8)
        .mappings(_names(names))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color("text"))
        .merge_values(True)
        .show_value(looks.VisibilityMode.NEVER)
        .row_height(0.8)
        .tooltip(
            common.VizTooltipOptions()
            .mode(looks.TooltipDisplayMode.SINGLE)
            .sort(looks.SortOrder.NONE)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .with_target(_query(query, "A").range())
    )


def distances(title: str, about: str, expression: str, *, span: int = 12) -> Panel:
    """USD by distance over time. The expression gives cumulative series with a label ``band``.

    The bands become ``le``, which is how Grafana knows buckets, and it takes their differences.
    """
    buckets = f'sum by (le) (label_replace({expression}, "le", "$1", "band", "(.+)"))'
    return (
        heatmap.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit("currencyUSD")
        .span(span)
        .height(8)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heat.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .cell_values(heatmap.CellValues().unit("currencyUSD"))
        .y_axis(heatmap.YAxisConfig().unit("percentunit"))
        .with_target(_query((buckets, "{{le}}"), "A").range().format(PromQueryFormat.HEATMAP))
    )


def rows(
    title: str,
    about: str,
    *queries: tuple[str, str, str],
    labels: Sequence[str],
    span: int = 24,
    limits: dict[str, Steps] | None = None,
) -> Panel:
    """A table with a line per set of labels and a column per query: expression, name, unit."""
    panel = (
        table.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit("short")
        .span(span)
        .height(8)
        .thresholds(_steps(NEUTRAL))
        .no_value("-")
        .show_header(True)
        .frame_index(0)
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    )
    columns = {f"Value #{ref}": name for (_, name, _), ref in _refs_of_columns(queries)}
    panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: at for at, name in enumerate((*labels, *columns))},
                "renameByName": columns if len(queries) > 1 else {"Value": queries[0][1]},
            },
        )
    )
    for (expression, name, unit), ref in _refs_of_columns(queries):
        panel.with_target(_query((expression, ""), ref).instant().format(PromQueryFormat.TABLE))
        properties = [model.DynamicConfigValue(id_val="unit", value=unit)]
        if limits and name in limits:
            properties += [
                model.DynamicConfigValue(
                    id_val="thresholds",
                    value={
                        "mode": "absolute",
                        "steps": [{"value": value, "color": c} for value, c in limits[name]],
                    },
                ),
                model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
            ]
        panel.override_by_name(name, properties)
    return panel


def _refs_of_columns(
    queries: Sequence[tuple[str, str, str]],
) -> list[tuple[tuple[str, str, str], str]]:
    return list(zip(queries, "ABCDEFGHIJKL", strict=False))
