"""One thing done to each of several names."""

from __future__ import annotations

import sys

from sampan.errors import NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def for_each(names: Iterable[str], do: Callable[[str], object], *, missing_is_fine: bool = False) -> int:
    """The exit status: 1 if it failed for any of them, with a line for each. `missing_is_fine`: what is not there is
    passed over."""
    status = 0
    for name in names:
        try:
            do(name)
        except SampanError as error:
            if missing_is_fine and isinstance(error, NotFound):
                continue
            print(f"sampan: {error.message}", file=sys.stderr)
            status = 1
    return status
