"""Containers: what is known of each, what becomes of it, and what a client can ask of it.

`service.Containers` and `execs.Execs` are what the rest of the engine uses; `record` is what is kept on disk.
"""
