"""One suite over both bodies of a layer: what an archive says is what there is, exactly."""

from __future__ import annotations

import io
import os
import pathlib
import stat
import struct
import subprocess
import tarfile

import pytest

from sampan.core.snapshots.tarwalk import MAX_FILE, TarWalk
from sampan.core.snapshots.tree import Tree
from sampan.errors import DataCorrupt, InvalidArgument, SampanError
from tests.privileged.core.layers import (
    BLK,
    BODIES,
    CHR,
    DIR,
    FIFO,
    LNK,
    REG,
    SYM,
    entry,
    header,
    layer,
    padded,
    pax,
    seen,
    summed,
    tar,
)

pytestmark = [pytest.mark.requires("root", "overlay", "erofs", "kernel:6.12"), pytest.mark.parametrize("body", BODIES)]
NS = 1_000_000_000


def test_every_kind_of_file(body: str, tmp_path: pathlib.Path) -> None:
    data = tar(
        entry(b"./", DIR, mode=0o750, uid=1, gid=2, mtime=77),
        entry(b"d/", DIR, mode=0o1777, uid=3, gid=4, mtime=1_600_000_000),
        entry(b"d/file", REG, b"hello" * 300, mode=0o4755, uid=100_000, gid=4_000_000_000, mtime=-5),
        entry(b"d/empty", REG, mode=0),
        entry(b"d/sym", SYM, target=b"../somewhere", uid=7, mtime=9),
        entry(b"d/long", SYM, target=b"x" * 3000, mtime=9),
        entry(b"d/hard", LNK, target=b"d/file"),
        entry(b"null", CHR, device=(1, 3), mode=0o666),
        entry(b"disk", BLK, device=(259, 70_000)),
        entry(b"pipe", FIFO, mode=0o600),
        entry(b"never/came/file", REG, b"1"),
    )
    with layer(body, tmp_path, data) as root:
        tree = seen(root)
        assert (tree[b"/"].mode, tree[b"/"].uid, tree[b"/"].gid, tree[b"/"].mtime) == (0o40750, 1, 2, 77 * NS)
        assert (tree[b"/d"].mode, tree[b"/d"].mtime, tree[b"/d"].links) == (0o41777, 1_600_000_000 * NS, 2)
        file = tree[b"/d/file"]
        assert (file.mode, file.uid, file.gid, file.mtime, file.links) == (0o104755, 100_000, 4_000_000_000, -5 * NS, 2)
        assert file.content == b"hello" * 300
        assert tree[b"/d/hard"].same == b"/d/file"
        assert (tree[b"/d/empty"].size, tree[b"/d/empty"].mode) == (0, 0o100000)
        assert (tree[b"/d/sym"].content, tree[b"/d/sym"].uid, tree[b"/d/sym"].mtime) == (b"../somewhere", 7, 9 * NS)
        assert tree[b"/d/long"].content == b"x" * 3000
        assert (tree[b"/null"].mode, tree[b"/null"].device) == (0o20666, os.makedev(1, 3))
        assert (tree[b"/disk"].mode, tree[b"/disk"].device) == (0o60644, os.makedev(259, 70_000))
        assert stat.S_ISFIFO(tree[b"/pipe"].mode)
        assert (tree[b"/never"].mode, tree[b"/never"].uid, tree[b"/never"].mtime) == (0o40755, 0, 0)
        assert tree[b"/never"].links == 3
        assert tree[b"/never/came/file"].content == b"1"


