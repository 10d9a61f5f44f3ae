"""A dashboard: rows of panels in the order of the reader's questions."""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import table

from grafana.source.panels import SOURCE, Panel

WIDTH: Final = 24

Row = tuple[str, Sequence[Panel]]
"""A question and the panels that answer it."""


def page(
    uid: str,
    title: str,
    about: str,
    rows: Sequence[Row],
    *,
    variables: Sequence[dashboard.QueryVariable] = (),
    since: str = "now-3h",
    refresh: str = "10s",
) -> model.Dashboard:
    """A dashboard, read-only, with alerts of risk as annotations and links to its siblings."""
    builder = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["cascade"])
        .readonly()
        .refresh(refresh)
        .time(since, "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Cascade")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["cascade"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Critical risk")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("red")
            .expr('ALERTS{alertname=~"CascadeRisk(Critical|Cascading)",alertstate="firing"}')
        )
    )
    for variable in variables:
        builder.with_variable(variable)
    number = 0
    for question, panels in rows:
        number += 1
        builder.with_row(dashboard.Row(question).id(number))
        for panel in panels:
            number += 1
            builder.with_panel(panel.id(number))
    return without_leftovers(builder.build())


def without_leftovers(built: model.Dashboard) -> model.Dashboard:
    """The same without what the SDK's version sets by itself and newer Grafana does not know."""
    for variable in (built.templating and built.templating.list_val) or ():
        variable.auto = variable.auto_count = variable.auto_min = None
    for panel in built.panels or ():
        if isinstance(panel, model.Panel) and isinstance(panel.options, table.Options):
            panel.options.footer = None
    return built


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable whose values are those of a label."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(False)
        .include_all(False)
    )


ASSET: Final = "label_values(cascade_liquidations_usd_total, asset)"
"""Every asset that is followed, whether or not it has a score."""
