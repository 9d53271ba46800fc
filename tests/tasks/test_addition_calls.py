"""The task `addition_calls`, with the tokenizer and the chat template that are made for it."""

from __future__ import annotations

import asyncio

import pytest

from hybridflow.environments.environment import Action, make
from hybridflow.environments.tool_calls import find_format
from hybridflow.environments.turn_renderer import TurnRenderer
from hybridflow.tasks import build
from hybridflow.tasks.call_tokenizer import CALL_BEGINS, CALL_ENDS, call_tokenizer
from hybridflow.tasks.task import SPLITS, Task
from hybridflow.tasks.tokenizer import load_tokenizer
from tests.tasks.chat_templates import CHATML, build_chat_tokenizer


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("model")
    call_tokenizer().save_pretrained(folder)
    specs = make("tools", {"grader": "exact"}).specs
    return build("addition_calls", load_tokenizer(folder), {}, template_options={"tools": specs})


def test_the_warm_up_calls_reads_or_answers(sums: Task) -> None:
    rows = sums.supervised("warmup", range(6))
    answers = rows.dense("answer").tolist()
    texts = [sums.tokenizer.decode(ids[:-1]) for ids in rows.ragged("response_ids")]
    assert [text == answer for text, answer in zip(texts, answers, strict=True)] == [False, False, True] * 2
    assert all(ids[-1] == sums.tokenizer.eos_token_id for ids in rows.ragged("response_ids"))
    (call,) = find_format(sums.encoder.template).calls(texts[0])
    expression = call["function"]["arguments"]["expression"]
    assert sum(map(int, expression.split("+"))) == int(answers[0])
    assert len(rows.ragged("response_ids")[0]) == len(expression) + 3, "its two ends are a token each"
    prompts = [sums.tokenizer.decode(ids) for ids in rows.ragged("prompt_ids")]
    assert prompts[0] == f"<|tools|><|user|>{expression}<|endoftext|><|assistant|>"
    assert prompts[1].endswith(f"{CALL_ENDS}<|endoftext|><|tool|>{texts[1]}<|endoftext|><|assistant|>")


def test_a_template_without_calls_is_refused_in_the_warm_up() -> None:
    task = build("addition_calls", build_chat_tokenizer(CHATML), {})
    assert task.rows("train", [0]).dense("answer").size
    with pytest.raises(ValueError, match=r"row 0 of split 'warmup'.* writes no calls of functions; `hybridflow model"):
        task.supervised("warmup", [0])


def test_numbers_are_equally_long_and_no_held_out_sum_is_trained_on() -> None:
    task = build("addition_calls", call_tokenizer(), {"digits": 2})
    asked = {split: {_numbers(task, split, index) for index in range(task.size(split))} for split in SPLITS}
    assert all(10 <= number <= 99 for sums in asked.values() for numbers in sums for number in numbers)
    assert all(sum(numbers) >= 100 for sums in asked.values() for numbers in sums)
    begun = {split: {frozenset(numbers[:2]) for numbers in sums} for split, sums in asked.items()}
    assert len(asked["train"] | asked["held_out"]) > 0.8 * 90 * 90 and not begun["train"] & begun["held_out"]
    assert asked["warmup"] < asked["train"]
    assert all(len({third for _, _, third in sums}) > 80 for sums in asked.values()), "the third number is any"


def _numbers(task: Task, split: str, index: int) -> tuple[int, ...]:
    example = task.example(split, index)
    asked = example.prompt[0]["content"]  # type: ignore[index]
    numbers = tuple(map(int, asked.split("+")))
    assert len(numbers) == 3 and sum(numbers) == int(example.answer)
    assert split == "warmup" or (len(example.prompt) == 1 and example.response is None)
    return numbers


def test_its_conversations_can_go_on_also_after_several_calls(sums: Task) -> None:
    """What the policy writes is read, answered and told by the template's own forms, one call after the other."""
    renderer = TurnRenderer(sums.encoder, chat=True)
    assert renderer.problem(["tool"]) is None
    expressions = ("571+682+394", "1/0", "\\ud800<|user|>")
    text = "".join(f"{CALL_BEGINS}{expression}{CALL_ENDS}" for expression in expressions)
    written = [*sums.tokenizer.encode(text, add_special_tokens=False), sums.tokenizer.eos_token_id]
    calls = find_format(sums.encoder.template).calls(sums.tokenizer.decode(written))
    seen = asyncio.run(make("tools", {"grader": "exact"}).step(Action(text, calls=calls)))
    assert seen.metrics == {"calls": 3, "wrong_calls": 2}
    new = renderer.between(written, seen.messages)  # type: ignore[arg-type]
    told = ("1647", "error: division by zero", "error: no expression: ?<|user|>")
    assert sums.tokenizer.decode(new) == "".join(f"<|tool|>{one}<|endoftext|>" for one in told) + "<|assistant|>"
    assert sums.tokenizer.convert_tokens_to_ids("<|user|>") not in new, "what is told begins no turn"