def test_times_attributes_and_names_of_pax(body: str, tmp_path: pathlib.Path) -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *each) for each in ((1, 6, 0xFFFFFFFF), (2, 7, 1000), (4, 4, 0xFFFFFFFF),
                                                (16, 7, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)))  # fmt: skip
    long = b"/".join([b"n" * 200] * 5)
    data = tar(
        pax({b"comment": b"about all", b"SCHILY.xattr.user.all": b"1"}, b"g"),
        entry(b"f", pax={
            b"mtime": b"1700000000.123456789", b"SCHILY.xattr.user.a=b".replace(b"=b", b""): b"v=1\nw",
            b"SCHILY.xattr.security.capability": capability, b"SCHILY.xattr.trusted.t": b"\0\xff" * 100,
            b"SCHILY.xattr.trusted.overlay.opaque": b"y", b"SCHILY.xattr.user.overlay.opaque": b"y",
            b"SCHILY.xattr.com.apple.nothing": b"z",
            b"SCHILY.xattr.user.empty": b"",
        }),
        entry(b"acl", mode=0o674, pax={b"SCHILY.xattr.system.posix_acl_access": acl}),
        entry(b"d", DIR, mode=0o775, pax={b"SCHILY.xattr.system.posix_acl_default": acl}),
        entry(long, data=b"long"),
        entry(b"x", pax={b"path": b"caf\xe9\xff", b"uid": b"4294967294", b"mtime": b"-1.5"}),
        entry(b"s", SYM, target=b"y" * 200, pax={
            b"SCHILY.xattr.trusted.s": b"on a link", b"SCHILY.xattr.user.no": b""}),
        pax({b"SCHILY.xattr.user.all": b""}, b"g"),
    )  # fmt: skip
    with layer(body, tmp_path, data) as root:
        tree = seen(root)
        assert tree[b"/f"].mtime == 1_700_000_000_123_456_789
        assert dict(tree[b"/f"].xattrs) == {
            "user.all": b"1", "user.a": b"v=1\nw", "security.capability": capability, "trusted.t": b"\0\xff" * 100,
            "user.empty": b"",
        }  # fmt: skip
        assert dict(tree[b"/acl"].xattrs)["system.posix_acl_access"] == acl
        assert tree[b"/acl"].mode == 0o100674
        assert dict(tree[b"/d"].xattrs)["system.posix_acl_default"] == acl
        assert tree[b"/" + long].content == b"long"
        assert (tree[b"/caf\xe9\xff"].uid, tree[b"/caf\xe9\xff"].mtime) == (4294967294, -1_500_000_000)
        assert (tree[b"/s"].content, tree[b"/s"].xattrs) == (b"y" * 200, (("trusted.s", b"on a link"),))


def test_other_forms_of_headers(body: str, tmp_path: pathlib.Path) -> None:
    gnu = {"magic": b"ustar  \0"}
    star = bytearray(header(b"file", size=2, prefix=b"from/star".ljust(131, b"\0") + b"7" * 23))
    star[508:512] = b"tar\0"
    old = header(b"v7dir/", b"\0", magic=bytes(8))
    signed = bytearray(header(b"signed\xff", magic=bytes(8)))
    plain = bytes(signed[:148]) + b" " * 8 + bytes(signed[156:])
    signed[148:156] = b"%06o\0 " % sum(each - 256 if each > 127 else each for each in plain)
    data = tar(
        header(b"././@LongLink", b"L", size=151, **gnu) + padded(b"l" * 150 + b"\0"),  # type: ignore[arg-type]
        header(b"././@LongLink", b"K", size=121, **gnu) + padded(b"t" * 120 + b"\0"),  # type: ignore[arg-type]
        header(b"l" * 100, SYM, target=b"t" * 100, **gnu),  # type: ignore[arg-type]
        header(b"tail", prefix=b"in/front"), summed(bytes(star)) + padded(b"ok"), old, bytes(signed),
        header(b"continuous", b"7", size=1) + padded(b"c"),
        header(b"big", uid=1 << 31, mtime=1 << 33, size=0),
        summed(header(b"spaces").replace(b"0000644\0", b"   644 \0", 1)),
    )  # fmt: skip
    with layer(body, tmp_path, data) as root:
        tree = seen(root)
        assert tree[b"/" + b"l" * 150].content == b"t" * 120
        assert b"/in/front/tail" in tree
        assert tree[b"/from/star/file"].content == b"ok"
        assert stat.S_ISDIR(tree[b"/v7dir"].mode)
        assert b"/signed\xff" in tree
        assert tree[b"/continuous"].content == b"c"
        assert (tree[b"/big"].uid, tree[b"/big"].mtime) == (1 << 31, (1 << 33) * NS)
        assert tree[b"/spaces"].mode == 0o100644


