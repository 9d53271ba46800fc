"""The promise of the paper: a data flow is a few lines (HybridFlow, figure 6). Counted as statements, one a line."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest

from hybridflow.algorithms import algorithms

LONGEST_LINE = 120


def halves(name: str) -> list[str]:
    """The source of `rollout` and of `learn`, and of those that they call by `super()`."""
    found = []
    for half in ("rollout", "learn"):
        for base in algorithms.get(name).__mro__:
            if half in vars(base):
                found.append(textwrap.dedent(inspect.getsource(vars(base)[half])))
                if f"super().{half}(" not in found[-1]:
                    break
    return found


def statements(source: str) -> list[ast.stmt]:
    """Every statement of a method, nested ones too, without its docstring."""
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef) and ast.get_docstring(function)
    return [node for node in ast.walk(function) if isinstance(node, ast.stmt)][2:]


def flow(name: str) -> list[ast.stmt]:
    """Every statement of an algorithm's flow."""
    return [statement for source in halves(name) for statement in statements(source)]


def test_ppo_is_twelve_lines_at_most() -> None:
    assert len(flow("ppo")) <= 12


def test_a_limit_on_costs_takes_six_more_at_most() -> None:
    assert len(flow("safe_rlhf")) <= len(flow("ppo")) + 6


@pytest.mark.parametrize("name", ["grpo", "remax", "dapo", "dpo"])
def test_without_a_critic_it_is_shorter(name: str) -> None:
    assert len(flow(name)) < len(flow("ppo"))


@pytest.mark.parametrize("name", list(algorithms))
def test_no_line_holds_more_than_one_statement_or_is_long(name: str) -> None:
    for source in halves(name):
        starts = [statement.lineno for statement in statements(source)]
        assert len(set(starts)) == len(starts)
        assert max(map(len, source.splitlines())) + 4 <= LONGEST_LINE
        plain = [statement for statement in statements(source) if not hasattr(statement, "body")]
        assert all(statement.end_lineno == statement.lineno for statement in plain)


@pytest.mark.parametrize("name", list(algorithms))
def test_each_tells_its_formula_and_its_paper(name: str) -> None:
    cls = algorithms.get(name)
    assert cls.__doc__ and (cls.paper in cls.__doc__)
    assert cls.paper or name == "sft"


@pytest.mark.parametrize("name", list(algorithms))
def test_it_calls_its_roles_and_no_others(name: str) -> None:
    """`self.ROLE` in the flow, and in the methods of its own that the flow calls."""
    cls = algorithms.get(name)
    source = "\n".join(inspect.getsource(base) for base in cls.__mro__[:-1])
    called = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    validates = {"reward"} if name in ("sft", "dpo") else set()
    assert set(cls.roles) - validates <= called
    assert set(cls.only_for_kl) <= set(cls.roles) and cls.learner in cls.roles
