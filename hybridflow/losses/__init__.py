"""The formulas: advantages, losses, KL estimates and how they are averaged. Pure functions of tensors.

All work on packed response tokens: T tokens of R rows, `lengths` [R] int64, no padding. A row without tokens is not a
sample: it has no loss, and means over rows leave it out.
"""
