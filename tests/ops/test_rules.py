"""Prometheus rules: valid, tested both ways, documented, and with the engine's thresholds."""

import re
import tomllib
from pathlib import Path

import pytest

from monitor.core.alerts.rules import RISK, SEVERITY, AlertRules
from monitor.core.forecast.coefficients import MODEL
from monitor.core.forecast.model import score
from tests.ops import files, needs

ALERTS = files.alerts()
ENGINE = AlertRules()
PHASES_OF = {
    "CascadeRiskWatch": "watch",
    "CascadeRiskWarning": "warning",
    "CascadeRiskCritical": "critical",
    "CascadeRiskCascading": "cascading",
    "CascadeRiskExhausted": "exhausted",
}


def threshold(name):
    return float(ALERTS[name]["expr"].split()[-1])


def cases():
    return [
        (case["alertname"], bool(case.get("exp_alerts")))
        for path in files.RULE_TESTS
        for test in files.load(path)["tests"]
        for case in test.get("alert_rule_test", [])
    ]


# --------------------------------------------------------------------------------- promtool


def test_rules_and_configuration_are_valid():
    promtool = needs.program("promtool")
    needs.run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, files.RULES))
    needs.run(promtool, "check", "config", str(files.CONFIG / "prometheus.yml"))


@pytest.mark.parametrize("path", files.RULE_TESTS, ids=lambda path: path.stem)
def test_rules_fire_are_silent_and_hold_as_written(path):
    needs.run(needs.program("promtool"), "test", "rules", str(path))


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_to_fire_and_to_be_silent(name):
    outcomes = {fires for tested, fires in cases() if tested == name}
    assert outcomes == ({True} if name == "CascadeWatchdog" else {True, False})


def test_the_rule_tests_notice_changed_thresholds(tmp_path):
    promtool = needs.program("promtool")
    changes = {"seconds > 5\n": "seconds > 50\n", "synced < 1\n": "synced < 0\n", "> 0.8": "> 0.95"}
    for path in files.RULES:
        text = path.read_text("utf-8")
        for right, wrong in changes.items():
            text = text.replace(right, wrong)
        (tmp_path / path.name).write_text(text, "utf-8")
    tests = tmp_path / "health_test.yml"
    text = Path("tests/ops/health_test.yml").read_text("utf-8")
    tests.write_text(text.replace("../../config/prometheus/rules/", ""), "utf-8")
    with pytest.raises(AssertionError) as failure:
        needs.run(promtool, "test", "rules", str(tests))
    noticed = set(re.findall(r"alertname: (\w+), time", str(failure.value)))
    assert noticed == {"CascadeEngineLagging", "CascadeBookUnsynced", "CascadeQueueNearLimit"}


# ------------------------------------------------------------------------------ conventions


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_how_grave_how_long_and_where_to_read_on(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    assert rule["labels"]["component"] in {"risk", "health", "watchdog"}
    assert {"for", "keep_firing_for"} <= set(rule)
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "{{" not in rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_every_alert_has_a_runbook_section_and_every_section_an_alert():
    sections = re.split(r"^## ", files.RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)[1:]
    bodies = {title: body for title, _, body in (part.partition("\n") for part in sections)}
    alerts = {title: body for title, body in bodies.items() if title.startswith("Cascade")}
    assert set(alerts) == set(ALERTS)
    for title, body in alerts.items():
        for part in ("Meaning", "Impact", "Look", "Do", "Probably because", "Escalate"):
            assert f"**{part}**" in body, f"{title} lacks {part}"


def test_recorded_names_are_levels_metrics_and_operations():
    for name in files.records():
        assert re.fullmatch(r"[a-z_]+:cascade_\w+:\w+", name), name


def test_unknown_risk_is_told_before_absence_resolves_an_alert():
    after = files.seconds(ALERTS["CascadeAbstaining"]["for"])
    for name, rule in ALERTS.items():
        if rule["labels"]["component"] == "risk":
            assert files.seconds(rule["keep_firing_for"]) > after, name


# -------------------------------------------------------------------- agreement with the engine


@pytest.mark.parametrize(("name", "phase"), PHASES_OF.items())
def test_a_phase_is_as_grave_to_prometheus_as_to_the_engine(name, phase):
    assert ALERTS[name]["labels"]["severity"] == SEVERITY[phase]


def test_every_phase_but_calm_has_an_alert():
    assert set(PHASES_OF.values()) == set(SEVERITY) - {"calm"}


@pytest.mark.parametrize("name", ["CascadeRiskWatch", "CascadeRiskWarning", "CascadeRiskCritical"])
def test_a_lesser_alert_covers_the_graver_phases(name):
    phases = re.search(r'phase=~"([a-z|]+)"', ALERTS[name]["expr"])[1].split("|")
    assert phases == [*RISK[RISK.index(PHASES_OF[name]) :], "cascading"]


def test_the_probability_that_alerts_is_that_of_a_critical_score():
    assert score(threshold("CascadeProbabilityHigh"), MODEL.base[1]) == pytest.approx(
        ENGINE.critical_score, abs=0.01
    )


def test_the_shock_that_alerts_is_the_engines():
    assert threshold("CascadeCriticalShockNear") == ENGINE.warning_shock
    expr = ALERTS["CascadeCriticalShockNear"]["expr"]
    assert f"cascade_loop_gain_ratio >= {ENGINE.shock_gain:g})" in expr


def test_a_gain_alerts_where_a_shock_would_count():
    assert threshold("CascadeLoopGainHigh") == ENGINE.shock_gain


def test_the_lag_that_alerts_is_that_of_readiness():
    shipped = tomllib.loads(Path("config/monitor.toml").read_text("utf-8"))
    assert threshold("CascadeEngineLagging") == shipped["http"]["ready_lag_s"]
