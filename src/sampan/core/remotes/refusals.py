"""What a registry's refusal means: its status and its error document (distribution-spec, error codes) as our kinds."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping

import msgspec

from sampan.errors import Forbidden, InvalidArgument, NotFound, SampanError, Unauthorized, Unavailable, Unsupported

MAX_ERROR = 64 << 10
_LONGEST = 500
_DENIED = "denied: requested access to the resource is denied"
_KINDS: dict[int, type[SampanError]] = {
    400: InvalidArgument, 405: Unsupported, 416: InvalidArgument,
}  # fmt: skip


class RateLimited(Unavailable):
    """Too many requests. `rest`: seconds until the registry would have another one, 0 if it does not say."""

    rest: float = 0.0


class ServerStumbled(Unavailable):
    """The registry failed at something that may work in a moment."""


class NotThere(NotFound):
    """The registry has no such thing. `code`: of the specification, such as NAME_UNKNOWN, or empty."""

    code: str = ""


class TooLarge(InvalidArgument):
    """A body has more bytes than the registry, or what stands before it, takes at once."""


class _Error(msgspec.Struct, frozen=True):
    code: str = ""
    message: str | None = ""


class _Errors(msgspec.Struct, frozen=True):
    errors: tuple[_Error, ...] | None = ()
    details: str = ""


def error_text(body: bytes) -> tuple[str, str]:
    """The first error's code and Docker's line for all of them; both empty for what is no error document."""
    try:
        document = msgspec.json.decode(body, type=_Errors)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", ""
    errors = document.errors or ()
    lines = [f"{each.code.lower().replace('_', ' ')}: {each.message or each.code.lower()}" for each in errors]
    return (errors[0].code if errors else ""), (", ".join(lines) or document.details)[:_LONGEST]


def refusal(method: str, url: str, status: int, headers: Mapping[str, str], body: bytes) -> SampanError:
    """The error for an answer that is none of those that were hoped for."""
    code, text = error_text(body)
    if status == 429:
        return _too_many(text, headers.get("Retry-After", ""))
    if status == 401:
        challenge = headers.get("WWW-Authenticate", "")
        if 'error="insufficient_scope"' in challenge or code == "DENIED":
            return Forbidden(_DENIED if code != "DENIED" else text)
        return Unauthorized(text or "unauthorized: authentication required")
    if status == 403:
        return Forbidden(text or _DENIED)
    where = f'{method.capitalize()} "{url.partition("?")[0]}": '
    if status in (408, 500, 502, 503, 504):
        return ServerStumbled(f"{where}received unexpected HTTP status: {status}{f' ({text})' if text else ''}")
    if status == 404:
        missing = NotThere(text or "manifest unknown: manifest unknown")
        missing.code = code
        return missing
    if status == 413:
        return TooLarge(f"{where}{text or 'the registry takes no body so large'}")
    kind = _KINDS.get(status, Unavailable)
    return kind(text) if text else kind(f"{where}received unexpected HTTP status: {status}")


def _too_many(text: str, retry_after: str) -> RateLimited:
    rest = seconds(retry_after)
    text = text or "toomanyrequests: too many requests to the registry"
    if rest:
        text += f" (try again in {_spoken(rest)})"
    error = RateLimited(text)
    error.rest = rest
    return error


def seconds(retry_after: str) -> float:
    """The `Retry-After` header, RFC 9110 10.2.3: a number of seconds, or a date."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _spoken(rest: float) -> str:
    if rest < 120:
        return f"{rest:.0f} seconds"
    return f"{rest / 60:.0f} minutes" if rest < 7200 else f"{rest / 3600:.0f} hours"
