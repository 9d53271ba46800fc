"""hybridflow's side of `benchmarks.trl`: a run's roles and its schedule, a step whenever one is asked for."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from benchmarks.asked_steps import AskedSteps
from benchmarks.trl_case import CASES, STEPS, THREADS, Turns, digest, prompts_of, serve
from hybridflow.trainer.build import build

# By the number of ranks, settings that use all threads.
SETTINGS = {
    THREADS: (f"placement.pools.main={THREADS}", "plugins=[benchmarks.fixed_lengths]"),
    1: ("placement.pools.main=1", "plugins=[benchmarks.two_threads,benchmarks.fixed_lengths]"),
}
PHASES = {
    "generate": ("generate_sequences",),
    "score": ("compute_log_prob", "compute_ref_log_prob"),
    "update": ("update_actor",),
}


def main(name: str, folder: str, ranks: str) -> None:
    """Start the roles, then take the steps that are asked for."""
    turns = Turns()
    config = CASES[name].config(folder, *SETTINGS[int(ranks)])
    prompts = prompts_of(config)
    with ExitStack() as stack:
        running = build(config, stack, lambda line: print(line, file=sys.stderr))
        asked = AskedSteps(running, config, prompts, STEPS)

        def take_step(number: int) -> dict[str, Any]:
            rollout, metrics, seconds = asked.take(number)
            return {
                "seconds": seconds,
                "response_tokens": int(rollout.lengths("response_ids").sum()),
                "prompts": digest(prompts.batch(number).ragged("prompt_ids")),
                "parts": {
                    part: sum(metrics.get(f"timing_s/{call}", 0.0) for call in calls) for part, calls in PHASES.items()
                },
            }

        turns.answer(settings=[*CASES[name].settings, *SETTINGS[int(ranks)]])
        serve(take_step, turns)


if __name__ == "__main__":
    main(*sys.argv[1:])
