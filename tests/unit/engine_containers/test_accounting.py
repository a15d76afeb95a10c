"""Which part of the data root a path belongs to, and which volume would take a file."""

from __future__ import annotations

import pytest

from sampan.engine.accounting import advise, home, place

_ID = "a" * 64


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"content/blobs/sha256/{_ID}", ("content", f"sha256:{_ID}", f"content/blobs/sha256/{_ID}")),
        ("content/ingest/1", ("transfer", "1", "content/ingest/1")),
        ("content/blobs", ("engine", "engine", ".")),
        ("content/oci-layout", ("engine", "engine", ".")),
        ("overlay2", ("engine", "engine", ".")),
        ("overlay2/l/ABC", ("engine", "engine", ".")),
        (f"overlay2/{_ID}", ("layer", _ID, f"overlay2/{_ID}")),
        (f"overlay2/{_ID}/diff/state.db", ("layer", _ID, f"overlay2/{_ID}")),
        (f"containers/{_ID}", ("container", _ID, f"containers/{_ID}")),
        (f"containers/{_ID}/config.json", ("container", _ID, f"containers/{_ID}")),
        (f"containers/{_ID}/{_ID}-json.log.1", ("log", _ID, f"containers/{_ID}/{_ID}-json.log")),
        ("volumes/v/_data/x", ("volume", "v", "volumes/v")),
        ("volumes/.removed-v/_data", ("trash", ".removed-v", "volumes/.removed-v")),
        ("tmp/x", ("transfer", "x", "tmp/x")),
        ("state.db-wal", ("database", "state.db", "state.db")),
        ("engine.lock", ("engine", "engine", ".")),
        ("mine/x", ("other", "mine", "mine")),
    ],
)
def test_place(path: str, expected: tuple[str, str, str]) -> None:
    assert place(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("var/lib/postgresql/data/base/1", "var/lib/postgresql"),
        ("var/lib/file", "var/lib"),
        ("var/log/nginx/access.log", "var/log/nginx"),
        ("var/log/messages", "var/log"),
        ("home/user/x/y", "home/user"),
        ("data/db/x", "data"),
        ("tmp/a/b", "tmp"),
        ("etc/app/state/x", "etc/app/state"),
        ("file", ""),
    ],
)
def test_home(path: str, expected: str) -> None:
    assert home(path) == expected


def test_advice_puts_what_grows_first() -> None:
    found = [("var/lib/db/a", 100, 0), ("var/lib/db/b", 100, 10), ("opt/app/cache/x", 5000, 0), ("top", 9999, 9999)]
    first, second = advise("web", found)
    assert (first.directory, first.size, first.grown, first.option) == ("/var/lib/db", 200, 10, "-v web-db:/var/lib/db")
    assert second.option == "-v web-app:/opt/app"
    assert advise("web", [("we ird/ä/x", 1, 0)])[0].option == "-v web-we_ird:/we ird"
    assert advise("web", []) == ()
