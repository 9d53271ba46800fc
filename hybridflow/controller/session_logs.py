"""What libraries have printed on the ranks: Ray keeps it in its session's folder, which is removed when a run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray

from hybridflow.errors import Stopped
from hybridflow.observe.secret_values import redacted

LONGEST = 2**20  # bytes of a file, the last ones


@contextmanager
def kept_if_it_fails(folder: Path) -> Iterator[None]:
    """Copy it into a folder, a file a process and stream, if the block fails and this process started the cluster."""
    try:
        yield
    except Stopped:
        raise
    except BaseException:
        with suppress(OSError):  # of a full disk, which the run may have ended by
            _copy(folder)
        raise


def _copy(folder: Path) -> None:
    node = ray._private.worker._global_node
    if node is None or not node.head:
        return
    for file in Path(node.get_logs_dir_path()).glob("worker-*"):
        if file.suffix in (".out", ".err") and file.stat().st_size:
            for made in (folder.parent, folder):  # and not the run's, which somebody may have moved
                made.mkdir(exist_ok=True)
            text = file.read_bytes()[-LONGEST:].decode(errors="replace")
            (folder / file.name).write_text(redacted(text), encoding="utf-8")
