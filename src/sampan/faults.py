"""Named stages at which a process dies, for the tests of what a kill leaves. Without being asked, nothing happens.

`SAMPAN_FAULT` names a stage; or, as a path, a file that does, which whoever dies of it removes: it strikes once.
Imports nothing of the rest.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "SAMPAN_FAULT"
_wanted = os.environ.get(VARIABLE, "")


def stage(name: str) -> None:
    """Die here, by SIGKILL, if this is the stage."""
    if _wanted and _strikes(name):
        os.kill(os.getpid(), signal.SIGKILL)


def _strikes(name: str) -> bool:
    if not _wanted.startswith("/"):
        return name == _wanted
    try:
        with open(_wanted, encoding="ascii") as file:
            if file.read() != name:
                return False
        os.unlink(_wanted)
    except OSError:
        return False
    return True


def inherited() -> dict[str, str]:
    """For the environment of the spawner, which has nothing else of the engine's."""
    return {VARIABLE: _wanted} if _wanted else {}