def test_the_last_of_a_name_counts(body: str, tmp_path: pathlib.Path) -> None:
    data = tar(
        entry(b"a", data=b"one"), entry(b"b", LNK, target=b"a"), entry(b"a", data=b"three!", mode=0o600),
        entry(b"d/x/y", data=b"1"), entry(b"d", DIR, mode=0o700), entry(b"d/", DIR, mode=0o711),
        entry(b"e/x/y", data=b"1"), entry(b"other", LNK, target=b"e/x/y"), entry(b"e", data=b"now a file"),
        entry(b"f", data=b"x"), entry(b"f", DIR), entry(b"f/g", data=b"in"),
        entry(b"s", SYM, target=b"d"), entry(b"s", DIR), entry(b"s/own", data=b"o"),
        entry(b"h", data=b"1"), entry(b"h", LNK, target=b"./h"),
        entry(b"t", SYM, target=b"t1"), entry(b"t/x"), entry(b"t", SYM, target=b"t2"), entry(b"t/y"),
        entry(b"u/v/x"), entry(b"u", data=b"u"), entry(b"u", DIR), entry(b"u/v/y"),
        entry(b"/./abs//olute/", DIR, mode=0o700),
    )  # fmt: skip
    with layer(body, tmp_path, data) as root:
        tree = seen(root)
        assert (tree[b"/a"].content, tree[b"/a"].mode, tree[b"/a"].links) == (b"three!", 0o100600, 1)
        assert (tree[b"/b"].content, tree[b"/b"].links) == (b"one", 1)
        assert (tree[b"/d"].mode, tree[b"/d/x/y"].content) == (0o40711, b"1")
        assert (tree[b"/e"].content, tree[b"/other"].content, tree[b"/other"].links) == (b"now a file", b"1", 1)
        assert tree[b"/f/g"].content == b"in"
        assert (tree[b"/s/own"].content, b"/d/own" in tree) == (b"o", False)
        assert (tree[b"/h"].content, tree[b"/h"].links) == (b"1", 1)
        assert tree[b"/abs/olute"].mode == 0o40700
        assert [name for name in tree if name.startswith((b"/t", b"/u"))] == [
            b"/t", b"/t1", b"/t1/x", b"/t2", b"/t2/y", b"/u", b"/u/v", b"/u/v/y",
        ]  # fmt: skip


def test_whiteouts_hide_what_is_below(body: str, tmp_path: pathlib.Path) -> None:
    data = tar(
        entry(b".wh.gone"), entry(b"d/.wh..wh..opq"), entry(b"d/kept", data=b"k"), entry(b"d/.wh.x"),
        entry(b"n/", DIR), entry(b".wh.n"),  # A directory in the place of what was there:
        entry(b".wh.m"), entry(b"m/file"), entry(b".wh.file"), entry(b"file", data=b"new"),
        entry(b".wh..wh.plnk/1", data=b"aufs"), entry(b".wh..wh.aufs"),
    )  # fmt: skip
    with layer(body, tmp_path, data) as root:
        tree = seen(root)
        opaque = (("trusted.overlay.opaque", b"y"),)
        for name in (b"/gone", b"/d/x"):
            assert (stat.S_ISCHR(tree[name].mode), tree[name].device) == (True, 0)
        assert [tree[name].xattrs for name in (b"/d", b"/n", b"/m", b"/")] == [opaque, opaque, opaque, ()]
        assert (tree[b"/file"].content, tree[b"/d/kept"].content) == (b"new", b"k")
        assert not [name for name in tree if name.endswith(b"aufs")]


