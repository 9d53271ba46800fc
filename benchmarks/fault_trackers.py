"""A tracker's server, which takes metrics until it is told to fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Tracker(ThreadingHTTPServer):
    """Takes whatever is posted, on a port of its own.

    Attributes:
        taken: the number of posts that were answered.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken = 0
        self.hangs = False
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}/"

    def refuse(self) -> None:
        """Answer nobody any more: nothing listens."""
        self.shutdown()
        self.server_close()

    def hang(self) -> None:
        """Take posts, and never answer."""
        self.hangs = True


class _Handler(BaseHTTPRequestHandler):
    server: Tracker

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.hangs:
            self.server.over.wait()
            return
        self.server.taken += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def tracker() -> Iterator[Tracker]:
    """Serve in the block."""
    server = Tracker()
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield server
    finally:
        server.over.set()
        if serving.is_alive():
            server.refuse()
