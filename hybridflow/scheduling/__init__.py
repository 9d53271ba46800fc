"""The state machine of every schedule: events in, decisions out. Pure: no Ray, no torch, no clock, no file."""

from hybridflow.scheduling.messages import (
    Admit,
    Decision,
    Event,
    Learned,
    Resumed,
    RowFailed,
    RowFinished,
    Started,
    Stop,
    Sync,
    Take,
    WeightsPublished,
)
from hybridflow.scheduling.samplers import Sampler, samplers
from hybridflow.scheduling.schedule_policy import SCHEDULES, SchedulePolicy, Stopped, policy_of
from hybridflow.scheduling.scheduler import Scheduler

__all__ = [
    "SCHEDULES",
    "Admit",
    "Decision",
    "Event",
    "Learned",
    "Resumed",
    "RowFailed",
    "RowFinished",
    "Sampler",
    "SchedulePolicy",
    "Scheduler",
    "Started",
    "Stop",
    "Stopped",
    "Sync",
    "Take",
    "WeightsPublished",
    "policy_of",
    "samplers",
]
