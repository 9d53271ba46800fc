"""Observation of a run: metrics and their sinks, the live view, the run folder, logs."""
