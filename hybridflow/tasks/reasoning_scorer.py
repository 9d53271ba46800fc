"""Score answers with reasoning-gym inside of the sandbox: rows as JSON on standard input, their scores on its output.

Its scorers call `eval` on what they are given, so each row is scored in a process of its own, whose output is a number.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

sys.path.append("/packages")


def main() -> None:
    """Score all rows; null stands for one whose question is another here than it was when it was asked."""
    import reasoning_gym

    told = json.load(sys.stdin)
    kinds: dict[str, Any] = {}
    scores = []
    for row in told["rows"]:
        key = json.dumps(row["made"], sort_keys=True)
        if key not in kinds:
            made = row["made"]
            kinds[key] = reasoning_gym.create_dataset(
                made["dataset"], seed=made["seed"], size=made["size"], **made["config"]
            )
        entry = kinds[key][row["index"]]
        same = entry["question"] == row["question"]
        scores.append(in_child(kinds[key], entry, row["response"], told["row_s"]) if same else None)
    json.dump(scores, sys.stdout)


def in_child(dataset: Any, entry: dict[str, Any], response: str, row_s: int) -> float:
    """Return the score of one answer; 0.0 if there comes none in time."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            nothing = os.open("/dev/null", os.O_WRONLY)
            os.dup2(nothing, 1)
            signal.alarm(row_s)
            os.write(writes, repr(float(dataset.score_answer(response, entry))).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with open(reads, "rb") as pipe:
        said = pipe.read(64)
    os.waitpid(child, 0)
    try:
        return min(max(float(said), 0.0), 1.0)
    except ValueError:
        return 0.0


if __name__ == "__main__":
    main()
