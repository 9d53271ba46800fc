"""Names that roles may have, and what all that have a model read."""

from __future__ import annotations

import pytest

from hybridflow.dispatch import declarations
from hybridflow.errors import NameTakenError
from hybridflow.roles import GradedModelRewardRole, ModelCostRole, ModelRewardRole, Role, roles
from hybridflow.roles.builtin_roles import GeneratingRole


@pytest.mark.parametrize("name", ["two words", "my-judge", "class", "1st"])
def test_a_role_is_named_as_an_attribute_is(name: str) -> None:
    with pytest.raises(TypeError, match=f"role '{name}': an algorithm calls it as an attribute, self.NAME"):
        roles.register(name)
    assert name not in roles


def test_the_grader_of_every_run_is_taken() -> None:
    with pytest.raises(NameTakenError, match="role 'grader': every run has something of that name"):
        roles.register("grader")(type("Grader", (Role,), {}))


@pytest.mark.parametrize(
    "role", [*map(roles.get, ("actor", "critic", "reference", "reward_model", "cost_critic")), GradedModelRewardRole,
    ModelCostRole, ModelRewardRole], ids=lambda role: role.__name__,
)  # fmt: skip
def test_who_computes_whole_rows_with_a_model_reads_what_they_share(role: type[Role]) -> None:
    """Samples of a prompt and, of rows that are no pairs, whatever else begins alike."""
    looked_at = 0
    for name, method in declarations(role).items():
        loss = {"loss": "policy"} if name == "update_policy" else {}
        reads = method.of_call(("rows",), loss).reads
        if reads is None or "response_ids" not in reads or hasattr(GeneratingRole, name):
            continue
        if name == "recall_log_probs":  # no model: what the update before it computed
            continue
        looked_at += 1
        assert "rejected_ids" in reads or {"group_id", "prefix"} <= {*reads}, name
    assert looked_at
