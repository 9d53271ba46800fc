"""Names that a setting may have: read from the source of losses, they are those that are registered."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hybridflow.cli.names import names_for
from hybridflow.losses.component_names import MODULES, registry_of

LOSSES = {
    "algorithm.advantage.name": "advantages",
    "algorithm.pair_loss": "pair_losses",
    "algorithm.reward_kl_control.name": "kl_controllers",
    "algorithm.reward_kl_estimator": "kl_estimators",
    "algorithm.reward_shaping.name": "reward_shapings",
    "algorithm.rollout_filter.name": "rollout_filters",
    "algorithm.policy_loss.name": "policy_losses",
    "algorithm.policy_loss.aggregate": "aggregations",
    "algorithm.policy_loss.correction.name": "corrections",
}


@pytest.mark.parametrize("key", LOSSES)
def test_the_source_has_the_names_that_are_registered(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    components = registry_of(LOSSES[key])
    ours = {name for name in components if components.get(name).__module__.startswith("hybridflow.")}
    names = names_for(key)
    assert names is not None and ours <= set(names())
    monkeypatch.delitem(sys.modules, f"hybridflow.losses.{MODULES[LOSSES[key]]}")
    read = names_for(key)
    assert read is not None and set(read()) - {"auto", "none"} == ours - {"none"}


@pytest.mark.processes
def test_no_name_needs_torch() -> None:
    code = (
        "import sys; from hybridflow.cli import settings; settings.settings_text(); "
        "print([name for name in ('torch', 'ray', 'vllm', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
