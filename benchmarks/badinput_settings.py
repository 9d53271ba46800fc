"""Rows of `benchmarks.badinput`: settings of a run, of graders and chats, and other commands."""
# ruff: noqa: E501  (a table: a row a line)

from __future__ import annotations

import json
import os
from typing import Any

from benchmarks.badinput_case import GOOD, GOODS, Case, Writer, both, content, lines, nothing, on_rows, train

ESC = "\x1b[2J"


def _set(name: str, said: str, *settings: str, write: Writer = nothing, **more: Any) -> Case:
    return Case(f"settings: {name}", "settings", train(*settings), said, write, **more)


def _grader(name: str, said: str, *settings: str, write: Writer = GOODS, **more: Any) -> Case:
    return Case(f"grader: {name}", "grader", on_rows("rows.jsonl", *settings), said, write, **more)


def _options(name: str, grader: str, options: str, said: str) -> Case:
    chosen = (f"reward.grader={grader}", f"+reward.grader_options.{grader}={options}")
    return _grader(f"{grader}, {name}", said, *chosen)


def _chat(name: str, said: str, *settings: str, write: Writer = nothing) -> Case:
    chat = lines("chat.jsonl", *[{"prompt": [{"role": "user", "content": f"{n}?"}], "answer": "1"} for n in range(30)])
    argv = on_rows("chat.jsonl", "actor.model.path=models/chat", "rollout=chat", *settings)
    return Case(f"chat settings: {name}", "settings", argv, said, both(chat, write))


def _command(name: str, said: str, *argv: str, write: Writer = nothing, **more: Any) -> Case:
    return Case(f"command: {name}", "command", argv, said, write, **more)


