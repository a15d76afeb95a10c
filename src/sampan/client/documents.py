"""What the typed clients send and get: the API's documents, read as Go reads them.

Another engine may leave out what ours always sends, or send null where ours has an empty list: Go takes either for the
type's zero, and so does `decode`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from sampan.api.container_documents import ContainerInspect, ContainerSummary
from sampan.api.containers import APIStruct, ContainerConfig, HostConfig
from sampan.api.images import DiskUsage, RegistryAuth
from sampan.api.volumes import VolumeDocument
from sampan.errors import DataCorrupt, SampanError

T = TypeVar("T")
Filters = Mapping[str, str | bool | Sequence[str]]
"""Each filter with one value or several."""


class ContainerDetails(ContainerInspect, frozen=True, kw_only=True):
    """`GET /containers/{id}/json`, with its two configurations."""

    config: ContainerConfig  # type: ignore[assignment]  # the engine sends it encoded
    host_config: HostConfig  # type: ignore[assignment]


class Usage(DiskUsage, frozen=True, kw_only=True):
    """`GET /system/df`. Bytes."""

    containers: tuple[ContainerSummary, ...] | None = None  # type: ignore[assignment]  # the engine sends it encoded
    volumes: tuple[VolumeDocument, ...] | None = None  # type: ignore[assignment]


class PathStat(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A path in a container. `mode`: as Go's `os.FileMode`. `mtime`: RFC 3339."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str = ""

    @property
    def is_directory(self) -> bool:
        return bool(self.mode & 1 << 31)


class Progress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message of a pull, push, load or import. Bytes."""

    status: str = ""
    id: str = ""
    stream: str = ""
    progress_detail: dict[str, Any] = {}
    aux: dict[str, Any] = {}
    error: str = ""


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class Output(msgspec.Struct, frozen=True):
    """A piece of a process's output. `stream`: 1 is its standard output, 2 its standard error."""

    stream: int
    data: bytes


class Completed(msgspec.Struct, frozen=True):
    """A process that has ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    def check(self) -> Completed:
        """Itself. Raises ExitedWith unless the status is 0."""
        if self.exit_code:
            raise ExitedWith(self)
        return self


class ExitedWith(SampanError):
    """A process ended with another status than 0."""

    def __init__(self, completed: Completed) -> None:
        last = (completed.stderr or completed.stdout).decode("utf-8", "replace").strip().rpartition("\n")[2]
        super().__init__(f"exit status {completed.exit_code}" + (f": {last}" if last else ""))
        self.completed = completed


def encode(document: APIStruct) -> bytes:
    """As JSON."""
    return msgspec.json.encode(document)


def decode(data: bytes, kind: type[T]) -> T:
    """Raises DataCorrupt."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        pass
    except msgspec.DecodeError as error:
        raise DataCorrupt(f"the engine's answer does not decode: {error}") from error
    try:
        return msgspec.convert(_filled(msgspec.json.decode(data), msgspec.inspect.type_info(kind)), kind)
    except msgspec.ValidationError as error:
        raise DataCorrupt(f"the engine's answer is no {getattr(kind, '__name__', kind)}: {error}") from error


def decode_header(text: str, kind: type[T]) -> T:
    """JSON in a header, as base64. Raises DataCorrupt."""
    try:
        return decode(base64.b64decode(text), kind)
    except ValueError as error:
        raise DataCorrupt(f"the engine's header does not decode: {error}") from error


_ZEROS: tuple[tuple[type[msgspec.inspect.Type], Any], ...] = (
    (msgspec.inspect.StrType, ""), (msgspec.inspect.IntType, 0), (msgspec.inspect.FloatType, 0.0),
    (msgspec.inspect.BoolType, False), (msgspec.inspect.BytesType, ""),
)  # fmt: skip


def _filled(value: Any, kind: msgspec.inspect.Type) -> Any:
    """The value, with a zero for what is absent or null and may not be."""
    if isinstance(kind, msgspec.inspect.UnionType):
        if value is None:
            return None if any(isinstance(each, msgspec.inspect.NoneType) for each in kind.types) else _filled_as(kind)
        whole = [each for each in kind.types if _fits(value, each)]
        return _filled(value, whole[0]) if whole else value
    if value is None:
        return _zero(kind)
    if isinstance(kind, msgspec.inspect.StructType) and isinstance(value, dict):
        return _filled_members(value, kind)
    if isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType) and isinstance(value, list):
        return [_filled(each, kind.item_type) for each in value]
    if isinstance(kind, msgspec.inspect.DictType) and isinstance(value, dict):
        return {name: _filled(each, kind.value_type) for name, each in value.items()}
    return value


def _filled_members(value: dict[str, Any], kind: msgspec.inspect.StructType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for member in kind.fields:
        name = member.encode_name
        if name in value and (value[name] is not None or _is_nullable(member.type)):
            found[name] = _filled(value[name], member.type)
        elif member.required:
            found[name] = _zero(member.type)
    return found


def _is_nullable(kind: msgspec.inspect.Type) -> bool:
    types = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return any(isinstance(each, msgspec.inspect.NoneType | msgspec.inspect.AnyType) for each in types)


def _fits(value: Any, kind: msgspec.inspect.Type) -> bool:
    if isinstance(value, dict):
        return isinstance(kind, msgspec.inspect.StructType | msgspec.inspect.DictType)
    if isinstance(value, list):
        return isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType)
    return False


def _filled_as(kind: msgspec.inspect.UnionType) -> Any:
    return _zero(next(each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType)))


def _zero(kind: msgspec.inspect.Type) -> Any:
    if isinstance(kind, msgspec.inspect.UnionType):
        return None if _is_nullable(kind) else _filled_as(kind)
    if isinstance(kind, msgspec.inspect.StructType):
        return _filled_members({}, kind)
    if isinstance(kind, msgspec.inspect.DictType):
        return {}
    if isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType | msgspec.inspect.TupleType):
        return []
    return next((zero for each, zero in _ZEROS if isinstance(kind, each)), None)


def auth_header(auth: RegistryAuth | None) -> dict[str, str]:
    """`X-Registry-Auth`."""
    if auth is None:
        return {}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(msgspec.json.encode(auth)).decode()}


def as_filters(given: Filters | None) -> dict[str, list[str]] | None:
    """As the API takes them."""
    if not given:
        return None
    return {name: [_text(each) for each in _several(value)] for name, value in given.items()}


def _several(value: str | bool | Sequence[str]) -> Sequence[str | bool]:
    return [value] if isinstance(value, str | bool) else value


def _text(value: str | bool) -> str:
    return value if isinstance(value, str) else "true" if value else "false"
