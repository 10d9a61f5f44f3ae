"""docker-compose.yml and the Dockerfile: valid, hardened, and in agreement with what they run.

No engine is needed. Where there is `docker compose` or `hadolint`, they judge as well.
"""

import base64
import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from monitor import demo
from monitor.config import merge, parse_environment, parse_toml
from monitor.sinks.embedded import find_binary
from tests.ops import files, needs
from tests.ops.servers import HOST, free_port, until

CHECKER = needs.module("check_jsonschema.builtin_schemas")
jsonschema = needs.module("jsonschema")

PATH = Path("docker-compose.yml")
COMPOSE = files.load(PATH)
SERVICES = COMPOSE["services"]
LIVE = {name for name, service in SERVICES.items() if "live" in service["profiles"]}
DEMO = {name for name, service in SERVICES.items() if "demo" in service["profiles"]}
DOCKERFILE = Path("Dockerfile").read_text("utf-8")


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NEW_SECRETS = loaded(Path("config/new_secrets.py"))


def environment(name):
    return SERVICES[name].get("environment", {})


# ---------------------------------------------------------------------------------- validity


def test_the_file_is_valid_against_the_compose_schema():
    jsonschema.Draft7Validator(CHECKER.get_builtin_schema("vendor.compose-spec")).validate(COMPOSE)


def test_the_schema_refuses_a_wrong_file():
    wrong = {"services": {"monitor": {"image": "x", "cap_drop": "ALL"}}}
    with pytest.raises(jsonschema.ValidationError, match="ALL"):
        jsonschema.Draft7Validator(CHECKER.get_builtin_schema("vendor.compose-spec")).validate(
            wrong
        )