def test_links_are_followed_inside_the_layer(body: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "secret").mkdir()
    deep = b"/".join([b"d" * 200] * 16)
    data = tar(
        entry(b"usr/lib/", DIR), entry(b"lib", SYM, target=b"usr/lib"), entry(b"lib/a", data=b"a"),
        entry(b"abs", SYM, target=b"/usr"), entry(b"abs/lib/b", data=b"b"),
        entry(b"up", SYM, target=b"../../../../.." + os.fsencode(tmp_path) + b"/secret"), entry(b"up/out", data=b"c"),
        entry(b"dangling", SYM, target=b"made/here"), entry(b"dangling/d", data=b"d"),
        entry(b"hard", LNK, target=b"lib/a"),
        # CVE-2025-4517: a chain of links, longer than what a check of the path by the library could resolve.
        *(entry(deep[: 201 * n + 200], DIR) for n in range(16)),
        *(entry(deep[: 201 * n] + b"l", SYM, target=b"d" * 200) for n in range(16)),
        entry(b"/".join([b"l"] * 16), SYM, target=b"../" * 16),
        entry(b"escape", SYM, target=b"/".join([b"d" * 200] * 16) + b"/" + b"../" * 40 + b"etc"),
        entry(b"escape/out", data=b"e"),
    )  # fmt: skip
    with layer(body, tmp_path, data) as root:
        tree = seen(root)
        assert (tree[b"/usr/lib/a"].content, tree[b"/usr/lib/b"].content) == (b"a", b"b")
        assert tree[os.fsencode(tmp_path) + b"/secret/out"].content == b"c"
        assert tree[b"/made/here/d"].content == b"d"
        assert tree[b"/hard"].same in (b"/usr/lib/a", b"/hard")
        assert tree[b"/etc/out"].content == b"e"
    assert os.listdir(tmp_path / "secret") == []
    assert not os.path.exists("/etc/out")


SPARSE = [(4096, 1000), (8192, 512), (20_001, 3)]


def sparse_parts() -> tuple[bytes, bytes]:
    """The data, and the file."""
    pieces = [bytes([65 + n]) * size for n, (_, size) in enumerate(SPARSE)]
    whole = bytearray(50_000)
    for (at, size), piece in zip(SPARSE, pieces, strict=True):
        whole[at : at + size] = piece
    return b"".join(pieces), bytes(whole)


