"""Look up known vulnerabilities of what the locks pin: `python requirements/audit.py PIP_AUDIT LOCK …` (`make audit`).

pip-audit ends with 0 also where whom it asks knows none of the packages, as a mirror that has no such data. So this
counts what it could ask about, and says it where that was nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VULNERABLE = 1
NO_DATA = 2
OPTIONS = ("--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json")
MAX_NAMED = 10  # packages
HINT = (
    "they can be had where https://pypi.org/pypi/NAME/VERSION/json can be read, or from another service: "
    "make audit AUDIT_ARGS='--vulnerability-service=osv'"
)


def main(arguments: Sequence[str]) -> int:
    """Audit each lock; the exit status: 1 if anything is vulnerable, 2 if the data could not be had."""
    program, *rest = arguments
    locks = [one for one in rest if not one.startswith("-")]
    found = set()
    for lock in locks:
        command = [program, *OPTIONS, *(one for one in rest if one.startswith("-")), "-r", lock]
        done = subprocess.run(command, capture_output=True, text=True)
        status, text = judged(Path(lock).name, done.stdout, done.stderr)
        found.add(status)
        print(text)
    return VULNERABLE if VULNERABLE in found else max(found)


def judged(lock: str, output: str, errors: str) -> tuple[int, str]:
    """Return the exit status, and what to say, of what pip-audit printed."""
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (errors.strip().splitlines() or ["it printed nothing"])[-1]
        return NO_DATA, f"{lock}: not audited: {last}\n{HINT}"
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    asked = len(packages) - len(skipped)
    if not asked:
        return NO_DATA, f"{lock}: not audited: whom pip-audit asked knows none of its {len(packages)} packages; {HINT}"
    said = f"{lock}: {asked} of {len(packages)} packages audited"
    if skipped:
        more = ", …" if len(skipped) > MAX_NAMED else ""
        said += f"; unknown to whom pip-audit asked: {', '.join(skipped[:MAX_NAMED])}{more}"
    lines = [
        f"{package['name']} {package['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'none'}"
        for package in packages
        for hole in package.get("vulns", ())
    ]
    return (VULNERABLE if lines else 0), "\n".join([said, *(lines or ["no known vulnerability"])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
