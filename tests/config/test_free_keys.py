"""Overrides of free keys, which may be there or not."""

import pytest

from hybridflow.config import free_keys


@pytest.mark.parametrize("line", ["task.options.a=1", "+task.options.a=1", "++task.options.a=1"])
def test_what_a_mapping_has_or_not_may_be_given(line):
    assert free_keys.added([line]) == ["++task.options.a=1"]


@pytest.mark.parametrize(
    "line", ["run.seed=1", "+run.sed=1", "~task.options.a", "experiment=addition", "-m", "task=rows", "task.options"]
)
def test_all_else_stays_as_it_is(line):
    assert free_keys.added([line]) == [line]


def test_values_are_kept_as_they_are():
    assert free_keys.added(["reward.graders={a: 1, b: '='}"]) == ["++reward.graders={a: 1, b: '='}"]
