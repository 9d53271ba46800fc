"""Reward models as transformers writes them: a decoder with a `score` in place of its output layer."""

from __future__ import annotations

from typing import Any

from hybridflow.errors import shown
from hybridflow.json_file import a_whole

_SCORER = "ForSequenceClassification"
_LANGUAGE_MODEL = "ForCausalLM"


def is_scorer(config: dict[str, Any], where: str) -> bool:
    """Tell whether a parsed config.json is that of a reward model: a sequence classifier with one label.

    Raises ValueError for another number of labels.
    """
    if not _architecture(config).endswith(_SCORER):
        return False
    named = config.get("id2label") or {}
    number = config.get("num_labels")
    if not isinstance(named, dict):
        raise ValueError(f"{where}: id2label = {shown(named)}: an object was expected")
    labels = len(named) or (2 if number is None else a_whole(number, f"{where}: num_labels"))  # 2 are left out
    if labels != 1:
        raise ValueError(f"{where}: num_labels = {labels} is not supported, only 1: the score of a reward model")
    return True


def as_language_model(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the language model with the same decoder."""
    return {**config, "architectures": [_architecture(config).replace(_SCORER, _LANGUAGE_MODEL)]}


def as_scorer(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the reward model with the same decoder.

    transformers scores a row at its last token that is not padding. Where padding is also an end token, that is not the
    last token of a response that has ended; such a padding is left out, and transformers then takes single rows.
    """
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    padding = config.get("pad_token_id")
    return {
        **{name: value for name, value in config.items() if name != "num_labels"},  # by it transformers makes two again
        **{name: None for name in ("problem_type",) if name in config},
        "architectures": [_architecture(config).replace(_LANGUAGE_MODEL, _SCORER)],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "pad_token_id": None if padding in ends else padding,
    }


def _architecture(config: dict[str, Any]) -> str:
    return str((config.get("architectures") or ["none"])[0])
