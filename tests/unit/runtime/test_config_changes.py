"""Whatever becomes of a config.json, it is planned, or refused by one clear line; nothing else escapes."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sampan.errors import SampanError
from sampan.oci.runtime import (
    Linux,
    Namespace,
    Process,
    Root,
    Seccomp,
    Spec,
    Syscall,
    SyscallArg,
)
from sampan.runtime import seccomp
from sampan.runtime.container import decode_config
from sampan.runtime.plan import plan
from sampan.runtime.process import checked_process, inherited
from tests.unit.runtime.changes import ANYTHING, FULL, NUMBERS, VALUES, Json, changed, places

PLACES = list(places(FULL))[1:]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("state")


def taken(content: bytes, cache: pathlib.Path) -> bool:
    """Whether the configuration is one; if not, it says so in one line."""
    try:
        spec = decode_config(content, "/bundle")
        made = plan(spec, "id", "/bundle")
        assert spec.process is not None
        checked_process(inherited(spec.process, made.process))
        seccomp.compiled(made.confinement.seccomp, str(cache))
    except SampanError as error:
        assert error.message
        assert error.message.isprintable()
        return False
    return True


def test_all_that_there_is_is_taken(cache: pathlib.Path) -> None:
    assert taken(json.dumps(FULL).encode(), cache)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
@example(changes=[(("process", "user", "uid"), 1 << 32)])
@example(changes=[(("process", "args"), ["a\nb"]), (("process", "cwd"), "x\ny")])
def test_any_change_is_planned_or_refused(
    cache: pathlib.Path, changes: list[tuple[tuple[str | int, ...], Json]]
) -> None:
    document = FULL
    for path, new in changes:
        document = changed(document, path, new)
    taken(json.dumps(document).encode(), cache)


@pytest.mark.parametrize("new", ANYTHING, ids=repr)
def test_any_member_can_be_anything(cache: pathlib.Path, new: Json) -> None:
    for path in PLACES:
        taken(json.dumps(changed(FULL, path, new)).encode(), cache)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 4000), length=st.integers(0, 40), new=st.binary(max_size=20))
def test_any_bytes_in_it(cache: pathlib.Path, start: int, length: int, new: bytes) -> None:
    whole = json.dumps(FULL).encode()
    taken(whole[:start] + new + whole[start + length :], cache)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
@example(data=b"")
@example(data=b"[" * 100_000)
@example(data=b'{"ociVersion":"1.0.0","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
@example(data=b'{"ociVersion":"\\udc80"}')
@example(data=b'{"ociVersion":' + b"9" * 10_000 + b"}")
def test_any_bytes(cache: pathlib.Path, data: bytes) -> None:
    assert not taken(data, cache)


# --- Profiles ---------------------------------------------------------------------------

ACTIONS = st.sampled_from(
    tuple(f"SCMP_ACT_{name}" for name in ("KILL", "TRAP", "ERRNO", "TRACE", "LOG", "ALLOW", "NOTIFY", "KILL_PROCESS"))
)
ARGUMENTS = st.builds(
    SyscallArg, index=st.integers(-1, 6), value=NUMBERS | st.integers(0, 9), value_two=st.integers(0, 9),
    op=st.sampled_from(tuple(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ", "X"))),
)  # fmt: skip
NAMES = st.lists(st.sampled_from(("read", "mkdir", "kill", "socketcall", "write", "sendmsg", "nope", "")), max_size=4)
PROFILES = st.builds(
    Seccomp, default_action=ACTIONS, default_errno_ret=st.none() | st.integers(-1, 5000),
    architectures=st.lists(
        st.sampled_from(tuple(f"SCMP_ARCH_{name}" for name in ("X86_64", "X86", "X32", "ARM", "AARCH64", "MIPS"))),
        max_size=4,
    ).map(tuple),
    listener_path=st.sampled_from(("", "/agent", "agent")),
    syscalls=st.lists(
        st.builds(
            Syscall, names=NAMES.map(tuple), action=ACTIONS, errno_ret=st.none() | st.integers(-1, 5000),
            args=st.lists(ARGUMENTS, max_size=3).map(tuple),
        ),
        max_size=4,
    ).map(tuple),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(profile=PROFILES)
def test_any_profile_is_compiled_or_refused(cache: pathlib.Path, profile: Seccomp) -> None:
    linux = Linux(namespaces=(Namespace(type="mount"),), seccomp=profile)
    spec = Spec(oci_version="1.0.0", root=Root(path="r"), process=Process(cwd="/", args=("a",)), linux=linux)
    try:
        program = seccomp.compiled(plan(spec, "id", "/bundle").confinement.seccomp, str(cache))
    except SampanError as error:
        assert error.message
        return
    assert 0 < len(program) <= 4096 * 8
    assert len(program) % 8 == 0
