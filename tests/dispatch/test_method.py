"""Declarations of methods that cannot be right."""

from __future__ import annotations

from typing import Any

import pytest

from hybridflow import dispatch


@pytest.mark.parametrize("declared", [{"needs": "rewards"}, {"optional": "rewards"}, {"gives": "rewards"}])
def test_a_text_in_the_place_of_columns_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"'rewards' was declared as columns; .* expected, as \['rewards'\]"):
        dispatch.using("dp_proto", **declared)
