"""The systemd unit: systemd finds no fault with it, and it says what the daemon does."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from monitor.cli import CONFIGURATION
from monitor.config import merge, parse_environment, parse_toml
from tests.ops import needs

UNIT = Path("config/systemd/cascade-monitor.service")
DROP_IN = Path("config/systemd/cascade-monitor.service.d/secrets.conf")
PROGRAM = "/opt/cascade/bin/cascade-monitor"
SHIPPED = parse_toml(Path("config/monitor.toml").read_text("utf-8"), "shipped")


@pytest.fixture
def installed(tmp_path):
    """The unit with its drop-in, and with a program that is there."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace(PROGRAM, "/bin/true"))
    (tmp_path / DROP_IN.parent.name).mkdir()
    (tmp_path / DROP_IN.parent.name / DROP_IN.name).write_text(DROP_IN.read_text("utf-8"))
    return unit


def values():
    parser = configparser.RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    parser.optionxform = str
    parser.read_string(UNIT.read_text("utf-8"))
    return {**parser["Unit"], **parser["Service"]}


def seconds(text):
    return float(text.removesuffix("s"))


def test_systemd_finds_no_fault(installed):
    assert needs.run(needs.program("systemd-analyze"), "verify", str(installed)) == ""


def test_systemd_would_find_one(installed):
    installed.write_text(installed.read_text().replace("WatchdogSec", "WatchdogSeconds"))
    assert "WatchdogSeconds" in needs.run(
        needs.program("systemd-analyze"), "verify", str(installed)
    )


def test_the_daemon_is_exposed_to_little(installed):
    program = needs.program("systemd-analyze")
    command = [program, "security", "--offline=true", "--threshold=15", str(installed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_daemon_has_the_time_that_it_needs_to_start_and_to_stop():
    unit, (config, _) = values(), merge([SHIPPED])
    assert unit["Type"] == "notify"
    assert seconds(unit["TimeoutStartSec"]) > config.http.ready_grace_s + 30
    assert seconds(unit["TimeoutStopSec"]) >= 20
    assert unit["RestartPreventExitStatus"] == str(CONFIGURATION)


def test_the_drop_in_names_settings_that_there_are():
    text = DROP_IN.read_text("utf-8")
    credentials = re.findall(r"^LoadCredential=(\w+):", text, re.MULTILINE)
    variables = dict(re.findall(r"^Environment=(CASCADE_\w+)_FILE=%d/(\w+)$", text, re.MULTILINE))
    assert sorted(variables.values()) == sorted(credentials)
    _, origins = merge([SHIPPED, parse_environment(dict.fromkeys(variables, "x"))])
    assert sum(origin == "environment" for origin in origins.values()) == len(variables)
