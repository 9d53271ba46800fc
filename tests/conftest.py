"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# The first call of a torch operation takes long, and the machine may be busy: time is not what these tests judge.
settings.register_profile("hybridflow", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("hybridflow")
