"""Dashboards: valid by Grafana's own types, legible, current, and with the alerts' limits."""

import json
import re

import pytest

from monitor.core.alerts.rules import SEVERITY, AlertRules
from tests.ops import exposition, files, needs

jsonschema = needs.module("jsonschema")
model = needs.module("grafana_foundation_sdk.models.dashboard")
generate = needs.module("grafana.generate")
page = needs.module("grafana.source.page")
look = needs.module("grafana.source.panels")
ALERTS = needs.module("grafana.source.rules").ALERTS

BOARDS = files.dashboards()
PANELS = [
    pytest.param(panel, id=f"{uid}: {panel['title']}")
    for uid, board in BOARDS.items()
    for panel in files.panels(board)
]
SCHEMA = json.loads((files.Path("tests/ops/schemas/grafana.json")).read_text("utf-8"))
SHAPES = SCHEMA["definitions"]["Shapes"]["properties"]
PANEL = next(
    kind
    for kind in SHAPES["dashboard"]["properties"]["panels"]["items"]["anyOf"]
    if "fieldConfig" in kind["properties"]
)
DEFAULTS = PANEL["properties"]["fieldConfig"]["properties"]["defaults"]["properties"]
OTHERS = {
    "up",
    "ALERTS",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
}
WORDS = {
    "by",
    "on",
    "or",
    "unless",
    "and",
    "sum",
    "max",
    "min",
    "avg",
    "count",
    "rate",
    "increase",
    "time",
    "vector",
    "sort_desc",
    "label_replace",
    "histogram_quantile",
    "group",
    "without",
    "group_left",
    "absent",
    "label_values",
    "ignoring",
}


def expressions(board):
    """Every query of a dashboard: of panels, variables and annotations."""
    for panel in files.panels(board):
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"] for variable in board["templating"].get("list", []))
    yield from (annotation["expr"] for annotation in board["annotations"]["list"])


def metrics(expression):
    """The metrics that an expression reads."""
    bare = re.sub(r'"(\\.|[^"\\])*"', "", expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"label_values\(([^,]+),[^)]*\)", r"\1", bare)
    return set(re.findall(r"(?<![\w$])[a-zA-Z_][\w:]*", bare)) - WORDS


def test_the_committed_files_are_what_the_source_generates():
    stale = [
        path.name for path, text in generate.render().items() if path.read_text("utf-8") != text
    ]
    assert not stale, "run `python -m grafana.generate`"
    assert {path.stem for path in files.DASHBOARDS} == set(BOARDS)


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_is_what_grafanas_own_types_allow(uid):
    board = json.loads(json.dumps(BOARDS[uid]))
    for annotation in board["annotations"]["list"]:
        # The Prometheus plug-in's own field, which it moves into `target` on loading.
        annotation.pop("expr")
    jsonschema.Draft7Validator(SHAPES["dashboard"]).validate(board)


@pytest.mark.parametrize("panel", PANELS)
def test_the_options_of_a_panel_are_what_its_plug_in_allows(panel):
    shape = SHAPES[panel["type"].replace("-", "")]["properties"]
    jsonschema.Draft7Validator(shape["options"]).validate(panel["options"])
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    if custom:
        jsonschema.Draft7Validator(shape["custom"]).validate(custom)
    for override in panel["fieldConfig"]["overrides"]:
        for changed in override["properties"]:
            field, _, inner = changed["id"].partition(".")
            known = shape["custom"]["properties"][inner] if field == "custom" else DEFAULTS[field]
            jsonschema.Draft7Validator(known).validate(changed["value"])


def test_the_schema_refuses_what_grafana_would_drop():
    board = json.loads(json.dumps(BOARDS["cascade-overview"]))
    board["panels"][1]["fieldConfig"]["defaults"]["unitt"] = "s"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SHAPES["dashboard"]).validate(board)


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_read_by_the_sdk_is_written_the_same(uid):
    text = json.dumps(BOARDS[uid], sort_keys=True)
    again = page.without_leftovers(model.Dashboard.from_json(json.loads(text)))
    assert json.dumps(again, cls=generate.JSONEncoder, sort_keys=True) == text


