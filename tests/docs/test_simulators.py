"""docs/simulators.md: its example runs, and its tables have every file and every number of hardware."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from hybridflow.planning import spec_of_config
from hybridflow.planning.estimates import StepEstimate
from hybridflow.planning.hardware import Efficiency, Hardware
from hybridflow.planning.hardware_files import hardware_names
from tests.docs.blocks import ROOT, blocks
from tests.planning.specs import SHAPE

PAGE = "docs/simulators.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


def test_the_example_estimates_a_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(spec_of_config, "read_shape", lambda folder: SHAPE)  # its model is one that a run would leave
    [example] = [block.text for block in blocks(PAGE) if block.language == "python"]
    names: dict[str, object] = {}
    exec(compile(example, PAGE, "exec"), names)
    step = names["step"]
    assert isinstance(step, StepEstimate)
    assert {"sync_weights", "actor.generate_sequences", "critic.update_critic"} <= step.phases.keys()


def test_every_hardware_file_and_every_key_of_one_is_described() -> None:
    described = set(re.findall(r"`([a-z0-9_]+)`", TEXT))
    assert set(hardware_names()) <= described
    keys = {field.name for kind in (Hardware, Efficiency) for field in fields(kind)} - {"name"}
    assert keys <= described
