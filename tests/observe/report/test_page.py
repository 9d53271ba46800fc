"""The file of a report: nothing in it is obeyed but its own script, it asks for nothing, and it has a size."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe.report.document import document
from hybridflow.observe.report.page import MAX_BYTES, SCRIPTS, embedded, page, page_of
from hybridflow.observe.run_records import read_records
from tests.observe.report.synthetic_run import METRICS, build_run, built

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>&lt;script&gt;alert(1)//",
    "'\"><svg onload=alert(1)>",
    "\u2028\u2029\x00\x1b[31m\u202eabc",
    "@@SCRIPT@@ @@DATA@@",
    "${alert(1)} {{7*7}}",
]


class Elements(HTMLParser):
    """Tags of a page, with their attributes and what stands in each script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[int, str] = {}
        self._open = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[len(self.tags) - 1] = self.inside.get(len(self.tags) - 1, "") + data

    def texts(self, wanted: str) -> list[tuple[dict[str, str | None], str]]:
        """The attributes and texts of the elements of a tag."""
        return [(attrs, self.inside.get(at, "")) for at, (tag, attrs) in enumerate(self.tags) if tag == wanted]


def test_secrets_are_left_out_of_texts_and_no_number_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", 'se"cr\\et-é')
    monkeypatch.setenv("MY_PASSWORD", "12345678")
    shown = json.loads(embedded({"error": 'refused se"cr\\et-é', "steps": [12345678, 0.12345678], "a": "is 12345678"}))
    assert shown == {"error": "refused [HF_TOKEN]", "steps": [12345678, 0.12345678], "a": "is [MY_PASSWORD]"}


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_text_can_end_the_element_that_it_is_in(value: object) -> None:
    text = embedded(value)
    assert not set("<>&\u2028\u2029") & set(text)
    json.loads(text)
    text.encode()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_data(hostile: str, tmp_path: Path) -> None:
    """Wherever it stands: what a model wrote, the names of a run and its metrics, errors, settings."""
    folder = build_run(
        tmp_path / "mine",
        responses=[hostile, "1"],
        metrics=[*METRICS, f"reward/{hostile}"],
        events=[{"time": hostile, "event": "failure", "error": hostile, hostile: hostile}],
        tokens=3,
    )
    html = page_of([read_records(folder)])
    harmless = page_of([built(tmp_path / "other", responses=["2", "1"], tokens=3)])
    assert [tag for tag, _ in Elements(html).tags] == [tag for tag, _ in Elements(harmless).tags]
    ((_, data),) = [found for found in Elements(html).texts("script") if found[0].get("type") == "application/json"]
    run = json.loads(data)["runs"][0]
    assert run["rollouts"]["groups"][0]["rows"][0]["response"].count("alert") == hostile.count("alert")
    assert html.count("const DATA") == 1


def test_only_what_the_policy_names_may_run(tmp_path: Path) -> None:
    elements = Elements(page(document([built(tmp_path / "mine")])))
    (policy,) = [attrs["content"] or "" for tag, attrs in elements.tags if attrs.get("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (style,) = elements.texts("style")
    scripts = [text for attrs, text in elements.texts("script") if attrs.get("type") != "application/json"]
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest(scripts[0])}'",
        "style-src": f"'sha256-{digest(style[1])}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert len(scripts) == 1
    first = [attrs for _, attrs in elements.tags if "http-equiv" in attrs or "src" in attrs or "href" in attrs]
    assert len(first) == 1, "nothing but the policy, and no address of anything else"


def test_the_script_makes_no_markup_of_text_and_asks_for_nothing() -> None:
    folder = Path(page.__code__.co_filename).parent / "assets"
    assert sorted(SCRIPTS) == sorted(file.name for file in folder.glob("*.js"))
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(|XMLHttp|import\(|https?://(?!www\.w3\.org)"
    for file in folder.iterdir():
        assert re.findall(forbidden, file.read_text()) == [], file.name
        assert "</script" not in file.read_text() or file.suffix == ".html"


def test_the_values_of_secrets_are_not_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abcdefgh12345678")
    html = page_of([built(tmp_path / "mine", responses=["it is abcdefgh12345678"])])
    assert "abcdefgh12345678" not in html and "it is [WANDB_API_KEY]" in html


def test_a_thousand_steps_are_two_megabytes_at_most(tmp_path: Path) -> None:
    """90 metrics that all vary, 100 steps of 64 rows of 400 characters with values of tokens, 40 calls a rank."""
    chance = random.Random(1)
    responses = ["".join(chance.choices("abcdefgh <>&\n", k=400)) for _ in range(8)]
    metrics = [*METRICS, *(f"reward/part{number}/mean" for number in range(70))]
    run = built(
        tmp_path / "mine", steps=1000, metrics=metrics, rows_every=10, responses=responses, groups=8, tokens=100,
        pools=[f"pool{number}" for number in range(10)],
    )  # fmt: skip
    size = len(page_of([run]).encode())
    assert 1_000_000 < size <= MAX_BYTES


def test_many_runs_share_the_room(tmp_path: Path) -> None:
    responses = ["word " * 200] * 8
    runs = [built(tmp_path / str(number), steps=200, responses=responses, groups=8, tokens=50) for number in range(12)]
    html = page_of(runs)
    assert len(html.encode()) <= MAX_BYTES
    shown = json.loads(re.findall(r'id="data">(.*?)</script>', html)[0])
    assert all(run["rollouts"]["groups"] and run["metrics"]["steps"] and run["timeline"] for run in shown["runs"])


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
