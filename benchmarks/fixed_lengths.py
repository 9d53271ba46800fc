"""Plugin that lets no token end a response, so that each has `rollout.max_response_tokens`. For benchmarks."""

from __future__ import annotations

from typing import Any

from hybridflow.workers import generation_worker


def _no_ends(*_: Any) -> list[int]:
    return []


generation_worker.end_ids = _no_ends
