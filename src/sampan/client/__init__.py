"""A client of the Docker Engine API, ours or another: synchronous, and quick to import.

A command's time is mostly imports. That is why this has a small HTTP reader of its own and the standard library's JSON:
h11 and msgspec cost 24 and 28 ms to import, which is more than a container's start. Documents are plain JSON values
here: they go to a person, or come from a command line.
"""