SETTINGS = (
    _set("a misspelled key", "did you mean trainer.steps", "trainer.step=3"),
    _set("a section that there is not", "no such key", "trainr.steps=3"),
    _set("a key with an escape sequence", r"\\x1b", f"trainer.{ESC}=3"),
    _set("a value with an escape sequence", r"\\x1b", f"algorithm.name={ESC}"),
    _set("a text for a number", "trainer.steps", "trainer.steps=many"),
    _set("a fraction for a whole number", "trainer.steps", "trainer.steps=1.5"),
    _set("a negative number", "trainer.steps", "trainer.steps=-1"),
    _set("a number beyond 64 bits", "trainer.steps", f"trainer.steps={10**30}"),
    _set("a number of 5,000 digits", "trainer.steps", f"trainer.steps={'9' * 5000}"),
    _set("NaN", "actor.optimizer.lr", "actor.optimizer.lr=nan"),
    _set("infinity", "actor.optimizer.lr", "actor.optimizer.lr=inf"),
    _set("a list for a number", "actor.optimizer.lr", "actor.optimizer.lr=[1,2]"),
    _set("null for a number", "actor.optimizer.lr", "actor.optimizer.lr=null"),
    _set("a text for a bool", "trainer.print_every_step", "trainer.print_every_step=perhaps"),
    _set("an option of a group that there is not", "algorithm", "algorithm=pposs"),
    _set("an experiment that there is not", "experiment", "experiment=gone"),
    _set("a group twice", "task", "task=addition", "task=word_sums"),
    _set("an interpolation of nothing", "nowhere", "run.name=${nowhere}"),
    _set("an interpolation of itself", "run.name", "run.name=${run.name}"),
    _set("a resolver that there is not", "evil|resolver", "run.name=${evil:1}"),
    _set("a brace that is not closed", "run.name|parse|brace", "run.name=${oc.env:HOME"),
    _set("an override without a key", "no such key", "=3"),
    _set("a deletion of what is needed", "trainer.steps|steps", "~trainer.steps"),
    _set("a flag that there is not", "no such flag", "--steps=3"),
    _set("a run name that leads out", "run.name", "run.name=../../x"),
    _set("a temporary folder that there is not", "TMPDIR: '/nowhere' is no folder", environment={"TMPDIR": "/nowhere"}),
    _set("an absolute run name", "run.name", "run.name=/tmp/x"),
    _set("an empty run name", "run.name", "run.name=''"),
    _set("a run name with a NUL", "run.name", "run.name='a\0b'"),
    _set("a run name with an escape sequence", "run.name", f"run.name='{ESC}'"),
    _set("a run name of 300 letters", "run.name", f"run.name={'a' * 300}"),
    _set("a root that is a file", "root", "run.root=file", write=content("file", b"")),
    _set("a root in /proc", "run", "run.root=/proc/x"),
    _set("an algorithm that there is not", "algorithm.name", "algorithm.name=grpa"),
    _set("a schedule that there is not", "trainer.schedule", "trainer.schedule=sometimes"),
    _set("a sink that there is not", "metric_sinks", "trainer.metric_sinks=[tensorbord]"),
    _set("a validation set without a task", "validation_sets", "+trainer.validation_sets.more={}"),
    _set("a validation set of a task that there is not", "validation_sets", "+trainer.validation_sets.more={name: gone}"),
    _set("several samples at temperature 0", "validation_samples", "trainer.validation_samples=4"),
    _set("more devices than there are", "placement|slots|GPU", "placement.device=cuda"),
    _set("no prompts a step", "prompts_per_step", "algorithm.prompts_per_step=0"),
    _set("longer responses than sequences", "max_response_tokens", "rollout.max_response_tokens=64"),
    _set("sequences longer than the model's", "max_sequence_tokens|positions", "rollout.max_sequence_tokens=4096"),
    _set("a resume that there is not", "resume", "trainer.resume=sometimes"),
    _set("a checkpoint that there is not", "resume", "trainer.resume=gone/checkpoints/step_5"),
    _set("a mixture without sources", "sources", "task=mixture", "task.options.sources={}"),
    _set("a mixture of one that is no mapping", "sources", "task=mixture", "task.options.sources={a: 3}"),
    _set("a mixture within a mixture", "sources|mixture", "task=mixture", "task.options.sources={a: {task: mixture}}"),
    _set("a weight of 0", "weight", "task=mixture", "task.options.sources={a: {task: addition, weight: 0}}"),
    _set("a negative weight", "weight", "task=mixture", "task.options.sources={a: {task: addition, weight: -1}}"),
    _set("a weight that is NaN", "weight", "task=mixture", "task.options.sources={a: {task: addition, weight: nan}}"),
    _set("a weight that is infinite", "weight", "task=mixture", "task.options.sources={a: {task: addition, weight: inf}}"),
    _set("weights of some sources", "weight", "task=mixture", "task.options.sources={a: {task: addition, weight: 1}, b: {task: addition}}"),
    _set("a source of options that it does not take", "sources", "task=mixture", "task.options.sources={a: {task: addition, operand: 1}}"),
    _set("a shaping that there is not", "reward_shapings", "+algorithm.reward_shapings={klip: {}}"),
    _set("a shaping with the bounds crossed", "clip|low|high", "+algorithm.reward_shapings={clip: {low: 1, high: -1}}"),
    _set("a shaping with a text", "reward_shapings", "+algorithm.reward_shapings={clip: {low: a}}"),
    _set("GDPO with a shaping", "reward_shapings", "algorithm=gdpo", "+reward.graders={exact: 1, brevity: 1}", "+algorithm.reward_shapings={clip: {}}"),
    _set("a search path that there is not", "gone", "-cd", "gone"),
    _set("a secret", "trainer.sink_options.wandb.api_key: a secret belongs in no setting(?!.*0123456789)", "+trainer.sink_options.wandb.api_key=0123456789"),
    _set("a token in an address", "a password or a token in it", "trainer.resume='https://there/?token=0123456789'"),
    _set("prompts beyond all memory", "prompts_per_step.*at most", f"algorithm.prompts_per_step={10**12}"),
    _set("a pool of a text", "placement.pools.main: 'many' given; a number of slots", "placement.pools.main=many"),
    _set("a pool over nodes without slots", "placement.pools.main: slots is missing", "placement.pools={main: {nodes: 2}}"),
    _set("a pool over nodes of one machine", "placement.pools.main.nodes: 2 given, but ray.address=local", "placement.pools={main: {nodes: 2, slots: 2}}"),
    _set("two pools with all that is left", "placement.pools.rest: auto given, as for main", "placement.pools={main: auto, rest: auto}"),
    _set("a pool that nothing is left for", "placement.pools.rollout: auto given, but other pools", "placement=rollout_pool", "placement.pools={train: 4000, rollout: auto}"),
    _set("slots beyond all machines", "placement.pools.main.*at most", f"placement.pools={{main: {10**9}}}"),
    _set("staleness beyond all", "max_staleness.*at most", "placement=rollout_pool", "trainer.schedule=async", f"trainer.max_staleness={2**62}"),
    _set("negative staleness", "max_staleness", "placement=rollout_pool", "trainer.schedule=async", "trainer.max_staleness=-1"),
    _set("a sampler that there is not", "trainer.sampler", "placement=rollout_pool", "trainer.schedule=async", "trainer.sampler=fifu"),
    _set("a staleness that nobody heeds", "max_staleness.*heed", "trainer.max_staleness=1"),
    _set("kept keys and values that nobody reads", "keep_kv_cache", "rollout.keep_kv_cache=true"),
    _set("stream with a part of the tokens", "top_p", "placement=rollout_pool", "trainer.schedule=stream", "rollout.top_p=0.9"),
    _set("a required value of a role that takes no part", "critic.model.path: must be given", "critic.model.path=???"),
    _set("an environment that there is not", "environment.name.*did you mean 'guess'", "environment.name=gess"),
    _set("a server of OpenEnv that is not there", "no server of OpenEnv answers", "task=openenv", "environment=openenv", "reward=environment", "task.options.url='http://127.0.0.1:9'"),
    _set("an address of an environment with an escape sequence", r"\\x1b", "environment=openenv", f"environment.options.url='http://127.0.0.1:9/{ESC}'"),
    _set("a YAML file of nonsense", r"bad\.yaml", "-cd", "mine", "experiment=bad", write=content("mine/experiment/bad.yaml", "a: [1\nb: }")),
    _set("a YAML file of the wrong type", r"bad", "-cd", "mine", "experiment=bad", write=content("mine/experiment/bad.yaml", "- 1\n- 2\n")),
    _set("a YAML file that is binary", r"bad", "-cd", "mine", "experiment=bad", write=content("mine/experiment/bad.yaml", bytes(range(256)))),
    _set("a YAML file with a key twice", r"bad.yaml", "-cd", "mine", "experiment=bad", write=content("mine/experiment/bad.yaml", "# @package _global_\ntrainer:\n  steps: 1\n  steps: 2\n")),
    _set("a YAML bomb", r"bad|alias|anchor", "-cd", "mine", "experiment=bad", write=content("mine/experiment/bad.yaml", "# @package _global_\na: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)))),
    _set("a YAML file with a Python object", r"bad", "-cd", "mine", "experiment=bad", write=content("mine/experiment/bad.yaml", "# @package _global_\nrun: !!python/object/apply:os.system ['touch hacked']\n")),
)  # fmt: skip

GRADERS = (
    _grader("one that there is not", "reward.grader", "reward.grader=exakt"),
    _grader("options of another", "grader_options", "+reward.grader_options.regex={pattern: a}"),
    _grader("options that are a text", "grader_options", "reward.grader=brevity", "+reward.grader_options.brevity=5"),
    _grader("a weight that is a text", "graders", "+reward.graders={exact: much}"),
    _grader("a weight that is NaN", "graders", "+reward.graders={exact: nan}"),
    _grader("a weight that is infinite", "graders", "+reward.graders={exact: inf}"),
    _grader("all weights 0", "graders|weight", "+reward.graders={exact: 0.0, brevity: 0.0}"),
    _grader("several, one unknown", "graders", "+reward.graders={exact: 1.0, brefity: 0.1}"),
    _grader("an accuracy grader that is none of them", "accuracy_grader", "+reward.graders={exact: 1.0, brevity: 0.1}", "reward.accuracy_grader=regex"),
    _grader("a share above 1", "max_failed_share", "reward.max_failed_share=1.5"),
    _grader("a deadline of 0", "grader_deadline_s", "reward.grader_deadline_s=0"),
    _grader("no concurrency", "grader_concurrency", "reward.grader_concurrency=0"),
    _options("no pattern", "regex", "{}", "pattern"),
    _options("a pattern that is none", "regex", "{pattern: '('}", "pattern.*no regular expression"),
    _options("a group that there is not", "regex", "{pattern: a, group: 3}", "group"),
    _options("a negative group", "regex", "{pattern: a, group: -1}", "group"),
    _options("an option misspelled", "regex", "{patern: a}", "pattern"),
    _options("a schema that is none", "json_schema", "{schema: {type: objekt}}", "no JSON Schema"),
    _options("a schema that is a number", "json_schema", "{schema: 3}", "schema"),
    _options("a schema of another file", "json_schema", "{schema: {$ref: 'file:///etc/passwd'}}", "schema.*(ref|file)"),
    _options("a schema of an address", "json_schema", "{schema: {$ref: 'http://127.0.0.1:9/x'}}", "schema.*ref"),
    _options("a schema that is itself", "json_schema", "{schema: {$ref: '#'}}", "schema.*(itself|ref|recurs)"),
    _options("a schema with a pattern that is none", "json_schema", "{schema: {type: string, pattern: '('}}", "schema.*pattern"),
    _options("no tags", "tags", "{tags: []}", "tags"),
    _options("a tag of brackets", "tags", "{tags: ['<a>']}", "tags"),
    _options("over below the budget", "brevity", "{budget: 10, over: 5}", "over"),
    _options("a budget of 0", "brevity", "{budget: 0}", "budget"),
    _options("no address", "http", "{}", "url"),
    _options("an address of a file", "http", "{url: 'file:///etc/passwd'}", "url"),
    _options("an address that is none", "http", "{url: 'http://[::1'}", "url"),
    _options("a port beyond all", "http", "{url: 'http://127.0.0.1:99999/'}", "url"),
    _options("a token that is not set", "http", "{url: 'http://127.0.0.1:9', token_env: GONE_TOKEN}", "GONE_TOKEN"),
    _options("negative tries", "http", "{url: 'http://127.0.0.1:9', retries: -1}", "retries"),
    _options("no model", "judge", "{url: 'http://127.0.0.1:9'}", "model"),
    _options("a template without a response", "judge", "{url: 'http://127.0.0.1:9', model: m, template: hi}", "template"),
    _options("a pattern without a group", "judge", "{url: 'http://127.0.0.1:9', model: m, pattern: a}", "group"),
    _options("a best score of 0", "judge", "{url: 'http://127.0.0.1:9', model: m, best: 0}", "best"),
    _grader("multiple_choice, an answer that is no letter", "letter", "reward.grader=multiple_choice"),
    _grader("last_number, an answer that is no number", "number", "reward=last_number", write=lines("rows.jsonl", *GOOD[:30], {"question": "1", "answer": "none"}, *GOOD[30:])),
    _grader("reasoning_gym on rows", "reasoning|dataset", "reward.grader=reasoning_gym"),
    _grader("code_tests on rows without tests", "tests", "reward.grader=code_tests"),
    _grader("json_schema on rows without a schema", "schema", "reward.grader=json_schema"),
)  # fmt: skip

CHATS = (
    _chat("a system prompt for texts", "task.system_prompt", "task.options.path=rows.jsonl", "task.system_prompt=x", write=GOODS),
    _chat("a prefill for texts", "task.prefill", "task.options.path=rows.jsonl", "task.prefill=x", write=GOODS),
    _chat("chats for a model without a template", "chat template", "actor.model.path=models/plain"),
    _chat("as_chat for a model without a template", "task.as_chat", "actor.model.path=models/plain", "task.as_chat=true"),
    _chat("an option that the template does not read", "enable_thinking", "+task.chat_template_kwargs.enable_thinking=false"),
    _chat("an option that is ours", "add_generation_prompt", "+task.chat_template_kwargs.add_generation_prompt=true"),
    _chat("a template by a name that there is not", "chat_template", "+task.chat_template_kwargs.chat_template=gone"),
    _chat("tools that are not there", "gone.json", "task.tools=gone.json"),
    _chat("tools that are no JSON", "tools.json", "task.tools=tools.json", write=content("tools.json", "[{")),
    _chat("tools that are an object", "tools.json", "task.tools=tools.json", write=content("tools.json", "{}")),
    _chat("tools that are a pipe", "tools.json", "task.tools=tools.json", write=lambda folder: os.mkfifo(folder / "tools.json")),
    _chat("tools for a template that reads none", "tools", "task.tools=tools.json", write=content("tools.json", '[{"type": "function", "function": {"name": "f"}}]')),
    _chat("a system prompt without a token", "\N{SNOWMAN}|u2603|token", "task.system_prompt=\N{SNOWMAN}"),
    _chat("a prefill with an escape sequence", r"token|\\x1b", f"task.prefill='{ESC}'"),
    _chat("a system prompt that leaves no room", "long|tokens", f"task.system_prompt={'x' * 400}"),
)  # fmt: skip

COMMANDS = (
    _command("a subcommand that there is not", "did you mean train", "trian"),
    _command("data, nothing", "name a file", "data"),
    _command("data, not there", "no such file|there is no", "data", "gone.jsonl"),
    _command("data, neither a file nor a task", "no such file, and no such task", "data", "gone"),
    _command("data, empty", "is empty", "data", "rows.jsonl", write=content("rows.jsonl", b"")),
    _command("data, a pipe", "no file", "data", "rows.jsonl", write=lambda folder: os.mkfifo(folder / "rows.jsonl")),
    _command("data, three places", "one too many", "data", "a", "b", "c"),
    _command("data, a negative number of rows", "--rows", "data", "rows.jsonl", "--rows", "-1", write=GOODS),
    _command("data, a number of rows that is none", "--rows", "data", "rows.jsonl", "--rows", "x", write=GOODS),
    _command("data, a model that is not there", "gone", "data", "rows.jsonl", "gone", write=GOODS),
    _command("data, a model without a tokenizer", "tokenizer.json", "data", "rows.jsonl", "mine", write=both(GOODS, content("mine/config.json", "{}"))),
    _command("data, a wrong setting", "did you mean", "data", "rows.jsonl", "task.too_lang=drop", write=GOODS),
    _command("data, a name of brackets, commas, spaces and =", "40 rows|38 rows|rows", "data", "a [1],b=c {d}.jsonl", write=lines("a [1],b=c {d}.jsonl", *GOOD), status=0),
    _command("data, a name of escape sequences", "37 rows", "data", "a\x1b[2J.jsonl", write=lines("a\x1b[2J.jsonl", *GOOD), status=0),
    _command("data, a name that is not UTF-8", r"rows", "data", "a\udcff.jsonl", write=lambda folder: (folder / "a\udcff.jsonl").write_text("".join(json.dumps(r) + "\n" for r in GOOD)), status=0),
    _command("data, prompts of escape sequences", r"\\x1b", "data", "rows.jsonl", write=lines("rows.jsonl", *[{"question": f"{ESC}{n}\x07\u202e", "answer": ESC, ESC: ESC} for n in range(40)]), status=0),
    _command("data, a bad row is counted", r"rows.jsonl:41.*not JSON|cannot be used", "data", "rows.jsonl", write=lines("rows.jsonl", *GOOD, "x"), status=0),
    _command("settings, a key that there is not", "gone", "settings", "gone"),
    _command("settings, a key with an escape sequence", r"\\x1b", "settings", ESC),
    _command("evaluate, nothing", "required", "evaluate"),
    _command("evaluate, three models", "one or two", "evaluate", "a", "b", "c"),
    _command("evaluate, not there", "there is no model", "evaluate", "gone", "task=addition"),
    _command("evaluate, without a task", "task", "evaluate", "models/addition"),
    _command("evaluate, an empty folder", "there is no model", "evaluate", "mine", "task=addition", write=lambda folder: (folder / "mine").mkdir()),
    _command("evaluate, no prompts", "validation_prompts", "evaluate", "models/addition", "task=addition", "trainer.validation_prompts=0", "rollout=short"),
    _command("evaluate, no samples", "validation_samples", "evaluate", "models/addition", "task=addition", "trainer.validation_samples=0", "rollout=short"),
    _command("evaluate, a checkpoint of no run", "models/addition:40|no model", "evaluate", "models/addition:40", "task=addition"),
    _command("evaluate, a hub id, offline", "hub|network|offline", "evaluate", "owner/name@main", "task=addition"),
    _command("export, nothing", "RUN|out|required", "export"),
    _command("export, without a folder", "--out", "export", "gone"),
    _command("export, not there", "gone", "export", "gone", "--out", "mine"),
    _command("export, a model folder", "models/addition", "export", "models/addition", "--out", "mine"),
    _command("export, a step that is a text", "soon|gone", "export", "gone:soon", "--out", "mine"),
    _command("check, a module that there is not", "gone_module", "check", "gone_module"),
    _command("algorithms, a module that there is not", "gone_module", "algorithms", "gone_module"),
    _command("model, a folder that is there", "mine", "model", "addition", "--out", "mine", write=content("mine/file", b"")),
    _command("model, a size that does not fit", "heads", "model", "addition", "--out", "mine", "--hidden", "65", "--heads", "2"),
    _command("rlhf, a file that there is not", "gone", "rlhf", "-cn", "gone"),
)  # fmt: skip

CASES = SETTINGS + GRADERS + CHATS + COMMANDS
