"""One file a claim: its baseline in the same run, its ratio, and the command that reproduces it."""
