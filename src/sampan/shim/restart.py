"""When a container is started again: Docker's restart policies. Pure."""

from __future__ import annotations

import msgspec

from sampan.shimapi.messages import RestartName, RestartPolicy

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
GOOD_RUN = 10.0
"""Seconds of running after which the delay begins anew."""


class Backoff(msgspec.Struct):
    """The delay before the next start: 100 ms, doubled with every end that comes too soon, a minute at most."""

    delay: float = 0.0

    def after(self, ran_for: float) -> float:
        """Seconds to wait, after a run of so many seconds."""
        if ran_for >= GOOD_RUN or not self.delay:
            self.delay = FIRST_DELAY
        else:
            self.delay = min(self.delay * 2, LONGEST_DELAY)
        return self.delay


def restarts(policy: RestartPolicy, exit_status: int, count: int) -> bool:
    """Whether a container that ended by itself is started again; `count`: how often it was."""
    match policy.name:
        case RestartName.ALWAYS | RestartName.UNLESS_STOPPED:
            return True
        case RestartName.ON_FAILURE:
            return exit_status != 0 and (not policy.maximum_retry_count or count < policy.maximum_retry_count)
        case _:
            return False