# -------------------------------------------------------------------------------------- lint


def test_dashboards_are_told_apart_and_not_edited_in_place():
    for uid, board in BOARDS.items():
        assert board["uid"] == uid
        assert re.fullmatch(r"[a-z-]{1,40}", uid)
        assert "id" not in board
        assert board["editable"] is False
        numbers = [panel["id"] for panel in board["panels"]]
        titles = [panel["title"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers)
        assert len(set(titles)) == len(titles)
        assert files.seconds(board["refresh"]) >= 5
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_title_a_description_a_unit_and_a_known_source(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == {"type": "prometheus", "uid": "prometheus"}
        assert target["expr"]
        # A rate over the chosen resolution, but for a window that an alert has.
        for window in re.findall(r"\[([^\]]+)\]", target["expr"]):
            alerted = any(f"[{window}]" in alert.left for alert in ALERTS.values())
            assert window == "$__rate_interval" or alerted


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_do_not_overlap_and_fill_their_rows(uid):
    taken = set()
    for panel in BOARDS[uid]["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len(taken) == 24 * (1 + max(y for _, y in taken)), "there are holes"


@pytest.mark.parametrize("uid", BOARDS)
def test_a_query_reads_only_metrics_that_exist(uid):
    allowed = set(exposition.known()) | set(files.records()) | OTHERS
    for expression in expressions(BOARDS[uid]):
        assert metrics(expression), expression
        assert metrics(expression) <= allowed, expression


def test_rules_read_only_metrics_that_exist():
    allowed = set(exposition.known()) | set(files.records()) | OTHERS
    for rule in files.every_rule():
        assert metrics(rule["expr"]) <= allowed, rule["expr"]


def test_announced_metrics_keep_their_labels_when_they_come():
    announced, golden = exposition.announced(), exposition.golden()
    for name in set(announced) & set(golden):
        assert sorted(announced[name]) == sorted(golden[name]), name


@pytest.mark.parametrize("uid", BOARDS)
def test_a_variable_that_is_used_exists(uid):
    board = BOARDS[uid]
    names = {variable["name"] for variable in board["templating"].get("list", [])}
    text = json.dumps(board["panels"])
    used = set(re.findall(r"\$(?!__|\d)(\w+)", text))
    assert used == names


def test_a_limit_in_a_panel_is_that_of_the_alert_it_names():
    """A description that says which alert fires at the dashed line; the line is where it says."""
    seen = set()
    for board in BOARDS.values():
        for panel in files.panels(board):
            defaults = panel["fieldConfig"]["defaults"]
            named = re.findall(r"(Cascade[A-Z]\w+) (?:fires|watches)", panel["description"])
            lines = [step["value"] for step in defaults.get("thresholds", {}).get("steps", [])[1:]]
            if "ashed line" in panel["description"]:
                assert lines == [ALERTS[name].limit for name in named], panel["title"]
                seen |= set(named)
    assert seen >= {
        "CascadeProbabilityHigh",
        "CascadeCriticalShockNear",
        "CascadeLoopGainHigh",
        "CascadeEngineLagging",
        "CascadeQueueNearLimit",
        "CascadeSinkFailing",
    }


def test_nought_is_green_where_an_alert_fires_on_anything_above_it():
    assert ALERTS["CascadeAbstaining"].limit == 0
    steps = look.limit("CascadeAbstaining")
    assert steps[0] == (None, "green")
    assert 0 < steps[1][0] < 1


def test_the_bands_of_the_score_are_the_engines():
    rules = AlertRules()
    bands = [value for value, _ in look.SCORE_BANDS[2:]]
    assert bands == [rules.watch_score, rules.warning_score, rules.critical_score]
    assert [phase for phase, _ in look.PHASES] == list(SEVERITY)
