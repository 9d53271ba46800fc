"""Run folders whose files somebody has edited, or a disk has spoiled: a report shows what is there of them."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from hybridflow.observe.report.page import MAX_BYTES, page_of
from hybridflow.observe.run_records import read_records

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
STEPS = st.integers(-1, 4) | ANY


TOKENS = st.dictionaries(st.sampled_from(["text", "advantages", "old_log_probs"]), st.lists(ANY, max_size=3) | ANY)
USUAL: dict[str, st.SearchStrategy[object]] = {  # of names that have a meaning: else hardly anything would be read
    "by_token": TOKENS,
    "event": st.sampled_from(["start", "failure", "alarm", "end", "checkpoint"]),
    "name": st.sampled_from(["process_name", "step 1", "actor.update_actor"]),
    "ph": st.sampled_from(["X", "M"]),
    "args": st.sampled_from([{"step": 0}, {"step": None}, {"pool": "main"}, {"pool": ""}]),
    "pid": st.integers(0, 2),
    "tid": st.integers(0, 2),
    "ts": st.integers(0, 9) | st.floats(),
    "dur": st.integers(0, 9) | st.floats(),
    "cat": st.sampled_from(["", "actor"]),
    "reward/mean": st.floats() | st.integers(),
    "timing_s/step": st.floats() | st.integers(),
}


def build_objects(*names: str) -> st.SearchStrategy[dict[str, object]]:
    """Objects with all or some of these names, and mostly what usually stands there."""
    entries = {name: st.one_of(*[USUAL.get(name, ANY)] * 4, ANY) for name in names}
    return st.fixed_dictionaries(entries) | st.fixed_dictionaries({}, optional=entries)


def build_lines(*names: str) -> st.SearchStrategy[list[object]]:
    """Lines of a file: objects with some of these names, and of a step."""
    with_step = st.builds(lambda line, step: {**line, "step": step}, build_objects(*names), STEPS)
    return st.lists(with_step | ANY, max_size=5)


FILES = {
    "metrics.jsonl": build_lines("reward/mean", "timing_s/step", "timing_s/constructor", "validation/accuracy"),
    "events.jsonl": build_lines("event", "time", "error", "name", "first_step", "kind", "pools", "resumed_from"),
    "rollouts/rank0.jsonl": build_lines("prompt", "response", "rewards", "group_id", "by_token", "rejected", "answer"),
    "timeline.json": build_lines("ph", "name", "cat", "pid", "tid", "ts", "dur", "args"),
}
RECORD = build_objects("name", "status", "steps", "spent", "command", "earlier", "versions", "git", "error", "accuracy")


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(FILES), RECORD, st.binary(max_size=20))
def test_whatever_they_hold_there_is_a_page(files: dict[str, list[object]], record: object, tail: bytes) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rollouts").mkdir()
        (folder / "config.yaml").write_bytes(b"run: {name: mine}\n" + tail)
        (folder / "run.json").write_text(json.dumps(record))
        for file, lines in files.items():
            (folder / file).write_bytes("\n".join(map(json.dumps, lines)).encode() + b"\n" + tail)
        html = page_of([read_records(folder)])
    assert len(html.encode()) <= MAX_BYTES
    json.loads(html.partition('id="data">')[2].partition("</script>")[0])
