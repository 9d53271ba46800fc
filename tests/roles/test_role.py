"""Names that roles may have."""

from __future__ import annotations

import pytest

from hybridflow.errors import NameTakenError
from hybridflow.roles import Role, roles


@pytest.mark.parametrize("name", ["two words", "my-judge", "class", "1st"])
def test_a_role_is_named_as_an_attribute_is(name: str) -> None:
    with pytest.raises(TypeError, match=f"role '{name}': an algorithm calls it as an attribute, self.NAME"):
        roles.register(name)
    assert name not in roles


def test_the_grader_of_every_run_is_taken() -> None:
    with pytest.raises(NameTakenError, match="role 'grader': every run has something of that name"):
        roles.register("grader")(type("Grader", (Role,), {}))
