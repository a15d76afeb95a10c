"""Who is known to whom, by which names."""

from __future__ import annotations

from sampan.resolver.control import Place, Serve
from sampan.resolver.message import AAAA, PTR, A, parse
from sampan.resolver.zone import Zone, answer
from tests.e2e.dns import Answer, question


def asked(zone: Zone, serve: Serve, name: str, kind: int = A) -> list[str] | None:
    said = answer(zone, serve, parse(question(name, kind)))
    return None if said is None else Answer(said).addresses


def test_by_every_name_on_its_networks_only() -> None:
    zone = Zone()
    zone.put("a", (Place("one", ("10.0.1.2", "fd00::2"), ("Alpha", "shared")), Place("two", ("10.0.2.2",), ("Alpha",))))
    zone.put("b", (Place("one", ("10.0.1.3",), ("beta", "shared")),))
    on_one = Serve(sandbox="b", places=(Place("one", (), ()),), links={"nick": "ALPHA"})
    on_both = Serve(sandbox="c", places=(Place("two", (), ()), Place("one", (), ())))
    assert asked(zone, on_one, "alpha") == asked(zone, on_one, "ALPHA.one") == ["10.0.1.2"]
    assert asked(zone, on_one, "nick") == ["10.0.1.2"]
    assert asked(zone, on_one, "alpha", AAAA) == ["fd00::2"]
    assert asked(zone, on_one, "beta", AAAA) == []
    assert asked(zone, on_one, "shared") == ["10.0.1.2", "10.0.1.3"]
    assert asked(zone, on_both, "alpha") == ["10.0.2.2"]
    assert asked(zone, on_one, "alpha.two") is None
    assert asked(zone, Serve(sandbox="d", places=(Place("two", (), ()),)), "beta") is None
    assert answer(zone, on_one, parse(question("3.1.0.10.in-addr.arpa", PTR))) is not None
    assert answer(zone, on_one, parse(question("2.2.0.10.in-addr.arpa", PTR))) is None


def test_what_has_gone_leaves_nothing() -> None:
    zone = Zone()
    empty = vars(Zone()).copy()
    zone.put("a", (Place("one", ("10.0.1.2",), ("alpha", "shared")),))
    zone.put("b", (Place("one", ("10.0.1.3",), ("shared",)),))
    zone.put("a", (Place("one", ("10.0.1.4",), ("other",)),))
    on_one = Serve(sandbox="b", places=(Place("one", (), ()),))
    assert asked(zone, on_one, "alpha") is None
    assert asked(zone, on_one, "shared") == ["10.0.1.3"]
    # An address may be the next one's before the former has gone.
    zone.put("c", (Place("one", ("10.0.1.4",), ("new",)),))
    zone.remove("a")
    assert zone.pointer(["one"], "10.0.1.4") == "new.one"
    for name in ("a", "b", "c"):
        zone.remove(name)
    assert vars(zone) == empty