def old_sparse(extents: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    def pairs(some: list[tuple[int, int]]) -> bytes:
        return b"".join(b"%011o\0%011o\0" % each for each in some)

    block = bytearray(header(b"old", b"S", size=len(data), magic=b"ustar  \0"))
    block[386:482] = pairs(extents[:4]).ljust(96, b"\0")
    block[482] = len(extents) > 4
    block[483:495] = b"%011o\0" % size
    result = summed(bytes(block))
    rest = extents[4:]
    while rest:
        result += (pairs(rest[:21]).ljust(504, b"\0") + bytes([len(rest) > 21])).ljust(512, b"\0")
        rest = rest[21:]
    return result + padded(data)


def test_files_with_holes_in_all_their_forms(body: str, tmp_path: pathlib.Path) -> None:
    data, whole = sparse_parts()
    numbers = [number for each in SPARSE for number in each]
    mapped = padded(b"".join(b"%d\n" % each for each in (len(SPARSE), *numbers)))
    many = [(n * 1024, 512) for n in range(100)]
    huge = [(0, 4096), ((1 << 40) + 12_288, 4096)]
    archive = tar(
        old_sparse(SPARSE, 50_000, data),
        summed(b"many".ljust(100, b"\0") + old_sparse(many, 102_400, b"m" * 51_200)[100:512])
        + old_sparse(many, 102_400, b"m" * 51_200)[512:],
        pax([(b"GNU.sparse.size", b"50000"), (b"GNU.sparse.numblocks", b"3"), *(
            (b"GNU.sparse.numbytes" if n % 2 else b"GNU.sparse.offset", b"%d" % each) for n, each in enumerate(numbers)
        )]) + entry(b"pax00", data=data),
        entry(b"GNUSparseFile/x", data=data, pax={
            b"GNU.sparse.name": b"pax01", b"GNU.sparse.size": b"50000",
            b"GNU.sparse.map": b",".join(b"%d" % each for each in numbers)}),
        entry(b"GNUSparseFile/y", data=mapped + data, pax={
            b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"pax10",
            b"GNU.sparse.realsize": b"50000"}),
        entry(b"after", data=b"after"),
        entry(b"z", data=b"", pax={b"GNU.sparse.size": b"70000", b"GNU.sparse.map": b"", b"GNU.sparse.name": b"hole"}),
        entry(b"z", data=b"H" * 8192, pax={
            b"GNU.sparse.realsize": b"%d" % ((1 << 40) + 20_000), b"GNU.sparse.name": b"huge",
            b"GNU.sparse.map": b",".join(b"%d" % number for each in huge for number in each)}),
    )  # fmt: skip
    with layer(body, tmp_path, archive) as root:
        tree = seen(root)
        for name in (b"/old", b"/pax00", b"/pax01", b"/pax10"):
            assert tree[name].content == whole, name
        assert tree[b"/after"].content == b"after"
        assert tree[b"/many"].content == (b"m" * 512 + bytes(512)) * 100
        assert tree[b"/hole"].content == bytes(70_000)
        assert tree[b"/huge"].size == (1 << 40) + 20_000
        with open(root / "huge", "rb") as file:
            assert os.pread(file.fileno(), 5000, 0) == b"H" * 4096 + bytes(904)
            assert os.pread(file.fileno(), 9999, (1 << 40) + 12_000) == bytes(288) + b"H" * 4096 + bytes(3616)
    used = sum(each.stat().st_blocks * 512 for each in (tmp_path / body).rglob("*") if each.is_file())
    assert used < 4 << 20


@pytest.mark.parametrize("options", ["--format=gnu", "--format=oldgnu", "--format=posix", "--format=ustar",
                                     "--format=v7",
                                     "--format=posix --sparse --sparse-version=0.0 --xattrs --xattrs-include=*",
                                     "--format=posix --sparse --sparse-version=0.1", "--format=gnu --sparse",
                                     "--format=posix --sparse --sparse-version=1.0"])  # fmt: skip
def test_what_gnu_tar_writes(body: str, tmp_path: pathlib.Path, options: str) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_bytes(os.urandom(10_000))
    os.link(source / "sub/file", source / "link")
    os.symlink("sub/file", source / "sym")
    os.setxattr(source / "sub", "user.k", b"v")
    with open(source / "holes", "wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 5000)
        file.truncate(3 << 20)
    if "v7" not in options and "ustar" not in options:
        (source / ("long" * 50)).write_text("long")
    subprocess.run(
        ["tar", *options.split(), "-C", str(source), "-cf", str(tmp_path / "x.tar"), "."], check=True, timeout=60
    )
    with layer(body, tmp_path, (tmp_path / "x.tar").read_bytes()) as root:
        ours, theirs = seen(root), seen(source)
    for name, theirs_file in theirs.items():
        ours_file = ours.pop(name)
        if "posix" not in options:
            assert ours_file.mtime == theirs_file.mtime // NS * NS
            ours_file = ours_file._replace(mtime=theirs_file.mtime)
        if "xattrs" not in options:
            theirs_file = theirs_file._replace(xattrs=())
        assert ours_file == theirs_file, name
    assert not ours


HOSTILE: list[tuple[str, list[bytes]]] = [
    ("it leads out of the layer", [entry(b"../out")]),
    ("it leads out of the layer", [entry(b"a/../../out")]),
    ("it leads out of the layer", [entry(b"a", data=b"1"), entry(b"h", LNK, target=b"../../etc/passwd")]),
    ("no such file", [entry(b"h", LNK, target=b"/etc/passwd")]),
    ("no such file", [entry(b"l", SYM, target=b"/"), entry(b"h", LNK, target=b"l/etc/passwd")]),
    ("no file to be a hard link to", [entry(b"d", DIR), entry(b"h", LNK, target=b"d")]),
    ("no file to be a hard link to", [entry(b".wh.w"), entry(b"h", LNK, target=b"w")]),
    ("in the place of what it is in", [entry(b"d/f"), entry(b"d", LNK, target=b"d/f")]),
    ("too many levels of symbolic links", [
        entry(b"a", SYM, target=b"b"), entry(b"b", SYM, target=b"a"), entry(b"a/x")]),
    ("not a directory", [entry(b"f", data=b"x"), entry(b"f/g")]),
    ("invalid whiteout", [entry(b".wh...")]),
    ("invalid whiteout", [entry(b"d/.wh.")]),
    ("file name too long", [entry(b"n" * 256)]),
    ("file name too long", [entry(b"/".join([b"n" * 200] * 21))]),
    ("file name too long", [
        entry(b"/".join([b"n" * 200] * 10), DIR), entry(b"l", SYM, target=b"/".join([b"n" * 200] * 10)),
        entry(b"l/" + b"/".join([b"n" * 200] * 11))]),
    ("null byte", [entry(b"x", pax={b"path": b"a\0b"})]),
    ("invalid link target", [entry(b"s", SYM)]),
    ("invalid device number", [entry(b"c", CHR, device=(4096, 0))]),
    ("out of range", [entry(b"u", uid=1 << 33)]),
    ("out of range", [entry(b"u", uid=0xFFFFFFFF)]),
    ("out of range", [entry(b"u", gid=-1)]),
    ("unknown type", [entry(b"u", b"Q")]),
    ("a file of", [header(b"big", size=MAX_FILE + 1)]),
    ("a header of", [header(b"x", b"x", size=2 << 20) + bytes(2 << 20)]),
    ("a header of", [header(b"x", b"L", size=2 << 20) + bytes(2 << 20)]),
    ("attributes are too long", [entry(b"x", pax={b"SCHILY.xattr.trusted.%d" % n: b"v" * 60_000 for n in range(4)})]),
    ("too many attributes or holes", [
        pax({b"SCHILY.xattr.unknown.%d" % n: b"v" * 60_000 for n in range(3)}, b"g"),
        *(entry(b"f%d" % n) for n in range(800))]),
    ("too many attributes or holes", [entry(b"x%d" % n, data=b"1" * 120_000, pax={
        b"GNU.sparse.size": b"900000", b"GNU.sparse.map": b",".join(b"%d,1" % at for at in range(120_000))})
        for n in range(9)]),
    ("map of holes", [old_sparse([(0, 512), (256, 512)], 4096, b"x" * 1024)]),
    ("map of holes", [old_sparse([(4096, 512)], 4096, b"x" * 512)]),
    ("map of holes", [old_sparse([(0, 512)], 4096, b"x" * 1024)]),
    ("map of holes", [entry(b"x", pax={b"GNU.sparse.size": b"%d" % (MAX_FILE + 1), b"GNU.sparse.map": b""})]),
    ("more than 262144 extents", [entry(b"x", data=padded(b"999999999\n"), pax={
        b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"1"})]),
    ("too many files with holes", [entry(b"h%d" % n, data=b"x" * 512, pax={
        b"GNU.sparse.size": b"%d" % (1 << 42), b"GNU.sparse.map": b"512,512"}) for n in range(1000)]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "entries"), HOSTILE)
def test_hostile_archives_are_refused(body: str, tmp_path: pathlib.Path, words: str, entries: list[bytes]) -> None:
    if words == "too many files with holes" and body == "unpacked":
        pytest.skip("holes cost nothing there")
    before = sorted(os.listdir("/")), os.stat("/etc/passwd").st_nlink
    with pytest.raises(InvalidArgument) as caught, layer(body, tmp_path, tar(*entries)):
        pass
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert (sorted(os.listdir("/")), os.stat("/etc/passwd").st_nlink) == before
    assert os.listdir(tmp_path) == [body]


WHOLE = tar(entry(b"d/", DIR), entry(b"d/file", data=b"x" * 3000, pax={b"mtime": b"1.5"}))


@pytest.mark.parametrize(
    "data",
    [WHOLE[:100], WHOLE[:600], WHOLE[: 512 * 4], WHOLE[:3000], b"no tar at all" * 100, b"x",
     bytes(512) + WHOLE, tar(pax({b"path": b"x"})), tar(header(b"x", b"x", size=9) + padded(b"99 a=b\n  ")),
     tar(header(b"x", b"x", size=9) + padded(b"ab a=b\n  ")), tar(entry(b"x", pax={b"mtime": b"soon"})),
     tar(entry(b"x", pax={b"size": b"-1"})), summed(header(b"x").replace(b"0000644", b"00006z4")),
     tar(header(b"n", size=-512))],
)  # fmt: skip
def test_broken_archives_are_refused(body: str, tmp_path: pathlib.Path, data: bytes) -> None:
    with pytest.raises(DataCorrupt) as caught, layer(body, tmp_path, data):
        pass
    assert "\n" not in caught.value.message


def test_a_header_that_was_changed_is_found(body: str, tmp_path: pathlib.Path) -> None:
    good = header(b"x")
    for at in (0, 101, 150, 156, 300):
        bad = bytearray(good)
        bad[at] ^= 1
        with pytest.raises(DataCorrupt):
            list(TarWalk(io.BytesIO(bytes(bad))))


def test_an_archive_may_end_at_its_last_byte(body: str, tmp_path: pathlib.Path) -> None:
    for number, data in enumerate(
        (b"", bytes(1024), entry(b"f", data=b"12345")[: 512 + 5], tar(entry(b"f")) + b"junk")
    ):
        with layer(body, tmp_path / str(number), data) as root:
            assert seen(root).get(b"/f", seen(root)[b"/"]).content == (b"12345" if number == 2 else b"")


def test_bombs_of_entries_are_refused(body: str, tmp_path: pathlib.Path) -> None:
    many = tar(*(entry(b"f%d" % n) for n in range(50)))
    with pytest.raises(InvalidArgument, match="more than 40 entries"):
        list(TarWalk(io.BytesIO(many), max_entries=40))
    with pytest.raises(InvalidArgument, match="more than 40 entries"):
        list(TarWalk(io.BytesIO(tar(*[pax({b"a": b"b"})] * 200)), max_entries=40))

    class Nothing:
        def make_directory(self, directory: object) -> None: ...

    deep = Tree(Nothing(), max_nodes=100)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="more than 100 directories"):
        for each in TarWalk(io.BytesIO(tar(*(entry(b"%d/" % n + b"a/" * 20, DIR) for n in range(50))))):
            deep.add(each)


def test_what_python_writes(body: str, tmp_path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        for n in range(300):
            member = tarfile.TarInfo(f"directory/{n:03}-\N{SNOWMAN}{'n' * (n % 200)}")
            member.size, member.mtime = n * 10, 1_700_000_000.25
            file.addfile(member, io.BytesIO(b"%03d" % n * 10 * n))
    with layer(body, tmp_path, buffer.getvalue()) as root:
        names = sorted(os.listdir(root / "directory"))
        assert len(names) == 300
        assert all((root / "directory" / name).stat().st_size == int(name[:3]) * 10 for name in names)
        assert (root / "directory" / names[7]).stat().st_mtime_ns == 1_700_000_000_250_000_000


def test_errors_are_of_the_taxonomy(body: str, tmp_path: pathlib.Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise DataCorrupt("decompress the layer: broken")

    from sampan.core.snapshots.apply import apply_layer
    from sampan.core.snapshots.indexed import add_indexed

    with pytest.raises(SampanError, match="broken"):
        (add_indexed if body == "indexed" else apply_layer)(Broken(), str(tmp_path))
