"""A hub with one model, on this machine: the few answers of its protocol that a download asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _entry(folder: Path, file: Path) -> dict[str, object]:
    data = file.read_bytes()
    path = file.relative_to(folder).as_posix()
    return {"type": "file", "path": path, "oid": hashlib.sha1(data).hexdigest(), "size": len(data)}


@contextmanager
def hub(folder: Path, repository: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as a repository; its address, and the files that were asked for, as they are."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            if path in (f"/api/models/{repository}/revision/{ref}" for ref in ("main", COMMIT)):
                files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
                told = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
                self._send(json.dumps(told).encode(), "application/json", body)
            elif path == f"/api/models/{repository}/tree/{COMMIT}":
                told = [_entry(folder, file) for file in sorted(folder.rglob("*")) if file.is_file()]
                self._send(json.dumps(told).encode(), "application/json", body)
            elif path.startswith(f"/{repository}/resolve/") and (file := folder / path.split("/", 5)[5]).is_file():
                asked.extend([file.name] if body else [])
                self._send(file.read_bytes(), "application/octet-stream", body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RevisionNotFound" if f"/{repository}/" in path else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _send(self, data: bytes, kind: str, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
