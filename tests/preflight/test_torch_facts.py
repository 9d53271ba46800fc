"""Torch is asked in a process of its own, which may not survive it."""

from __future__ import annotations

import pytest
import torch

from hybridflow.preflight import torch_facts
from hybridflow.preflight.torch_facts import TorchFacts

pytestmark = pytest.mark.processes


def test_what_torch_says_here() -> None:
    found = torch_facts.torch_facts()
    assert found.version == torch.__version__ and not found.error
    assert bool(found.built_for) == torch.backends.cuda.is_built()
    assert found.capability == torch.backends.cpu.get_cpu_capability()
    assert len(found.gpus) == torch.cuda.device_count()


def test_a_torch_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_facts, "MODULE", "hybridflow.no_such_module")
    found = torch_facts.torch_facts()
    assert found == TorchFacts(error=found.error) and "No module named hybridflow.no_such_module" in found.error
