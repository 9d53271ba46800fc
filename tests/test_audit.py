"""requirements/audit.py: an audit that had no data does not look like one that found nothing."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

judged = runpy.run_path(str(Path(__file__).parents[1] / "requirements/audit.py"))["judged"]
CLEAN = {"name": "numpy", "version": "2.0", "vulns": []}
HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["6.1"], "aliases": [], "description": ""}
WITH_HOLE = {"name": "pyyaml", "version": "6.0", "vulns": [HOLE]}
UNKNOWN = {"name": "mine", "skip_reason": "Dependency not found on PyPI and could not be audited: mine (1.0)"}


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([CLEAN], 0, "cpu.lock: 1 of 1 packages audited\nno known vulnerability"),
        ([CLEAN, UNKNOWN], 0, "1 of 2 packages audited; unknown to whom pip-audit asked: mine\nno known"),
        ([CLEAN, WITH_HOLE], 1, "2 of 2 packages audited\npyyaml 6.0: PYSEC-2026-1, fixed in 6.1"),
        ([UNKNOWN], 2, "cpu.lock: not audited: whom pip-audit asked knows none of its 1 packages; they can be had"),
    ],
)
def test_what_an_audit_says(packages: list[dict[str, Any]], status: int, told: str) -> None:
    found, text = judged("cpu.lock", json.dumps({"dependencies": packages, "fixes": []}), "")
    assert found == status and told in text


def test_without_a_network_nothing_is_audited() -> None:
    found, text = judged("cpu.lock", "", "WARNING: hashes\nERROR: ConnectionError: no route to pypi.org\n")
    assert found == 2 and text.startswith("cpu.lock: not audited: ERROR: ConnectionError: no route to pypi.org\n")
