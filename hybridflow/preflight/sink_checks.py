"""Metric sinks of a run: is each registered, are their packages there, do they take these options?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hybridflow.config.schema import Config
from hybridflow.options import faults
from hybridflow.preflight.component_checks import unknown_name


def problems(config: Config) -> list[str]:
    """List what is wrong with `trainer.metric_sinks` and `trainer.sink_options`. No client of a tracker is imported."""
    from hybridflow.observe.sinks import metric_sinks, missing_package

    lines: list[str] = []
    for name in dict.fromkeys(config.trainer.metric_sinks):
        lines += unknown_name("trainer.metric_sinks", metric_sinks, name)
        missing = missing_package(name) if name in metric_sinks else None
        lines += [f"trainer.metric_sinks: {missing}"] if missing else []
    return [*lines, *_options(config)]


def _options(config: Config) -> Iterator[str]:
    from hybridflow.observe.sinks import metric_sinks

    for name, options in config.trainer.sink_options.items():
        key = f"trainer.sink_options.{name}"
        if name not in metric_sinks:
            yield from unknown_name(key, metric_sinks, name)
        elif name not in config.trainer.metric_sinks:
            yield f"{key}: given, but {name} is not among trainer.metric_sinks; add it there, or leave this out"
        elif not isinstance(options, Mapping):
            yield f"{key}: {options!r} given; its options were expected, as {{project: mine}}"
        else:
            for option, trouble in faults(metric_sinks.get(name), options).items():
                yield f"{key}.{option}: {trouble}"
    for name in dict.fromkeys(config.trainer.metric_sinks):
        if name in metric_sinks and name not in config.trainer.sink_options:
            for option, trouble in faults(metric_sinks.get(name), {}).items():
                yield f"trainer.sink_options.{name}.{option}: {trouble}"
