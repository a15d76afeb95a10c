"""Whatever an archive says: both bodies show the same tree, or refuse it in the same words."""

from __future__ import annotations

import pathlib
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.errors import SampanError
from tests.privileged.core.layers import BLK, CHR, DIR, FIFO, LNK, REG, SYM, Seen, entry, layer, pax, seen, tar

pytestmark = pytest.mark.requires("root", "overlay", "erofs", "kernel:6.12")

# Few names, so that they meet each other.
NAMES = st.sampled_from((b"a", b"b", b"c\xff", b"d.d", b".wh.a", b".wh.b", b".wh..wh..opq", b"n" * 255, b"."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
TARGETS = st.one_of(
    st.lists(st.sampled_from((b"a", b"b", b"c\xff", b"d.d", b"..", b"")), min_size=1, max_size=5).map(b"/".join),
    st.integers(1, 2000).map(lambda size: b"t" * size),
).filter(bool)
ATTRIBUTES = st.dictionaries(
    st.sampled_from((b"user.one", b"user.overlay.opaque", b"trusted.two", b"trusted.overlay.redirect",
                     b"security.three", b"unknown.four", b"user.")),
    st.binary(max_size=300), max_size=3,
)  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from((REG, REG, DIR, SYM, LNK, CHR, BLK, FIFO)))
    records = {b"SCHILY.xattr." + name: value for name, value in draw(ATTRIBUTES).items()}
    if draw(st.booleans()):
        # What ext4 can keep too: until 2446, from 1901.
        nanoseconds = draw(st.integers(-(1 << 31) + 2, (1 << 33) - 1)), draw(st.integers(0, 999_999_999))
        records[b"mtime"] = b"%d.%09d" % nanoseconds
    more = {"mode": draw(st.integers(0, 0o7777)), "uid": draw(st.sampled_from((0, 5, 70_000, 4_294_967_294)))}
    more["gid"], more["mtime"] = draw(st.integers(0, 100_000)), draw(st.integers(0, 1 << 33))
    name = draw(PATHS) + (b"/" if kind == DIR and draw(st.booleans()) else b"")
    if kind == REG and draw(st.integers(0, 3)) == 0:
        return sparse(draw, name, records)
    data = draw(st.binary(max_size=2000)) if kind == REG else b""
    target = draw(PATHS if kind == LNK else TARGETS) if kind in (LNK, SYM) else b""
    device = (draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1))) if kind in (CHR, BLK) else (0, 0)
    return entry(name, kind, data, target=target, device=device, pax=records, **more)


def sparse(draw: st.DrawFn, name: bytes, records: dict[bytes, bytes]) -> bytes:
    """Extents at any offset, whole blocks or not."""
    unit = draw(st.sampled_from((1, 512, 4096)))
    pairs: list[tuple[int, int]] = []
    at = 0
    for _ in range(draw(st.integers(0, 4))):
        at += draw(st.integers(0, 20)) * unit
        length = draw(st.integers(1, 9)) * unit
        pairs.append((at, length))
        at += length
    size = at + draw(st.sampled_from((0, 1, 511, 512, 100_000, 1 << 32)))
    data = b"".join(bytes([1 + n]) * length for n, (_, length) in enumerate(pairs))
    records |= {
        b"GNU.sparse.name": name, b"GNU.sparse.size": b"%d" % size,
        b"GNU.sparse.map": b",".join(b"%d" % number for pair in pairs for number in pair),
    }  # fmt: skip
    return entry(b"x", data=data, pax=records)


def shows(body: str, data: bytes) -> dict[bytes, Seen] | str:
    at = pathlib.Path(tempfile.mkdtemp(prefix="layer"))
    try:
        with layer(body, at, data) as root:
            return seen(root)
    except SampanError as error:
        return error.message
    finally:
        shutil.rmtree(at)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(entries(), max_size=12), st.booleans())
def test_both_bodies_show_the_same(some: list[bytes], all_have: bool) -> None:
    first = pax({b"SCHILY.xattr.user.all": b"1"}, b"g") if all_have else b""
    data = tar(first, *some)
    assert shows("indexed", data) == shows("unpacked", data)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(entries(), min_size=1, max_size=4), st.data())
def test_damage_is_the_same_to_both(some: list[bytes], draw: st.DataObject) -> None:
    """Bytes changed, and the stream cut: an error of ours or a tree, and the same from both."""
    data = bytearray(tar(*some))
    for _ in range(draw.draw(st.integers(0, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = bytes(data[: draw.draw(st.integers(0, len(data)))])
    assert shows("indexed", cut) == shows("unpacked", cut)
