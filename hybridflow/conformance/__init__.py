"""What a user's modules register, tried: as functions on random rows, and two steps on ranks with a tiny model.

`hybridflow check` shows it (docs/extend.md). A check gives lines, one for each expectation that is not met; it changes
nothing and knows nothing of a terminal.
"""
