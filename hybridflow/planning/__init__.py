"""What a run costs before it starts: memory, bytes and seconds of a placement, and the search for a cheap one.

It stands above the algorithms, whose flows it reads, and needs neither Ray nor an engine.
"""
