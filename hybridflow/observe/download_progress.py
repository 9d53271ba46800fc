"""Words for who waits for a download: how large the folder has become that it goes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from hybridflow.observe import terminal

EVERY_S = 5.0


@contextmanager
def progress_told(what: str, folder: Path, every_s: float = EVERY_S) -> Iterator[None]:
    """Say every few seconds by how much a folder has grown while the block runs; also within `terminal.tamed`.

    Bars of the hub's client are not shown in its place: they move the cursor, and name files as the hub does.
    """
    tell = terminal.complainer()
    before = _bytes_in(folder)
    done = Event()

    def watch() -> None:
        while not done.wait(every_s):
            tell(terminal.one_line(f"{what}: {(_bytes_in(folder) - before) / 1e6:,.0f} MB so far"))

    thread = Thread(target=watch, name="download progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder. The hub's snapshots are links to files that are counted already."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # it was given its name meanwhile
            total += 0 if file.is_symlink() or file.is_dir() else file.stat().st_size
    return total
