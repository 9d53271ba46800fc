"""Names of earlier versions: each is told what it is called now, wherever it is used."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from hybridflow import former_names
from hybridflow.algorithms import Algorithm
from hybridflow.batch import BatchRef
from hybridflow.config import key_suggestions
from hybridflow.controller import ResourcePool, Supervisor
from hybridflow.former_names import ATTRIBUTES, MODULES, NAMES, PARAMETERS, SETTINGS, hint
from hybridflow.losses.token_loss import TokenLoss
from hybridflow.parallel.layout import Layout
from hybridflow.runtime.failure import describe
from hybridflow.workers.model_worker import ModelWorker

CLASSES: dict[str, Any] = {
    cls.__name__: cls for cls in (Algorithm, BatchRef, Layout, ModelWorker, ResourcePool, Supervisor)
}
TAKERS: dict[str, Any] = {"TokenLoss": TokenLoss}
FORMER_ATTRIBUTES = [(owner, old, new) for owner, names in ATTRIBUTES.items() for old, new in names.items()]


def test_modules_lead_to_what_there_is() -> None:
    assert all(find_spec(now) and not find_spec(before) for before, now in MODULES.items())


def test_names_lead_to_what_there_is() -> None:
    assert NAMES["Lagrange"].rpartition(".")[0] == import_module("hybridflow.losses.lagrange").Lagrange.__module__
    assert hasattr(import_module("hybridflow.losses.ratios"), NAMES["held_exp"])
    assert hasattr(import_module("hybridflow.models"), NAMES["Shape"].rpartition(".")[2])


def test_attributes_lead_to_what_there_is() -> None:
    assert {owner for owner, _, _ in FORMER_ATTRIBUTES} == {*CLASSES}
    for owner, old, new in FORMER_ATTRIBUTES:
        there = {*dir(CLASSES[owner]), *getattr(CLASSES[owner], "__dataclass_fields__", ())}
        assert new in there and old not in there, (owner, old)


def test_parameters_lead_to_what_there_is() -> None:
    assert {*PARAMETERS} == {*TAKERS}
    for taker, names in PARAMETERS.items():
        there = inspect.signature(TAKERS[taker]).parameters
        assert all(new in there and old not in there for old, new in names.items())


def test_settings_lead_to_what_there_is() -> None:
    for old, new in SETTINGS.items():
        assert key_suggestions.unknown(new) is None
        if ".options." not in old:
            assert key_suggestions.unknown(old) == f"{old}: no such key; it is called {new} now"


@pytest.mark.parametrize(("old", "new"), ATTRIBUTES["Supervisor"].items())
def test_a_script_that_uses_an_old_attribute_is_told(old: str, new: str) -> None:
    supervisor: Any = Supervisor()
    with pytest.raises(AttributeError, match=f"'Supervisor' object has no attribute '{old}'; it is called {new} now"):
        getattr(supervisor, old)
    assert not hasattr(supervisor, old) and hasattr(supervisor, new)


def test_a_pool_that_plays_is_told() -> None:
    pool: Any = object.__new__(ResourcePool)
    with pytest.raises(AttributeError, match="'ResourcePool' object has no attribute 'play'; it is called start_role"):
        pool.play("actor")


def test_rows_and_layouts_are_told_too() -> None:
    rows: Any = BatchRef(0, ())
    with pytest.raises(AttributeError, match="BatchRef has no 'keep'; it is called select_columns now"):
        rows.keep(["n"])
    layout: Any = Layout()
    with pytest.raises(AttributeError, match="'Layout' object has no attribute 'heads'; it is called output_ranks now"):
        _ = layout.heads


@pytest.mark.parametrize("name", ["nothing", "step_index", "play"])
def test_what_never_was_is_a_plain_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'Supervisor' object has no attribute '{name}'$"):
        getattr(Supervisor(), name)


def test_an_old_parameter_is_told_where_the_error_is_reported() -> None:
    loss: Any = TokenLoss
    with pytest.raises(TypeError) as caught:
        loss(None, {}, largest={})
    assert describe(caught.value)[0].endswith("argument 'largest'; it is called maxima now")
    assert hint(caught.value) == "; it is called maxima now"


def test_an_old_attribute_of_a_users_class_is_told_where_the_error_is_reported() -> None:
    class Mine(ModelWorker):
        def __init__(self) -> None:
            pass

    worker: Any = Mine()
    with pytest.raises(AttributeError) as caught:
        worker.turn()
    assert describe(caught.value)[0] == (
        "AttributeError: 'Mine' object has no attribute 'turn'; it is called model_loaded now"
    )


@pytest.mark.parametrize(
    "error", [KeyError("turn"), TypeError("other() got an unexpected keyword argument 'may'"), AttributeError("turn")]
)
def test_other_errors_get_no_hint(error: Exception) -> None:
    assert former_names.hint(error) == ""
