"""The command `sampan-runtime`: before a container is entered, the interpreter becomes a sealed copy of itself.

Otherwise a container could write to the host's interpreter by the /proc/PID/exe of the process that enters it
(CVE-2019-5736). Nothing is imported before that which the copy would import again.
"""

from __future__ import annotations

import os
import sys

from sampan.linux.lean import leave_out
from sampan.linux.sealed import is_sealed, sealed_copy

_ENTERING = {"create", "run", "exec"}


def main() -> None:
    """Does not return."""
    words = sys.argv[1:]
    if _ENTERING.intersection(words) and not is_sealed():
        _execute_sealed(words)
    leave_out()
    from sampan.runtime.cli import main as run

    status = run(words)
    sys.stdout.flush()
    # Taking the interpreter down would take milliseconds, for nothing.
    os._exit(status)


def _execute_sealed(words: list[str]) -> None:
    # An isolated interpreter looks into no site directory by itself. The first place is the script's directory, or the
    # one that the caller is in: nothing of ours is there.
    places = sys.path if sys.flags.safe_path else sys.path[1:]
    own = [place for place in places if os.path.isabs(place)]
    code = (
        f"import sys, gc; gc.disable(); sys.path += [each for each in {own!r} if each not in sys.path]; "
        "from sampan.linux.lean import leave_out; leave_out(); "
        "from sampan.runtime.__main__ import main; main()"
    )
    copy = sealed_copy(sys.executable)
    os.execve(f"/proc/self/fd/{copy}", [sys.executable, "-I", "-S", "-c", code, *words], os.environ)


if __name__ == "__main__":
    main()
