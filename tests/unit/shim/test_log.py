"""The log that a shim writes: lines and pieces of lines in Docker's formats, rotated, compressed, and mended."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.engine.containers.log_formats import LocalFormat
from sampan.shim.locallog import LocalLog
from sampan.shim.log import MAX_RECORD, Log, Piece
from sampan.shim.logfile import LogFile
from sampan.shim.loop import Loop
from sampan.shimapi.messages import LogConfig


def records(path: pathlib.Path) -> list[tuple[str, str]]:
    return [(each["stream"], each["log"]) for each in map(json.loads, path.read_text().splitlines())]


def entries(data: bytes) -> list[tuple[str, bytes]]:
    lines, end = LocalFormat().decode(data)
    assert end == len(data)
    return [(line.stream, line.text()) for line in lines]


def local_log(config: LogConfig) -> Log:
    return Log(config, Loop(lambda: None))


def test_lines_wait_for_their_newline(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    log = Log(LogConfig(path=str(path)))
    log.write(1, b"one\ntw")
    log.write(2, b"err\xff\n")
    log.write(1, b"o\nrest")
    assert records(path) == [("stdout", "one\n"), ("stderr", "err\ufffd\n"), ("stdout", "two\n")]
    log.close()
    assert records(path)[-1] == ("stdout", "rest")


def test_a_long_line_is_cut(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    log = Log(LogConfig(path=str(path)))
    log.write(1, b"x" * (MAX_RECORD + 10) + b"\nshort\n")
    log.close()
    assert [len(text) for _, text in records(path)] == [MAX_RECORD, 11, 6]


@given(
    st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=40) | st.sampled_from(
        (b"\n", b"\\", b"\\n", b'",\n"', b"\0", b"x" * MAX_RECORD, b"y" * (MAX_RECORD - 1), b"\\\n\n")
    )), max_size=12)
)  # fmt: skip
def test_what_is_read_is_what_was_written(pieces: list[tuple[int, bytes]]) -> None:
    """Whatever the pieces that it comes in; by json-file what is no UTF-8 becomes a character for it."""
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        logs = [
            Log(LogConfig(path=f"{directory}/json", attributes={"a": '\\n"\0'})),
            local_log(LogConfig(driver="local", path=f"{directory}/local")),
        ]
        for log in logs:
            for stream, data in pieces:
                log.write(stream, data)
            log.close()
        for number, name in ((1, "stdout"), (2, "stderr")):
            written = b"".join(data for each, data in pieces if each == number)
            lines = [text for each, text in records(directory / "json") if each == name]
            assert all(len(line.encode()) <= 3 * MAX_RECORD for line in lines)
            # Each line is decoded by itself: a newline ends whatever went before.
            assert "".join(lines).split("\n") == [
                _cut_decoded(line) for line in written.split(b"\n")
            ]  # fmt: skip
            local = [text for each, text in entries((directory / "local").read_bytes()) if each == name]
            assert b"".join(local) == written
            assert all(len(text) <= MAX_RECORD + 1 for text in local)


def _cut_decoded(line: bytes) -> str:
    parts = [line[at : at + MAX_RECORD] for at in range(0, len(line), MAX_RECORD)]
    return "".join(part.decode("utf-8", "replace") for part in parts)


def test_records_are_dockers(tmp_path: pathlib.Path) -> None:
    """Bytes that dockerd 28.5 wrote: a line, an empty one, a piece of a line."""
    mark = "df73bd78bd406aa108a3d28cbef4371e6b14a3a6fa00f87bd92be6b00525a467"
    docker = (
        b"\0\0\0\x17\n\x06stderr\x10\xb1\xc2\xf4\xf8\xb9\xde\xcf\xf5\x18\x1a\x03err\0\0\0\x17",
        b"\0\0\0\x12\n\x06stdout\x10\x95\xee\xff\xf8\xb9\xde\xcf\xf5\x18\0\0\0\x12",
        b"\0\0\0_\n\x06stdout\x10\xeb\xa3\xa9\x8c\xba\xde\xcf\xf5\x18\x1a\x03end \x01*D\x12@"
        + mark.encode() + b"\x18\x01\0\0\0_",
    )  # fmt: skip
    lines = LocalFormat().decode(b"".join(docker))[0]
    assert [(line.stream, line.text()) for line in lines] == [
        ("stderr", b"err\n"),
        ("stdout", b"\n"),
        ("stdout", b"end"),
    ]
    assert lines[0].stamp() == "2026-11-25T09:14:52.504736049Z"
    log = LocalLog(LogConfig(driver="local", path=str(tmp_path / "log")))
    log.lines(2, b"err\n", lines[0].moment())
    log.lines(1, b"\n", lines[1].moment())
    log.piece(1, b"end", lines[2].moment(), Piece(mark, 1, last=False))
    log.close()
    assert (tmp_path / "log").read_bytes() == b"".join(docker)


def test_rotation_keeps_so_many_files(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    log = Log(LogConfig(path=str(path), max_size=200, max_file=3))
    for number in range(20):
        log.write(1, b"%d\n" % number)
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    kept = [text for name in ("log.2", "log.1", "log") for _, text in records(tmp_path / name)]
    assert kept == [f"{number}\n" for number in range(20 - len(kept), 20)]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotation_is_between_records_however_many_come_at_once(tmp_path: pathlib.Path, driver: str) -> None:
    path = tmp_path / "log"
    log = local_log(LogConfig(driver=driver, path=str(path), max_size=1000, max_file=100))
    lines = [b"%d %s\n" % (number, b"x" * (number % 90)) for number in range(500)]
    lines[250] = b"x" * 3000 + b"\n"  # Longer than a file may be.
    log.write(1, b"".join(lines))
    log.close()
    files = sorted(tmp_path.iterdir(), key=lambda each: -int(each.suffix[1:] or 0))
    sizes = [each.stat().st_size for each in files]
    assert len([size for size in sizes if size > 1000]) == 1
    data = [each.read_bytes() for each in files]
    if driver == "local":
        found = [text for each in data for _, text in entries(each)]
    else:
        found = [text.encode() for each in files for _, text in records(each)]
    assert found == lines


def _wait_until_gone(path: str) -> None:
    deadline = time.monotonic() + 30
    while os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(path)


def test_what_is_rotated_is_compressed_beside_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    log = Log(LogConfig(path=str(path), max_size=300, max_file=3, compress=True))
    for number in range(30):
        log.write(1, b"%d\n" % number)
    _wait_until_gone(f"{path}.1")
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz", "log.2.gz"]
    texts = [gzip.decompress((tmp_path / f"log.{number}.gz").read_bytes()).decode() for number in (2, 1)]
    kept = [json.loads(line)["log"] for line in "".join([*texts, path.read_text()]).splitlines()]
    assert kept == [f"{number}\n" for number in range(30 - len(kept), 30)]


def test_a_compression_that_was_cut_short_is_done_again(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "log")
    (tmp_path / "log.1").write_text("old\n")
    (tmp_path / "log.1.gz.tmp").write_text("half")
    file = LogFile(path, 100, 3, compress=True)
    _wait_until_gone(f"{path}.1")
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz"]
    assert gzip.decompress((tmp_path / "log.1.gz").read_bytes()) == b"old\n"


def test_nothing_is_left_of_a_compression_that_nobody_waits_for(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "log")
    (tmp_path / "log.1").write_bytes(os.urandom(64 << 20))
    LogFile(path, 100, 3, compress=True).close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]


def test_a_record_that_was_cut_is_not_taken_for_the_next_ones_beginning(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "json"
    path.write_text('{"log":"whole\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n{"log":"cu')
    log = Log(LogConfig(path=str(path)))
    log.write(1, b"next\n")
    log.close()
    lines = path.read_text().splitlines()
    assert [json.loads(line)["log"] for line in (lines[0], lines[2])] == ["whole\n", "next\n"]

    path = tmp_path / "local"
    config = LogConfig(driver="local", path=str(path))
    for text in (b"one\n", b"two\n"):
        log = local_log(config)
        log.write(1, text)
        log.close()
        with open(path, "ab") as file:
            file.write(b"\0\0\0\x30\x0a\x06stdout")
    log = local_log(config)
    log.write(1, b"three\n")
    log.close()
    assert [text for _, text in entries(path.read_bytes())] == [b"one\n", b"two\n", b"three\n"]