@pytest.mark.parametrize("profile", ["live", "demo"])
def test_compose_itself_accepts_the_file_only_with_secrets(profile, tmp_path):
    command = _compose()
    config = [*command, "--file", str(PATH), "--profile", profile, "config", "--format", "json"]
    bare = {name: text for name, text in os.environ.items() if not name.startswith("CASCADE_")}
    refused = subprocess.run(config, env=bare, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "CASCADE_SECRETS" in refused.stderr
    NEW_SECRETS.written(tmp_path / "secrets")
    given = bare | {"CASCADE_SECRETS": str(tmp_path / "secrets")}
    done = subprocess.run(config, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == (LIVE if profile == "live" else DEMO)
    assert all(service["read_only"] for service in services.values())


def _compose():
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            said = subprocess.run(
                [*command, "version"], capture_output=True, text=True, check=False
            )
            if said.returncode == 0 and said.stdout.rpartition("version ")[2] >= "v2":
                return command
    return pytest.skip("docker compose 2 or later is not installed")


# --------------------------------------------------------------------------------- hardening


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_little_and_is_looked_after(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.keys() & {"pid", "ipc", "network_mode", "devices"} == set()
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), "a user that is a number and not root"
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["healthcheck"].keys() >= {"test", "interval", "timeout", "retries"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_port_is_open_on_the_loopback_only(name):
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_a_full_version(name):
    assert re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_is_mounted_from_here_is_there_and_cannot_be_written(name):
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, dict):
            assert volume["type"] == "tmpfs"
            continue
        source, _, rest = volume.replace("${CASCADE_CONFIG_FILE:-./config", "./config").partition(
            ":/"
        )
        source = source.rstrip("}")
        if source.startswith("."):
            assert Path(source).exists()
            assert rest.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


def test_no_password_stands_in_the_file_and_every_one_must_be_given():
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("${CASCADE_SECRETS:?")
    for name in SERVICES:
        for key, value in environment(name).items():
            if re.search("PASS|SECRET|TOKEN|URL", key) and key != "GF_SERVER_ROOT_URL":
                assert key.endswith("_FILE"), key
                assert value.removeprefix("/run/secrets/") in SERVICES[name]["secrets"]
    assert {name for service in SERVICES.values() for name in service.get("secrets", [])} == set(
        COMPOSE["secrets"]
    )


# ---------------------------------------------------------------------------------- profiles


def test_a_demo_shares_no_past_with_the_real_one():
    both = {name for name in LIVE & DEMO if SERVICES[name].get("volumes")}
    assert both == {"alertmanager", "grafana", "webhook"}
    assert {f"{name}-demo" for name in LIVE - DEMO} == DEMO - LIVE
    for name in LIVE - DEMO:
        assert SERVICES[name]["image"] == SERVICES[f"{name}-demo"]["image"]
        assert SERVICES[name].get("ports") == SERVICES[f"{name}-demo"].get("ports")
        kept = [v for v in SERVICES[f"{name}-demo"]["volumes"] if isinstance(v, str)]
        assert all(volume.endswith(":ro") for volume in kept)


@pytest.mark.parametrize(("profile", "names"), [("live", LIVE), ("demo", DEMO)])
def test_everybody_is_found_under_the_name_that_the_configurations_use(profile, names):
    found = {"data": set(), "watch": set()}
    for name in names:
        networks = SERVICES[name]["networks"]
        for network in networks:
            aliases = (networks[network] if isinstance(networks, dict) else {}).get("aliases", [])
            found[network] |= {name, *aliases}
    assert {"monitor", "alertmanager", "prometheus", "webhook", "grafana"} <= found["watch"]
    assert {"valkey", "mosquitto"} <= found["data"]
    assert "grafana" not in found["data"]
    assert "valkey" not in found["watch"]
    for name in names:
        assert set(SERVICES[name].get("depends_on", {})) <= names, profile
    prometheus = files.load(files.CONFIG / "prometheus.yml")
    targets = [t for job in prometheus["scrape_configs"] for c in job["static_configs"]
               for t in c["targets"]]  # fmt: skip
    hosts = {target.partition(":")[0] for target in targets} - {"localhost"}
    hosts |= set(re.findall(r"http://(\w+):", files.ALERTMANAGER.read_text("utf-8")))
    hosts |= {"prometheus"} & set(
        re.findall(
            r"http://(\w+):",
            (files.PROVISIONING / "datasources" / "prometheus.yml").read_text("utf-8"),
        )
    )
    assert hosts <= found["watch"]


def test_grafana_does_not_notify_beside_alertmanager():
    mounts = " ".join(SERVICES["grafana"]["volumes"])
    assert "provisioning/alerting" not in mounts
    assert "provisioning/datasources" in mounts


@pytest.mark.parametrize("name", ["monitor", "monitor-demo"])
def test_the_monitor_understands_its_environment(name):
    settings = {
        key.removesuffix("_FILE"): value
        for key, value in environment(name).items()
        if key.startswith("CASCADE_")
    }
    shipped = parse_toml(Path("config/monitor.toml").read_text("utf-8"), "shipped")
    config, origins = merge([shipped, parse_environment(settings)])
    assert config.http.host == "0.0.0.0"
    assert config.http.allowed_hosts == ["monitor"]
    assert config.mqtt.enabled
    assert config.mqtt.host == "mosquitto"
    assert config.journal.enabled is (name == "monitor")
    assert origins["redis.url"] == origins["mqtt.password"] == "environment"
    if name == "monitor-demo":
        own = demo.own(config, origins)
        assert own.journal.directory == "journal", "which lies below its own state directory"
        assert (own.redis, own.mqtt) == (config.redis, config.mqtt)


# ----------------------------------------------------------------------------------- secrets


def test_secrets_are_new_each_time_and_never_overwritten(tmp_path):
    NEW_SECRETS.written(tmp_path / "one")
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o700
    written = {path.name for path in (tmp_path / "one").iterdir()}
    assert set(COMPOSE["secrets"]) <= written
    with pytest.raises(FileExistsError):
        NEW_SECRETS.written(tmp_path / "one")
    first, second = NEW_SECRETS.contents(), NEW_SECRETS.contents()
    assert all(first[name] != second[name] for name in first)


def test_the_rights_are_those_of_the_documents():
    messages = Path("docs/messages.md").read_text("utf-8")
    rights = dict(re.findall(r"^ACL SETUSER (\w+) on ><password> (.+)$", messages, re.MULTILINE))
    assert rights == NEW_SECRETS.RIGHTS
    (block,) = re.findall(
        r"^user cascade\n((?:topic .+\n)+)", Path("docs/mqtt.md").read_text("utf-8"), re.MULTILINE
    )
    assert block in Path("config/mosquitto/acl").read_text("utf-8")


def test_valkey_lets_in_whom_it_should(tmp_path):
    redis = needs.module("redis")
    contents = NEW_SECRETS.contents()
    users = tmp_path / "users"
    users.write_text(contents["valkey_users"])
    port = free_port()
    server = subprocess.Popen(
        [find_binary(), "--port", str(port), "--bind", HOST, "--dir", tmp_path, "--save", "",
         "--aclfile", users],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    clients = []

    def client(url=""):
        address = re.sub("@.*", f"@{HOST}:{port}/0", url) or f"redis://{HOST}:{port}/0"
        clients.append(redis.Redis.from_url(address, protocol=2))
        return clients[-1]

    try:
        nobody = client()
        until(lambda: _pings(nobody, redis), 60, "Valkey answers")
        monitor, reader, worker = (
            client(contents[f"redis_{name}url"]) for name in ("", "reader_", "worker_")
        )
        assert monitor.set("cascade:{BTC}:depth", "1")
        assert reader.get("cascade:{BTC}:depth") == b"1"
        assert worker.xgroup_create("cascade:alerts", "pager", mkstream=True)
        for forbidden in (
            lambda: nobody.get("cascade:{BTC}:depth"),
            lambda: reader.set("cascade:{BTC}:depth", "2"),
            lambda: reader.publish("cascade:{BTC}:depth", "2"),
            lambda: reader.get("other"),
            lambda: worker.get("cascade:{BTC}:depth"),
            lambda: monitor.set("other", "1"),
            monitor.flushall,
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                forbidden()
        with pytest.raises(redis.exceptions.AuthenticationError):
            client("redis://cascade:cascade@x").ping()
    finally:
        for each in clients:
            each.close()
        server.terminate()
        server.wait(10)


def _pings(client, redis):
    try:
        return client.ping()
    except redis.exceptions.RedisError:
        return False


def test_a_mosquitto_password_is_hashed_as_its_own_tool_does():
    contents = NEW_SECRETS.contents()
    user, _, hashed = contents["mosquitto_passwords"].splitlines()[0].partition(":")
    _, kind, iterations, salt, key = hashed.split("$")
    assert (user, kind) == ("cascade", "7")
    assert base64.b64decode(key) == hashlib.pbkdf2_hmac(
        "sha512", contents["mqtt_password"].encode(), base64.b64decode(salt), int(iterations)
    )


def test_mosquitto_lets_in_whom_it_should(tmp_path):
    server, subscribe = needs.program("mosquitto"), needs.program("mosquitto_sub")
    publish = needs.program("mosquitto_pub")
    contents, port = NEW_SECRETS.contents(), free_port()
    (tmp_path / "passwords").write_text(contents["mosquitto_passwords"])
    (tmp_path / "passwords").chmod(0o444)
    config = Path("config/mosquitto/mosquitto.conf").read_text("utf-8")
    for there, here in (
        ("listener 1883", f"listener {port} {HOST}\nuser root"),
        ("/run/secrets/mosquitto_passwords", f"{tmp_path}/passwords"),
        ("/mosquitto/config/acl", f"{Path('config/mosquitto/acl').resolve()}"),
        ("/mosquitto/data/", f"{tmp_path}/"),
    ):
        assert there in config
        config = config.replace(there, here)
    (tmp_path / "mosquitto.conf").write_text(config)
    broker = subprocess.Popen(
        [server, "-c", tmp_path / "mosquitto.conf"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def done(program, *arguments, user="", password=""):
        who = ("-u", user, "-P", password) if user else ()
        address = ("-h", HOST, "-p", str(port))
        return subprocess.run(
            [program, *address, *who, *arguments], capture_output=True, timeout=60, check=False
        )

    monitor = {"user": "cascade", "password": contents["mqtt_password"]}
    reader = {"user": "reader", "password": contents["mqtt_reader_password"]}
    try:
        probe = ("-E", "-W", "30", "-t", "$SYS/broker/uptime")
        until(lambda: done(subscribe, *probe, **monitor).returncode == 0, 60, "Mosquitto answers")
        assert done(subscribe, *probe).returncode != 0
        assert done(subscribe, *probe, **reader | {"password": "guess"}).returncode != 0
        topic = ("-t", "cascade/status", "-q", "1", "-r", "-m")
        assert done(publish, *topic, "online", **monitor).returncode == 0
        done(publish, *topic, "forged", **reader)
        told = done(subscribe, "-t", "cascade/status", "-C", "1", "-W", "30", **reader)
        assert told.stdout == b"online\n"
    finally:
        broker.terminate()
        broker.wait(10)


# --------------------------------------------------------------------------------- Dockerfile


def test_hadolint_has_nothing_to_say():
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed")
    needs.run(program, "Dockerfile")


def test_the_image_runs_as_nobody_special_and_ends_when_asked():
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (.+)$", last, re.MULTILINE)
    assert user == SERVICES["monitor"]["user"]
    assert f"--owner={user.partition(':')[0]}" in last
    assert re.search(r'^ENTRYPOINT \["', last, re.MULTILINE)
    assert "STOPSIGNAL SIGTERM" in last
    assert "pip" not in last


def test_image_package_and_compose_have_one_version():
    version = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f'image.version="{version}"' in DOCKERFILE
    assert (
        SERVICES["monitor"]["image"] == SERVICES["webhook"]["image"] == f"cascade-monitor:{version}"
    )


def test_everything_that_is_copied_is_there_and_is_not_ignored():
    sources = [
        word.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    kept = [line[1:] for line in Path(".dockerignore").read_text("utf-8").splitlines()
            if line.startswith("!")]  # fmt: skip
    assert sorted(sources) == sorted(kept)
    assert all(Path(source).exists() for source in sources)
    assert ".dockerignore" not in sources
