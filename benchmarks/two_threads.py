"""Plugin that gives each rank two threads, where it would have one. For benchmarks; it comes before other plugins."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "2"  # read when torch is imported, and when a rank begins
