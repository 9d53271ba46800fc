"""TorchTrace: what torch computed in a rank's process, operator by operator, as a file for trace viewers.

The recorder is torch.profiler, and its Chrome trace the file. On a GPU its kernels are in it too. It runs from one call
of the controller to another, so all calls between them are in it, whatever engine they use.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from hybridflow.observe.disk_errors import writing
from hybridflow.observe.run_lock import PRIVATE

LEVEL = 3  # of gzip: a trace becomes a twentieth; 9 takes five times as long for a tenth less
LAST_BYTES = 64


class TorchTrace:
    """Recorder of one process."""

    def __init__(self) -> None:
        self._profiler: Any = None

    def start(self) -> None:
        """Record from now on. What was being recorded goes: its step is made again."""
        self.drop()
        from torch.profiler import ProfilerActivity, profile

        from hybridflow.parallel.platform import platform

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if platform().accelerated else [])]
        self._profiler = profile(activities=activities)
        self._profiler.start()

    def call(self, name: str) -> AbstractContextManager[Any]:
        """Show what runs in the block as one span of that name, if something is being recorded."""
        if self._profiler is None:
            return nullcontext()
        from torch.profiler import record_function

        return record_function(name)

    def drop(self) -> None:
        """Record no more, and write nothing."""
        if self._profiler is not None:
            profiler, self._profiler = self._profiler, None
            profiler.stop()

    def write(self, file: Path) -> None:
        """Record no more, and write what was recorded, compressed, if anything was.

        Raises DiskError if it finds no room; then there is no file.
        """
        profiler = self._profiler
        if profiler is None:
            return
        self.drop()
        with writing(file):
            file.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            # torch leaves half of a file, of a name of its own, on a disk that takes no more.
            with tempfile.TemporaryDirectory(prefix=".trace-", dir=file.parent) as folder:
                plain = Path(folder) / "trace.json"
                profiler.export_chrome_trace(str(plain))
                _check_whole(plain)
                whole = Path(folder) / file.name
                with plain.open("rb") as source, gzip.open(whole, "wb", compresslevel=LEVEL) as target:
                    shutil.copyfileobj(source, target)
                whole.replace(file)


def _check_whole(file: Path) -> None:
    """Raise RuntimeError if a trace has no end: torch says nothing of a disk that takes no more."""
    end = b""
    if file.exists():
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - LAST_BYTES))
            end = stream.read().rstrip()
    if not end.endswith(b"}"):
        raise RuntimeError(f"{file}: torch has not written all of its trace")
