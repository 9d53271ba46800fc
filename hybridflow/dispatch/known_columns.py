"""Columns that the roles and losses of hybridflow exchange, and what each must be like."""

from __future__ import annotations

OLD_LOG_PROBS = "old_log_probs"
KINDS = {
    "prompt_ids": "ragged int",
    "response_ids": "ragged int",
    "loss_mask": "ragged int",
    "rejected_ids": "ragged int",
    "rejected_loss_mask": "ragged int",
    "chosen_harmful": "bool",
    "rejected_harmful": "bool",
    "rollout_log_probs": "ragged float",
    OLD_LOG_PROBS: "ragged float",
    "ref_log_probs": "ragged float",
    "values": "ragged float",
    "advantages": "ragged float",
    "returns": "ragged float",
    "rewards": "float",
    "grades": "float",
    "token_rewards": "ragged float",
    "baseline_rewards": "float",
    "baseline_lengths": "int",
    "costs": "float",
    "cost_values": "ragged float",
    "cost_returns": "ragged float",
    "ref_chosen": "float",
    "ref_rejected": "float",
    "answer": "object",
    "metadata": "object",
    "messages": "object",
    "source": "object",
    "answer_key": "object",
    "finish_reason": "object",
    "truncated": "bool",
    "weight_version": "ragged int",
    "turn_rewards": "ragged float",
    "turn_index": "ragged int",
    "turns": "int",
    "prefix": "int",
    "environment_failure": "object",
    "sampling_temperature": "float",
}

GROUP = {"group_id": ""}  # of rows that a rank made it may be of any kind: it is only compared
SHARED_PREFIXES = GROUP | {"prefix": KINDS["prefix"]}
"""Columns that say which rows begin alike (`hybridflow.batch.shared_prefix`), for who computes that once."""


def kinds(*names: str) -> dict[str, str]:
    """Return columns with their kinds. Raises KeyError for a column that is not in the table."""
    return {name: KINDS[name] for name in names}
