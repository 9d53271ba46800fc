"""vLLM would ask another process what a model's class can do; in the block it asks this one."""

from __future__ import annotations

import inspect

import pytest

from hybridflow.engines.vllm.model_inspection import inspected_here

pytestmark = pytest.mark.ranks


def test_a_model_is_looked_at_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.models import registry

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("another process was asked")

    monkeypatch.setattr(registry, "_run_in_subprocess", refuse)
    monkeypatch.setattr(registry._LazyRegisteredModel, "_load_modelinfo_from_cache", lambda *_: None)
    monkeypatch.setattr(registry._LazyRegisteredModel, "_save_modelinfo_to_cache", lambda *_: None)
    model = registry._LazyRegisteredModel("vllm.model_executor.models.qwen2", "Qwen2ForCausalLM")
    with inspected_here():
        assert model.inspect_model_cls().is_text_generation_model
    with pytest.raises(AssertionError, match="another process"):
        model.inspect_model_cls()  # as long as it does, this is needed
    monkeypatch.undo()
    assert "subprocess.run" in inspect.getsource(registry._run_in_subprocess), "what it does by itself"
