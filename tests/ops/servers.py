"""Real servers on loopback ports, for as long as a test needs them."""

import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.ops import files, needs

HOST = "127.0.0.1"


def free_port():
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return sock.getsockname()[1]


def until(condition, seconds, what, *, every=0.1):
    """What `condition` gives as soon as it gives something."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(every)
    raise AssertionError(f"after {seconds} s still not: {what}")


def ask(url, body=None):
    """The JSON that a server answers with; its error's body is an answer, too."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        return json.loads(error.read())


def _ready(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return answer.status == 200
    except OSError:
        return False


@contextmanager
def _process(*command, ready, log):
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        until(lambda: _ready(ready) or server.poll() is not None, 60, f"{command[0]} is ready")
        assert server.poll() is None, log.read_text("utf-8")
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def _copy(value, scale):
    """A copy of rules or routes with every duration of theirs divided, and at least 1 s."""
    durations = {
        "for",
        "keep_firing_for",
        "group_wait",
        "group_interval",
        "repeat_interval",
        "resolve_timeout",
    }
    if isinstance(value, list):
        return [_copy(item, scale) for item in value]
    if isinstance(value, dict):
        return {
            key: f"{max(1, files.seconds(item) // scale) if item != '0s' else 0}s"
            if key in durations
            else _copy(item, scale)
            for key, item in value.items()
        }
    return value


@contextmanager
def prometheus(folder, targets, *, alertmanager=None, scale=1):
    """A Prometheus with our rules that scrapes every second; its address.

    The configuration is ours but for addresses and intervals; with a `scale` the rules wait
    shorter by that factor.
    """
    program = needs.program("prometheus")
    config = files.load(files.CONFIG / "prometheus.yml")
    config["global"] = {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    jobs = [job for job in config["scrape_configs"] if job["job_name"] == "cascade"]
    jobs[0]["static_configs"] = [{"targets": targets}]
    config["scrape_configs"] = jobs
    config["alerting"]["alertmanagers"][0]["static_configs"] = [
        {"targets": [alertmanager] if alertmanager else []}
    ]
    (folder / "rules").mkdir(parents=True)
    for path in files.RULES:
        text = files.yaml.safe_dump(_copy(files.load(path), scale))
        (folder / "rules" / path.name).write_text(text, "utf-8")
    (folder / "prometheus.yml").write_text(files.yaml.safe_dump(config), "utf-8")
    address = f"{HOST}:{free_port()}"
    with _process(
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        # What fires before Alertmanager is discovered is sent again a minute later otherwise.
        "--rules.alert.resend-delay=1s",
        ready=f"http://{address}/-/ready",
        log=folder / "prometheus.log",
    ):
        yield f"http://{address}"


@contextmanager
def alertmanager(folder, receiver=None, *, scale=1):
    """An Alertmanager with our routes; its ``host:port``. Webhooks go to `receiver`."""
    program = needs.program("alertmanager", "prometheus-alertmanager")
    folder.mkdir(parents=True, exist_ok=True)
    config = _copy(files.load(files.ALERTMANAGER), scale)
    for contact in config["receivers"]:
        for hook in contact["webhook_configs"]:
            path = urllib.parse.urlsplit(hook["url"]).path
            hook["url"] = f"http://{receiver or f'{HOST}:{free_port()}'}{path}"
    (folder / "alertmanager.yml").write_text(files.yaml.safe_dump(config), "utf-8")
    address = f"{HOST}:{free_port()}"
    with _process(
        program,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        ready=f"http://{address}/-/ready",
        log=folder / "alertmanager.log",
    ):
        yield address


@contextmanager
def http(answer):
    """A loopback HTTP server; `answer(path, body)` gives the text of each answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length", 0))
            text = answer(self.path, self.rfile.read(length)).encode()
            with suppress(ConnectionError):  # Alertmanager lets go of what it has superseded
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        do_POST = do_GET  # noqa: N815 - the base class's own spelling

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
