"""Questions and answers on the wire."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.resolver import message
from sampan.resolver.message import Malformed, parse
from tests.e2e.dns import AAAA, Answer, question


def test_a_question() -> None:
    query = parse(question("One.Mine", AAAA, 77))
    assert (query.number, query.name, query.kind, query.of_class) == (77, "one.mine", AAAA, 1)
    assert (query.size, query.edns) == (512, False)
    extended = bytearray(question("one")) + b"\0" + struct.pack(">HHIH", 41, 1400, 0, 0)
    extended[11] = 1
    assert (parse(bytes(extended)).size, parse(bytes(extended)).edns) == (1400, True)


@given(st.binary(max_size=600))
def test_anything_is_a_question_or_malformed(data: bytes) -> None:
    for whole in (data, question("a.b")[:12] + data, question("one") + data):
        try:
            message.reply(parse(whole))
        except Malformed as error:
            assert error.answer == b"" or error.answer[2] & 0x80


def test_no_answer_is_answered() -> None:
    with pytest.raises(Malformed) as raised:
        parse(message.reply(parse(question("one"))))
    assert raised.value.answer == b""


def test_what_does_not_fit_is_left_out_and_told() -> None:
    query = parse(question("many"))
    records = [(message.A, bytes((10, 0, 0, each))) for each in range(100)]
    short, long = message.reply(query, records), message.reply(query, records, stream=True)
    assert len(short) <= 512
    assert (Answer(short).truncated, Answer(long).truncated) == (True, False)
    assert 20 < len(Answer(short).records) < 40
    assert len(Answer(long).records) == 100


def test_reverse_names() -> None:
    assert message.pointed_at("2.0.18.172.in-addr.arpa") == "172.18.0.2"
    assert message.pointed_at("300.0.18.172.in-addr.arpa") == ""
    assert message.pointed_at("18.172.in-addr.arpa") == ""
    assert message.pointed_at(f"{'1.' + '0.' * 27}8.b.d.f.ip6.arpa") == "fdb8::1"
    assert message.pointed_at("one") == ""


def test_names_on_the_wire() -> None:
    assert message.encode_name("one.mine") == b"\3one\4mine\0"
    assert message.encode_name("x" * 70) == b"\x3f" + b"x" * 63 + b"\0"
