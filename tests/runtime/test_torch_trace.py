"""Torch traces: what is in one, what is not, and disks that take none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from hybridflow.observe.disk_errors import DiskError
from hybridflow.runtime.torch_trace import TorchTrace
from tests.small_disk import room_for


def compute() -> None:
    """A forward and a backward pass."""
    weights = torch.ones(4, 4, requires_grad=True)
    (weights @ torch.ones(4, 4)).sum().backward()


def spans(file: Path) -> list[str]:
    """The names of what ran, in the order in which it began."""
    with gzip.open(file, "rt") as stream:
        events = json.load(stream)["traceEvents"]
    return [one["name"] for one in sorted((one for one in events if one.get("ph") == "X"), key=lambda one: one["ts"])]


def test_a_trace_has_calls_and_the_operators_of_both_passes(tmp_path: Path) -> None:
    trace = TorchTrace()
    trace.start()
    with trace.call("actor.update_actor"):
        compute()
    trace.write(tmp_path / "traces/step-3-main-0.json.gz")
    assert [file.name for file in (tmp_path / "traces").iterdir()] == ["step-3-main-0.json.gz"]
    names = spans(tmp_path / "traces/step-3-main-0.json.gz")
    assert names.index("actor.update_actor") < names.index("aten::mm") < names.index("MmBackward0")


def test_what_was_dropped_or_begun_before_is_not_in_it(tmp_path: Path) -> None:
    trace = TorchTrace()
    for end in (trace.drop, trace.start):  # the step is not recorded; it is made again
        trace.start()
        torch.ones(2).exp()
        end()
    torch.ones(2).log()
    trace.write(tmp_path / "trace.json.gz")
    torch.ones(2).sin()
    names = {*spans(tmp_path / "trace.json.gz")}
    assert "aten::log" in names and not {"aten::exp", "aten::sin"} & names


def test_nothing_recorded_is_nothing_written(tmp_path: Path) -> None:
    trace = TorchTrace()
    with trace.call("actor.update_actor"):
        compute()
    trace.write(tmp_path / "trace.json.gz")
    trace.drop()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("room", [0, 700, 2000])
def test_a_disk_that_takes_no_more_is_told_and_has_no_half_of_it(room: int, tmp_path: Path) -> None:
    """It is full at once, or torch's own file is left without its end, of which torch says nothing."""
    file = tmp_path / "trace.json.gz"
    trace = TorchTrace()
    trace.start()
    compute()
    with room_for(room), pytest.raises(DiskError, match=f"^File too large: {tmp_path}"):
        trace.write(file)
    assert not [*tmp_path.iterdir()]
    trace.start()  # and the next step has one
    compute()
    trace.write(file)
    assert "aten::mm" in spans(file)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("")
    trace = TorchTrace()
    trace.start()
    with pytest.raises(DiskError, match=r"^(Not a directory|File exists): "):
        trace.write(tmp_path / "traces/trace.json.gz")
