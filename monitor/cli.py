"""The command line: reads files and environment, calls `app`, prints results.

Exit codes: 0 done, 1 not healthy, nobody answers or not known now, 2 usage or unusable input, 70 an
error of ours, 78 configuration.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import traceback
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import msgspec

from monitor import app, ask, demo, logs, picture, tables, whatif
from monitor.arguments import HISTORY_MIN, Command, parse
from monitor.ask import QuestionError, Unanswered
from monitor.backtest import fit, skill
from monitor.backtest import heatmap as heatmap_report
from monitor.backtest.fitting import TooFewPositivesError
from monitor.backtest.history import report as history
from monitor.backtest.skill import OverlapError
from monitor.config import (
    Config,
    ConfigError,
    Layer,
    merge,
    parse_environment,
    parse_instruments,
    parse_toml,
)
from monitor.events import Instrument
from monitor.journal import JournalError
from monitor.picture import PictureError
from monitor.recordings import RecordingError
from monitor.shipping import shipped
from monitor.sinks.embedded import EmbeddedError
from monitor.sinks.redis import masked

OK, UNHEALTHY, USAGE, INTERNAL, CONFIGURATION = 0, 1, 2, 70, 78

SECRETS: Final = ("http.token", "mqtt.password", "webhook.secret")
"""Settings that are a password; shown as whether there is one."""

_log = logging.getLogger(__name__)


class UsageError(Exception):
    """The command cannot be carried out as given; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments, COMMANDS, REPORTS)
    logs.configure("INFO", "auto")
    command: Command = options.command
    try:
        return command(options)
    except (KeyboardInterrupt, BrokenPipeError):
        return OK
    except Exception as error:  # noqa: BLE001  (the process boundary: say everything, then end)
        match _cause(error):
            case OSError() as cause if cause.filename is not None:
                _complain(f"{cause.filename}: {logs.plain(cause)}")
                return USAGE
            case ConfigError() as cause:
                _complain(str(cause))
                return CONFIGURATION
            case Unanswered() as cause:
                _complain(str(cause))
                return UNHEALTHY
            case (
                UsageError()
                | QuestionError()
                | PictureError()
                | JournalError()
                | RecordingError()
                | EmbeddedError()
                | OverlapError()
                | TooFewPositivesError()
                | OSError() as cause
            ):
                _complain(str(cause))
                return USAGE
        traceback.print_exc()
        return INTERNAL


def _writable(option: str, path: Path) -> None:
    """Find out before the work what would prevent its result from being written."""
    if path.is_dir():
        raise UsageError(f"{option} {path}: a folder, name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{option} {path}: no permission to write there")


