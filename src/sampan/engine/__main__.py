"""`python -I -m sampan.engine`: the daemon. Started as `sampan daemon`, and by a client that finds no engine."""

from __future__ import annotations

import os
import sys

from sampan.engine.config import load
from sampan.errors import SampanError


def main() -> int:
    """Options first: a wrong one is told before anything heavy is imported."""
    try:
        config = load(sys.argv[1:])
    except SampanError as error:
        print(f"sampan daemon: {error.message}", file=sys.stderr)
        return 1
    if os.geteuid() != 0:
        print("sampan daemon: the engine needs to be started with root privileges", file=sys.stderr)
        return 1
    from sampan.engine.daemon import run

    return run(config)


if __name__ == "__main__":
    sys.exit(main())
