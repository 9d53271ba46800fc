"""Graders that ask a server, which is one of the test on 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridflow.errors import HybridFlowError
from hybridflow.tasks import Grade, GradedRow, endpoint
from hybridflow.tasks.endpoint_graders import HttpGrader, JudgeGrader
from hybridflow.tasks.grader_registry import bind

ROW = GradedRow("4", "4", prompt="2+2=", metadata={"level": 1})


class Server:
    """A server: what it was asked, and what it is to answer, by the path, one after the other (the last for ever)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, str | None]] = []
        self.replies: list[tuple[int, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body, self.headers.get("Authorization")))
                status, reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                text = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                if status in (302, 307, 308):
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=[0.01], daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.0)
    started = Server()
    yield started
    started.http.shutdown()
    started.http.server_close()


def ask(grader: Any, *rows: GradedRow) -> Any:
    async def all_rows() -> list[Any]:
        return await asyncio.gather(*(grader(row) for row in rows or [ROW]))

    found = asyncio.run(all_rows())
    return found if rows else found[0]


def completion(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def test_the_endpoint_is_told_the_row(server: Server) -> None:
    server.replies = [(200, {"grade": 0.5, "parts": {"style": 1}})]
    assert ask(HttpGrader(url=f"{server.url}/grade")) == Grade(0.5, {"style": 1})
    ((path, body, token),) = server.asked
    assert path == "/grade" and token is None
    assert (body["response"], body["answer"], body["prompt"], body["metadata"]) == ("4", "4", "2+2=", {"level": 1})


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.replies = [(503, "busy"), (429, "busy"), (200, {"grade": 1})]
    assert ask(HttpGrader(url=server.url)).value == 1
    server.replies = [(503, "busy")]
    with pytest.raises(ValueError, match="status 503, 200 was expected"):
        ask(HttpGrader(url=server.url, retries=1))
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("status", "reply", "problem"),
    [
        (400, "no such row", "status 400.*no such row"),
        (302, "", "status 302"),
        (307, "", "status 307"),
        (200, b"<html>", "no JSON"),
        (200, b"[" * 50_000, "no JSON"),
        (200, b"\xff" * 9, "no JSON"),
        (200, b"1" * (endpoint.LARGEST + 1), "an answer of more than 16777216 bytes"),
        (400, b"1" * (endpoint.LARGEST + 1), "an answer of more than 16777216 bytes"),
        (200, [1], "a number} was expected"),
        (200, {"score": 1}, "a number} was expected"),
    ],
)
def test_what_is_no_grade_has_failed_and_is_not_asked_again(
    server: Server, status: int, reply: Any, problem: str
) -> None:
    server.replies = [(status, reply)]
    with pytest.raises(ValueError, match=problem):
        ask(HttpGrader(url=server.url))
    assert [path for path, *_ in server.asked] == ["/"]


def test_a_server_that_is_not_there(server: Server) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ValueError, match=f"{server.url}: Connect"):
        ask(HttpGrader(url=server.url))


def test_a_token_is_read_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HybridFlowError, match="the environment has no JUDGE_TOKEN"):
        bind("http", {"url": server.url, "token_env": "JUDGE_TOKEN"})
    monkeypatch.setenv("JUDGE_TOKEN", "s3cret")
    server.replies = [(200, {"grade": 1})]
    ask(HttpGrader(url=server.url, token_env="JUDGE_TOKEN"))
    assert server.asked[0][2] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("said", "grade"),
    [("It is right. Score: 10", 1.0), ("**Score:** 5", 0.5), ("Score: 1\nno, score: 7.5", 0.75), ("Score: -10", -1.0)],
)
def test_the_score_of_a_judge(server: Server, said: str, grade: float) -> None:
    server.replies = [(200, completion(said))]
    assert ask(JudgeGrader(url=f"{server.url}/v1/", model="m")) == grade
    ((path, body, _),) = server.asked
    assert path == "/v1/chat/completions" and body["model"] == "m" and body["temperature"] == 0


def test_a_response_fills_no_field_of_the_template(server: Server) -> None:
    server.replies = [(200, completion("Score: 3"))]
    row = GradedRow("{answer}", "42", prompt="{response}")
    judge = JudgeGrader(url=server.url, model="m", template="{prompt}|{response}|{answer}|{other}", best=3.0)
    assert ask(judge, row) == [1.0]
    assert server.asked[0][1]["messages"] == [{"role": "user", "content": "{response}|{answer}|42|{other}"}]


@pytest.mark.parametrize("reply", [completion("no idea"), completion(None), {}, [], completion(f"Score: {'9' * 400}")])
def test_a_judge_without_a_score_has_failed(server: Server, reply: Any) -> None:
    server.replies = [(200, reply)]
    with pytest.raises(ValueError, match=r"finds no score|a chat completion was expected"):
        ask(JudgeGrader(url=server.url, model="m"))


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("http", {"url": "ftp://127.0.0.1"}, "an address was expected"),
        ("http", {"url": "127.0.0.1:80"}, "an address was expected"),
        ("http", {"url": "http://127.0.0.1", "timeout_s": 0}, "more than 0"),
        ("http", {}, "url: must be given"),
        ("judge", {"url": "http://127.0.0.1", "model": "m", "template": "{prompt}"}, "has no {response}"),
        ("judge", {"url": "http://127.0.0.1", "model": "m", "pattern": "score"}, "has no group"),
        ("judge", {"url": "http://127.0.0.1", "model": "m", "pattern": "("}, "is no regular expression"),
    ],
)
def test_wrong_options_are_told(name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(HybridFlowError, match=problem):
        bind(name, options)


@given(response=st.text(st.characters(), max_size=40))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_response_breaks_them(server: Server, response: str) -> None:
    row = GradedRow(response, "4")
    server.replies = [(200, {"grade": 1})]
    assert ask(HttpGrader(url=server.url), row)[0].value == 1
    server.replies = [(200, completion("Score: 10"))]
    assert ask(JudgeGrader(url=server.url, model="m"), row) == [1.0]
