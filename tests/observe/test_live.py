"""The live view: a step has one number, on the screen and in the files."""

from __future__ import annotations

import pytest

from hybridflow.observe.live import Live


def test_a_step_has_the_number_that_files_have(capsys: pytest.CaptureFixture[str]) -> None:
    Live(every_step=True).step(1, 3, {"reward/mean": 0.5, "perf/tokens_per_s": 10.0}, 2.0)
    assert capsys.readouterr().out == "step 0 (1/3 done) · reward 0.500 · 10 tokens/s · 2 s left\n"
