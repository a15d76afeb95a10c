"""Options of the local driver, as mount(2) gets them."""

from __future__ import annotations

import pytest

from sampan.engine.local_driver import MountCall, mount_call
from sampan.linux import mount as m


@pytest.mark.parametrize(
    ("options", "call"),
    [
        (
            {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=7,noexec,rw"},
            MountCall("tmpfs", "tmpfs", m.MS_NOEXEC, "size=1m,uid=7"),
        ),
        ({"type": "none", "device": "/srv", "o": "bind,ro"}, MountCall("/srv", "none", m.MS_BIND | m.MS_RDONLY, "")),
        ({"type": "none", "device": "/srv", "o": "ro,rw,rbind"}, MountCall("/srv", "none", m.MS_BIND | m.MS_REC, "")),
        ({"type": "bind", "device": "/srv"}, MountCall("/srv", "bind", m.MS_BIND, "")),
        (
            {"type": "none", "device": "/srv", "o": "rbind,rshared"},
            MountCall("/srv", "none", m.MS_BIND | m.MS_REC, "", (m.MS_SHARED | m.MS_REC,)),
        ),
        (
            {"type": "nfs", "device": ":/export", "o": "addr=192.0.2.1,vers=4,soft"},
            MountCall(":/export", "nfs", 0, "addr=192.0.2.1,vers=4,soft"),
        ),
    ],
)
def test_calls(options: dict[str, str], call: MountCall) -> None:
    assert mount_call(options) == call
