"""The error taxonomy: one class per kind. This module imports nothing of the project.

A kind crosses process boundaries as itself: `kind_of` names it for the wire and `from_kind` makes it
again on the other side. The engine maps kinds to HTTP status in one table (`engine/http/errors.py`), and only
`cli` turns one into an exit status. `linux` raises plain `OSError`; whoever knows what the call was for
translates it here.

Messages are lower case, name the id or path concerned, and use Docker's wording where its clients match on it.
"""


class SampanError(Exception):
    """The base of every error that a user can meet. The message is one line, meant for a person."""

    @property
    def message(self) -> str:
        """What it names may come from anywhere: it adds no line, and nothing that a terminal would obey."""
        text = str(self.args[0]) if self.args else type(self).__name__
        if text.isprintable():
            return text
        return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class InvalidArgument(SampanError):
    """The request is wrong in itself, whatever the state of the world (HTTP 400)."""


class Unauthorized(SampanError):
    """No credentials, or wrong ones (HTTP 401)."""


class Forbidden(SampanError):
    """Known, and not allowed (HTTP 403)."""


class NotFound(SampanError):
    """The object named does not exist (HTTP 404)."""


class Conflict(SampanError):
    """The state of the object forbids it: a name in use, a container still running (HTTP 409)."""


class NotModified(SampanError):
    """What was asked for is so already: starting a running container (HTTP 304, no body)."""


class Unsupported(SampanError):
    """Asked for by name, and not done by this version or this kernel (HTTP 501)."""


class Unavailable(SampanError):
    """A peer that is needed does not answer: a registry, a shim, the spawner (HTTP 503)."""


class ResourceExhausted(SampanError):
    """Disk full, no free address, no free port, too many of something (HTTP 500, as Docker answers)."""


class DataCorrupt(SampanError):
    """Bytes that do not hash to their digest, or a document that does not decode (HTTP 500)."""


class Internal(SampanError):
    """A failure with no better name (HTTP 500)."""


class CommandNotFound(InvalidArgument):
    """The program to run does not exist in the container (HTTP 400, exit status 127)."""


class CommandNotExecutable(InvalidArgument):
    """The program to run exists and cannot be executed (HTTP 400, exit status 126)."""


_KINDS: dict[str, type[SampanError]] = {
    kind.__name__: kind
    for kind in (
        InvalidArgument, Unauthorized, Forbidden, NotFound, Conflict, NotModified, Unsupported, Unavailable,
        ResourceExhausted, DataCorrupt, Internal, CommandNotFound, CommandNotExecutable,
    )
}  # fmt: skip


def kind_of(error: BaseException) -> str:
    """The wire name of an error's kind; `Internal` for whatever is not of this taxonomy."""
    name = type(error).__name__
    return name if name in _KINDS else "Internal"


def from_kind(kind: str, message: str) -> SampanError:
    """The error that `kind_of` named, made again; an unknown kind becomes `Internal`."""
    return _KINDS.get(kind, Internal)(message)
