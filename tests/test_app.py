"""Which process owns what, and what an effective configuration is made of."""

import socket
from types import SimpleNamespace

import pytest

from monitor import app
from monitor.app import Shard, clock, new_run, pipeline_config
from monitor.config import ConfigError
from monitor.events import NS
from monitor.sinks.keep import Keeper
from tests.builders import config, instrument
from tests.sinks.builders import redis_config

ASSETS = [f"A{n}" for n in range(200)]


def test_every_asset_has_exactly_one_owner():
    for asset in ASSETS:
        assert sum(Shard(i, 8).owns(asset) for i in range(8)) == 1


def test_assets_are_spread_over_the_shards():
    owned = [sum(Shard(i, 8).owns(asset) for asset in ASSETS) for i in range(8)]
    assert min(owned) > 10


def test_one_more_shard_takes_assets_and_moves_no_other():
    before = {asset: next(i for i in range(8) if Shard(i, 8).owns(asset)) for asset in ASSETS}
    after = {asset: next(i for i in range(9) if Shard(i, 9).owns(asset)) for asset in ASSETS}
    assert all(after[asset] in (before[asset], 8) for asset in ASSETS)


def test_a_shard_follows_all_instruments_of_its_assets_on_every_venue():
    table = ", ".join(f'{asset}USDT = "{asset}"' for asset in ASSETS)
    whole = config(
        "".join(f"[venues.{v}]\ninstruments={{ {table} }}\n" for v in ("binance", "bybit"))
    )
    parts = [pipeline_config(whole, [], Shard(i, 2)) for i in range(2)]
    owned = [
        {asset for venue in part.venues.values() for asset in venue.instruments.values()}
        for part in parts
    ]
    assert owned[0] | owned[1] == {*ASSETS, "BTC", "ETH", "SOL"}
    for part in parts:
        assert part.venues["binance"].instruments == part.venues["bybit"].instruments
    assert not owned[0] & owned[1]


def test_only_specifications_of_followed_instruments_are_taken_along():
    part = pipeline_config(config(), [instrument(), instrument("XUSDT")], Shard())
    assert [spec.symbol for spec in part.instruments] == ["BTCUSDT"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n".join(f"[venues.{v}]\nenabled=false" for v in config().venues), "nothing to follow"),
    ],
)
def test_a_configuration_with_nothing_to_do_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        pipeline_config(config(text), [], Shard())


def test_a_shard_without_assets_idles():
    parts = [pipeline_config(config(), [], Shard(i, 50)) for i in range(50)]
    assert sum(not part.venues for part in parts) >= 47


def test_the_clock_never_goes_back_and_runs_are_named_apart():
    now = clock()
    times = [now() for _ in range(1000)]
    assert times == sorted(times)
    assert new_run() != new_run()


def test_time_goes_on_at_half_pace_while_the_machines_clock_is_behind(monkeypatch):
    clocks = SimpleNamespace(wall=1_000 * NS, running=77 * NS)
    monkeypatch.setattr(app.time, "time_ns", lambda: clocks.wall)
    monkeypatch.setattr(app.time, "monotonic_ns", lambda: clocks.running)
    now = clock()
    assert now() == 1_000 * NS
    clocks.wall -= 600 * NS
    times = []
    for _ in range(20):
        clocks.wall += 60 * NS
        clocks.running += 60 * NS
        times.append(now() // NS)
    assert times[:3] == [1_030, 1_060, 1_090]
    assert times[-1] == clocks.wall // NS == 1_600
    assert times == sorted(set(times))


def config_hash(text, shard=0):
    return app._identity(config(text), "run", Shard(shard, 2)).config_sha256


def test_shards_with_a_directory_and_a_port_of_their_own_have_one_configuration():
    own = 'state_directory = "b"\n[http]\nport = 9465\n'
    assert config_hash("") == config_hash(own, shard=1)
    assert config_hash("") != config_hash("[http]\nready_lag_s = 9\n")


async def test_a_redis_that_hangs_at_the_stop_leaves_the_sinks_their_time(monkeypatch, caplog):
    monkeypatch.setattr(app, "DRAIN_S", 0.3)
    engine = SimpleNamespace(assets=ASSETS, state=lambda *_: b"state")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        keeper = Keeper(redis_config(url, timeout_s=0.1), "run")
        await app._keep_all(keeper, SimpleNamespace(engine=engine), clock())
        await keeper.close()
    assert 1 <= keeper.failed < len(ASSETS)
    assert caplog.records[-1].message == "state_saved_in_part"
