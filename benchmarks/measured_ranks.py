"""Plugin that lets ranks count the bytes of their tensors, call by call, and write them to the run's folder.

A rank writes `tensor_bytes/ROLE-RANK.json`, ROLE being the first that was built on its pool: by call
(`actor.update_actor`), the bytes before its last one, the most that there were in one of them, and the tokens of the
prompts and responses of its first one's rows. `tensor_bytes/ROLE-RANK.jsonl` has a line for each call: its name, these
bytes of it, and what the process has in memory of its own when it is over: in use, and free in malloc's heaps.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.own_bytes import free_bytes, own_bytes
from hybridflow.batch import Batch
from hybridflow.runtime.rank import Rank

FOLDER = "tensor_bytes"
_build = Rank.build
_called = Rank._called
_counter: Any = None
_file: Path | None = None
_found: dict[str, dict[str, Any]] = {}


def _counted_build(self: Rank, role: str, worker: str, layout: Any, config: Any, updates: int, engines: Any) -> bytes:
    """Build a role, and count what stays. A light rank has no torch, and is left alone."""
    global _counter, _file
    if not engines.training and not engines.generation:
        return _build(self, role, worker, layout, config, updates, engines)
    from benchmarks.tensor_bytes import TensorBytes, count_packed

    if _counter is None:
        _counter = TensorBytes()
        _file = Path(config.run.root) / config.run.name / FOLDER / f"{role}-{self._rank}.json"
    if engines.generation:
        from hybridflow.engines.vllm.engine import ENVIRONMENT

        os.environ.update(ENVIRONMENT)
        count_packed(_counter)
    with _counter.phase() as found:
        built = _build(self, role, worker, layout, config, updates, engines)
    _write(f"{role}.build", found)
    return built


def _counted_call(self: Rank, request: Any, declared: Any, chunks: Any) -> Any:
    if _counter is None:
        return _called(self, request, declared, chunks)
    with _counter.phase() as found:
        call, value = _called(self, request, declared, chunks)
    _write(f"{request.role}.{request.method}", {**found, **_lengths(call)})
    return call, value


def _lengths(call: Any) -> dict[str, list[int]]:
    """Return the tokens of the prompts and responses of a call's rows, if it has any."""
    rows = next((part for part in (*call.args, *call.kwargs.values()) if isinstance(part, Batch)), None)
    names = [name for name in ("prompt_ids", "response_ids") if rows is not None and name in rows]
    return {name: rows.ragged(name).lengths.tolist() for name in names} if rows is not None else {}


def _write(name: str, found: dict[str, Any]) -> None:
    assert _file is not None
    earlier = _found.setdefault(name, found)
    earlier["before"] = found["before"]
    earlier["peak"] = max(found["peak"], earlier["peak"])
    _file.parent.mkdir(parents=True, exist_ok=True)
    _file.write_text(json.dumps(_found))
    own = {"own": own_bytes() - free_bytes(), "free": free_bytes()}
    line = {"call": name, "before": found["before"], "peak": found["peak"], **own}
    with _file.with_suffix(".jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\n")


Rank.build = _counted_build  # type: ignore[method-assign]
Rank._called = _counted_call  # type: ignore[method-assign]