def _cause(error: Exception) -> Exception:
    """The one error that task groups have wrapped."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


# ------------------------------------------------------------------------------- commands


def _run(options: argparse.Namespace) -> int:
    config, specifications, _ = _configuration(options)
    logs.configure(config.log.level, config.log.format)
    asyncio.run(app.run(config, specifications, _shard(options.shard)))
    return OK


def _demo(options: argparse.Namespace) -> int:
    config, specifications, origins = _configuration(options)
    logs.configure(config.log.level, config.log.format)
    asyncio.run(
        demo.run(
            demo.own(config, origins),
            specifications,
            name=options.scenario,
            seed=options.seed,
            speed=options.speed,
            duration_s=options.duration,
            on_stop=lambda pipeline: tables.console(sys.stderr).print(tables.instruments(pipeline)),
        )
    )
    return OK


def _record(options: argparse.Namespace) -> int:
    config, specifications, _ = _configuration(options)
    logs.configure(config.log.level, config.log.format)
    replace = msgspec.structs.replace
    recording = replace(
        config,
        journal=replace(config.journal, enabled=True, directory=str(options.out.resolve())),
        redis=replace(config.redis, enabled=False),
        mqtt=replace(config.mqtt, enabled=False),
        webhook=replace(config.webhook, enabled=False),
        http=replace(config.http, enabled=False),
    )
    try:  # better now than when the recording is missed
        options.out.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=options.out):
            pass
    except FileExistsError as error:
        raise UsageError(f"--out {options.out}: a file, a folder is needed") from error
    except OSError as error:
        raise UsageError(f"--out {options.out}: {logs.plain(error)}") from error
    asyncio.run(app.run(recording, specifications, _shard(options.shard)))
    return OK


def _import(options: argparse.Namespace) -> int:
    config, specifications, _ = _configuration(options)
    report = app.import_recording(
        options.format, options.files, options.out, config, specifications
    )
    _print_json(report)
    return OK


def _replay(options: argparse.Namespace) -> int:
    if options.stay and not options.sinks:
        raise UsageError("--stay: there is nothing to serve without --sinks")
    if options.summary:
        _writable("--summary", options.summary)
    config, _, origins = _configuration(options)
    logs.configure(config.log.level, config.log.format)
    if origins["redis.state_ttl_s"] == "shipped":
        # What is replayed does not go stale by the wall clock.
        day = msgspec.structs.replace(config.redis, state_ttl_s=86_400.0)
        config = msgspec.structs.replace(config, redis=day)
    results: list[app.Replayed] = []

    def ended(result: app.Replayed) -> None:
        results.append(result)
        _show_replay(options, result)

    asyncio.run(
        app.replay(
            options.journals,
            config,
            speed=options.speed,
            sinks=options.sinks,
            stay=options.stay,
            on_end=ended,
        )
    )
    damages = results[0].summary["journal"]["damages"] if results else []
    if any(damage["reason"] != "torn" for damage in damages):  # a torn tail is what a crash leaves
        _complain(f"the journal is damaged, what follows the damage is not replayed: {damages}")
        return USAGE
    return OK


def _show_replay(options: argparse.Namespace, result: app.Replayed) -> None:
    if options.dump_book:
        state = result.pipeline.engine.instruments.get(options.dump_book)
        if state is None:
            known = ", ".join(result.pipeline.engine.instruments) or "none"
            raise UsageError(f"no instrument {options.dump_book!r} in the journal; it has {known}")
        sys.stdout.write(state.book.text(state.quantity_decimals))
        sys.stdout.flush()
    if options.summary:
        options.summary.write_text(json.dumps(result.summary, indent=2) + "\n", encoding="utf-8")
    if options.json and not options.dump_book:
        _print_json(result.summary)
    elif options.summary or options.dump_book:
        return
    elif not sys.stdout.isatty():
        _print_json(result.summary)
    else:
        tables.show_replay(result)


def _check_config(options: argparse.Namespace) -> int:
    config, specifications, origins = _configuration(options)
    app.check(config, specifications, _shard(options.shard))
    effective = dict(_flatten(msgspec.to_builtins(config)))
    for name in SECRETS:
        effective[name] = "***" if effective[name] else ""
    effective["redis.url"] = logs.mask_url(config.redis.url)
    effective["webhook.urls"] = [masked(url) for url in config.webhook.urls]
    if options.json:
        _print_json(
            {
                key: {"value": value, "origin": _origin(key, origins)}
                for key, value in effective.items()
            }
        )
        return OK
    width = max(len(key) for key in effective)
    for key, value in effective.items():
        print(f"{key:<{width}}  = {value!r:<40}  # {_origin(key, origins)}")  # noqa: T201
    return OK


def _healthcheck(options: argparse.Namespace) -> int:
    config, _, _ = _configuration(options)
    url = f"{_own_address(config)}/readyz"
    try:
        with ask.DIRECT.open(url, timeout=3) as answer:
            print(answer.read().decode())  # noqa: T201
            return OK
    except urllib.error.HTTPError as error:
        _complain(error.read().decode())
    except OSError as error:
        _complain(f"no daemon answers at {url} ({logs.plain(error)})")
    return UNHEALTHY


def _daemon(options: argparse.Namespace, config: Config) -> ask.OverHttp:
    """The daemon at ``--url``, else that of this configuration, which alone is told the token."""
    if options.url:
        return ask.OverHttp(options.url)
    return ask.OverHttp(_own_address(config), config.http.token, own=True)


def _own_address(config: Config) -> str:
    """Where the daemon of this configuration serves HTTP."""
    if not config.http.port:
        raise UsageError("http.port is 0: which port that became only the daemon knows")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.http.host, config.http.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{config.http.port}"


def _heatmap(options: argparse.Namespace) -> int:
    if options.venue and options.minutes is not None:
        raise UsageError("--minutes: the picture over time is kept of all venues together only")
    if options.minutes is not None and not options.png:
        raise UsageError("--minutes: only a picture (--png) shows the time")
    if options.png:
        if options.png.suffix.lower() != ".png":
            raise UsageError(f"--png {options.png}: a PNG is drawn, so name it {options.png}.png")
        _writable("--png", options.png)
    config, _, _ = _configuration(options)
    asset = _asset(options.asset, config)
    source = (
        ask.InRedis(options.redis, config.redis.prefix)
        if options.redis
        else _daemon(options, config)
    )
    message = source.heatmap(asset, options.venue)
    told = ask.heatmap_in(message)
    if options.json:
        sys.stdout.write(message.decode() + "\n")
    elif not options.png:
        tables.show_heatmap(told.data, told.asset, told.venue, told.at_us)
    if options.png:
        minutes = HISTORY_MIN if options.minutes is None else options.minutes
        rows = [] if options.venue else source.history(asset, minutes, told.at_us)
        png = picture.draw(
            told.data,
            asset=told.asset,
            venue=told.venue,
            at_us=told.at_us,
            history=[(row.at_us, row.data) for row in rows],
            size=options.size,
            dark=options.dark,
        )
        options.png.write_bytes(png)
    return OK


def _stress(options: argparse.Namespace) -> int:
    config, _, _ = _configuration(options)
    asset = _asset(options.asset, config)
    if options.spot_share is not None and options.within is None:
        raise ask.QuestionError("--spot-share: makes no difference without --within")
    question = whatif.Question(options.shock, options.within, options.spot_share)
    if options.journal:
        answer = whatif.of_journal(options.journal, asset, question)
    elif options.redis:
        redis = ask.InRedis(options.redis, config.redis.prefix)
        answer = whatif.of_redis(redis, asset, question)
    else:
        answer = whatif.of_daemon(_daemon(options, config), asset, question)
    if options.json:
        _print_json(msgspec.to_builtins(answer))
    else:
        tables.show_stress(answer)
    return OK


def _asset(typed: str, config: Config) -> str:
    """The name of an asset as it is configured, where what was typed differs only in capitals."""
    names = {name for venue in config.venues.values() for name in venue.instruments.values()}
    alike = [name for name in names if name.casefold() == typed.casefold()]
    return alike[0] if len(alike) == 1 else typed


def _backtest(options: argparse.Namespace) -> int:
    options.run(options)
    return OK


# ---------------------------------------------------------------------------- configuration


def _configuration(
    options: argparse.Namespace,
) -> tuple[Config, list[Instrument], dict[str, str]]:
    """The effective configuration, the static specifications and the values' origins."""
    environment = _with_secret_files(os.environ)
    layers: list[Layer] = [parse_toml(shipped("monitor.toml"), "shipped")]
    path = options.config or environment.get("CASCADE_CONFIG")
    if path:
        try:
            layers.append(parse_toml(Path(path).read_text(encoding="utf-8"), str(path)))
        except (OSError, UnicodeDecodeError) as error:
            given = "--config" if options.config else "CASCADE_CONFIG"
            raise ConfigError(f"{given} {path}: {logs.plain(error)}") from error
    layers.append(parse_environment(environment))
    config, origins = merge(layers)
    specifications = parse_instruments(shipped("instruments.toml"), "instruments.toml")
    return config, specifications, origins


