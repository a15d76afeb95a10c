"""How many descriptors this process may have, and those that it starts: a published port takes one of the shim's, so a
thousand would not fit into what a login session or systemd gives by default. Containers get what was given."""

from __future__ import annotations

import resource

GIVEN = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The soft and the hard limit that the engine was started with."""


def take_all() -> None:
    """Raise the soft limit to the hard one, for the engine, the spawner and the shims."""
    if GIVEN[0] != GIVEN[1]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (GIVEN[1], GIVEN[1]))
