"""Alarms of a run that name causes, from its metrics alone. Pure: no clock, no files, no library; docs/alarms.md."""

from hybridflow.observe.alarms.alarm import Alarm, Finding, alarm_rules
from hybridflow.observe.alarms.alarm_watch import AlarmWatch, alarms_of
from hybridflow.observe.alarms.metric_window import MetricWindow

__all__ = ["Alarm", "AlarmWatch", "Finding", "MetricWindow", "alarm_rules", "alarms_of"]
