"""docs/schedules.md: its picture is what the state machine does."""

from __future__ import annotations

import runpy

from tests.docs.blocks import ROOT

SCRIPT = ROOT / "docs/images/schedules.py"


def test_the_picture_is_what_its_script_draws() -> None:
    drawn = runpy.run_path(str(SCRIPT))["picture"]()
    assert drawn == SCRIPT.with_suffix(".svg").read_text(), f"it is out of date: python {SCRIPT}"
