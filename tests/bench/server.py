"""A raw websocket server with prebuilt frames: serving costs next to nothing.

Run as ``python -m tests.bench.server STREAM CORE SECONDS``; prints its port, listens on loopback
only, sends the whole stream to whoever connects, and ends when its standard input does or when the
time is over.
"""

import base64
import hashlib
import os
import socket
import sys
import threading
from pathlib import Path

from tests.bench.machine import pin
from tests.bench.stream import Stream

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def framed(payload: bytes) -> bytes:
    """An unmasked, unfragmented text frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def serve(connection: socket.socket, wire: bytes) -> None:
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        headers = (line.partition(b":") for line in request.split(b"\r\n"))
        key = next(v.strip() for k, _, v in headers if k.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())  # noqa: S324  (RFC 6455)
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        try:
            connection.sendall(wire)
            while connection.recv(4096):  # whatever the client says, until it goes
                pass
        except OSError:
            pass


def main() -> None:
    path, core, seconds = sys.argv[1:]
    pin(int(core))
    threading.Timer(float(seconds), os._exit, (1,)).start()
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    wire = b"".join(map(framed, Stream.load(Path(path)).frames))
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, wire), daemon=True).start()


if __name__ == "__main__":
    main()
