"""A wrong setting is named, an environment variable wins, the shipped file is complete."""

import re
import tomllib
from pathlib import Path

import pytest

from monitor.config import Config, ConfigError, merge, parse_environment, parse_toml
from tests.builders import SHIPPED, config


def shipped() -> str:
    return Path(SHIPPED).read_text(encoding="utf-8")


def merged(extra: str = "", environment: dict[str, str] | None = None):
    layers = [
        parse_toml(shipped(), "shipped"),
        parse_toml(extra, "my.toml"),
        parse_environment(environment or {}),
    ]
    return merge(layers)


def test_the_shipped_file_sets_every_field():
    values = tomllib.loads(shipped())
    assert set(values) == set(Config.__struct_fields__)
    for section, kind in Config.__annotations__.items():
        if fields := getattr(kind, "__struct_fields__", ()):
            assert set(values[section]) == set(fields), section


def test_every_setting_of_the_shipped_file_has_a_comment():
    lines = shipped().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\w+ = ", line):
            above = [text for text in lines[:number] if text][-1]
            assert above.startswith("#") or "url = " in line, line


def test_a_file_wins_over_the_shipped_one_and_the_environment_over_both():
    result, origins = merged(
        '[http]\nport = 1\nhost = "::1"', {"CASCADE_HTTP__PORT": "2", "CASCADE_CONFIG": "x"}
    )
    assert (result.http.port, result.http.host) == (2, "::1")
    assert origins["http.port"] == "environment"
    assert origins["http.host"] == "my.toml"
    assert origins["http.enabled"] == "shipped"


def test_a_table_of_instruments_replaces_the_default_one():
    result, origins = merged('[venues.okx]\ninstruments = { DOGE-USDT-SWAP = "DOGE" }')
    assert result.venues["okx"].instruments == {"DOGE-USDT-SWAP": "DOGE"}
    assert result.venues["okx"].http_url == config().venues["okx"].http_url
    assert not [key for key in origins if key.startswith("venues.okx.instruments.BTC")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[redis]\nurk = 'x'", "my.toml: unknown key 'redis.urk'; did you mean 'url'?"),
        ("[http]\nport = 'x'", "my.toml: http.port: Expected `int`, got `str`"),
        ("[http]\nport = 99999", "my.toml: http.port: Expected `int` <= 65535"),
        ("[log]\nlevel = 'LOUD'", "my.toml: log.level: Invalid enum value 'LOUD'"),
        ("nonsense", "my.toml: "),
        ("sinks = 1", "my.toml: unknown key 'sinks'"),
        ("[venues.binance]\nenable = true", "did you mean 'enabled'?"),
        ("[venues.nowhere]\nenabled = true", "my.toml: venues.nowhere: unknown venue; known are"),
        (
            '[venues.okx.instruments]\n"A B" = "A"',
            "my.toml: venues.okx.instruments: 'A B' is no name",
        ),
        ('[venues.okx.instruments]\n"A" = "A\\nB"', r"venues.okx.instruments: 'A\nB' is no name"),
        ('[venues.okx.instruments]\nA = ""', "my.toml: venues.okx.instruments: '' is no name"),
        ("[venues.okx]\nenabled = 3", "my.toml: venues.okx.enabled: Expected `bool`, got `int`"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(text, message):
    with pytest.raises(ConfigError) as error:
        merged(text)
    assert message in str(error.value)


def test_environment_values_are_toml_where_they_can_be():
    result, _ = merged(
        environment={
            "CASCADE_VENUES__OKX__ENABLED": "false",
            "CASCADE_REDIS__URL": "redis://10.0.0.1",
            "CASCADE_REDIS__STATE_TTL_S": "12.5",
            "CASCADE_STATE_DIRECTORY": "/var/lib/x",
        }
    )
    assert result.venues["okx"].enabled is False
    assert result.redis.url == "redis://10.0.0.1"
    assert result.redis.state_ttl_s == 12.5
    assert result.state_directory == "/var/lib/x"


def test_a_password_of_digits_is_a_text():
    result, _ = merged(
        environment={
            "CASCADE_MQTT__PASSWORD": "0123",
            "CASCADE_WEBHOOK__SECRET": "'quoted'",
            "CASCADE_WEBHOOK__URLS": '["https://example.org/a"]',
        }
    )
    assert (result.mqtt.password, result.webhook.secret) == ("0123", "'quoted'")
    assert result.webhook.urls == ["https://example.org/a"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("REDIS__UR", "x", "unknown key 'redis.ur'; did you mean 'url'?"),
        ("VENUES__BYBIT__INSTRUMENTS", "BTCUSDT", "venues.bybit.instruments: Expected `object`"),
        ("VENUES__BYBIT__INSTRUMENTS", "{ BTCUSDT = 1 }", "venues.bybit.instruments[...]: Exp"),
        ("VENUES__BYBIT__INSTRUMENTS", '{ "A B" = "A" }', "venues.bybit.instruments: 'A B' is"),
        ("WEBHOOK__URLS", "[1]", "webhook.urls[0]: Expected `str`, got `int`"),
        ("HTTP__PORT", "abc", "http.port: Expected `int`, got `str`"),
    ],
)
def test_a_wrong_variable_is_not_blamed_on_a_file(name, value, message):
    with pytest.raises(ConfigError) as error:
        merged(environment={f"CASCADE_{name}": value})
    assert str(error.value).startswith(f"environment: {message}")


def test_an_unknown_variable_is_an_error():
    with pytest.raises(ConfigError, match=r"environment: unknown key 'redis\.ulr'"):
        merged(environment={"CASCADE_REDIS__ULR": "x"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CASCADE_REDIS_URL", "did you mean CASCADE_REDIS__URL?"),
        ("CASCADE_REDIS_URL_FILE", "did you mean CASCADE_REDIS__URL_FILE?"),
        ("CASCADE_HTPP_PORT", "did you mean CASCADE_HTTP__PORT?"),
        ("CASCADE_VENUES_OKX_ENABLED", "did you mean CASCADE_VENUES__OKX__ENABLED?"),
        ("CASCADE_STATEDIRECTORY", "did you mean CASCADE_STATE_DIRECTORY?"),
        ("CASCADE_CONFG", "did you mean CASCADE_CONFIG?"),
        ("CASCADE_FOO", "settings are CASCADE_<SECTION>__<KEY>, with two underscores"),
    ],
)
def test_a_variable_that_is_no_setting_is_an_error_with_the_nearest_name(name, hint):
    with pytest.raises(ConfigError) as error:
        merged(environment={name: "x"})
    assert str(error.value) == f"environment {name}: no such setting; {hint}"


def test_every_documented_variable_that_is_no_setting_is_let_be():
    root = Path(SHIPPED).parents[1]
    texts = [root / name for name in ("README.md", "docker-compose.yml", "Dockerfile")]
    texts += [root / "docs" / "operations.md", root / "tests" / "conftest.py"]
    named = {
        name
        for path in texts
        for name in re.findall(r"CASCADE_[A-Z_]+", path.read_text(encoding="utf-8"))
        if "__" not in name
    }
    assert {"CASCADE_SECRETS", "CASCADE_REVISION"} <= named
    result, _ = merged(environment=dict.fromkeys(named - {"CASCADE_"}, "x"))
    assert result.state_directory == "x"
