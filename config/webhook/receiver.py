"""Prints every notification that it is sent, one JSON object a line; for trying things out.

`receiver.py check` fails unless one is running here.
"""  # noqa: INP001

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

PORT = 8080
BYTES_MAX = 1 << 20


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to a notification, 400 to what is not JSON, 200 to a health check."""

    timeout = 10

    def do_GET(self) -> None:
        """Tell that it is there."""
        self._answer(200)

    def do_POST(self) -> None:
        """Print what came."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BYTES_MAX:
            self._answer(413)
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            self._answer(400)
            return
        print(json.dumps({"path": self.path, "body": body}), flush=True)  # noqa: T201
        self._answer(204)

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        urlopen(f"http://127.0.0.1:{PORT}/", timeout=3).close()
        sys.exit()
    ThreadingHTTPServer(("", PORT), Receiver).serve_forever()
