"""The most memory that a process has had, where its kernel tells, and where it does not."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from hybridflow.process_memory import peak_bytes


def test_the_peak_is_what_the_kernel_says(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t     123 kB\nVmRSS:\t      45 kB\n")
    assert peak_bytes(status) == 123 * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 2**22 < peak_bytes() < 1.1 * most, "this has counted since the process began, and a peak may begin later"


@pytest.mark.parametrize("text", [None, "", "Name:\tpython\nVmRSS:\t      45 kB\n", "VmHWM:\t     ? kB\n"])
def test_a_kernel_that_does_not_tell(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "status").write_text(text)
    assert peak_bytes(tmp_path / "status") == 0