def _with_secret_files(environment: Mapping[str, str]) -> dict[str, str]:
    """Resolve ``CASCADE_<SECTION>__<KEY>_FILE`` to the content of the file it names."""
    resolved = dict(environment)
    for name, path in environment.items():
        if name.startswith("CASCADE_") and "__" in name and name.endswith("_FILE"):
            del resolved[name]
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"environment {name}={path}: {logs.plain(error)}") from error
            resolved[name.removesuffix("_FILE")] = text
    return resolved


def _shard(text: str) -> app.Shard:
    """``2/8``: the second of eight."""
    index, _, count = text.partition("/")
    try:
        shard = app.Shard(int(index) - 1, int(count))
    except ValueError:
        shard = app.Shard(-1, 0)
    if not 0 <= shard.index < shard.count:
        raise UsageError(f"--shard {text}: give it as i/n with 1 <= i <= n, such as 2/8")
    return shard


def _flatten(values: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        where = f"{path}.{key}" if path else key
        flat += _flatten(value, where) if isinstance(value, dict) else [(where, value)]
    return flat


def _origin(key: str, origins: Mapping[str, str]) -> str:
    return origins.get(key, "default")


# ---------------------------------------------------------------------------------- output


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))  # noqa: T201


def _complain(text: str) -> None:
    print(f"cascade-monitor: {text}", file=sys.stderr)  # noqa: T201


COMMANDS: Final[Mapping[str, Command]] = {
    "run": _run,
    "demo": _demo,
    "record": _record,
    "import": _import,
    "replay": _replay,
    "check-config": _check_config,
    "heatmap": _heatmap,
    "stress": _stress,
    "backtest": _backtest,
    "healthcheck": _healthcheck,
}

REPORTS: Final = (heatmap_report.COMMAND, skill.COMMAND, fit.COMMAND, history.COMMAND)
"""Those of ``backtest``."""
