"""Schedules that come with hybridflow; `hybridflow.algorithms.schedule` says what one is."""
