"""`context …`: Docker's contexts, engines by name."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile

from sampan.cli import contexts
from sampan.cli.arguments import Parser, add_format
from sampan.cli.context import DEFAULT_SOCKET, Context
from sampan.cli.groups import Command, run_group
from sampan.cli.listing import Row, print_rows
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FAILURE = 1
_TITLES = {
    "Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR",
    "Current": "CURRENT",
}  # fmt: skip
_OVERRIDDEN = (
    "Warning: {} environment variable overrides the active context. To use a context, either set the global "
    "--context flag, or unset {} environment variable."
)
_WRONG_FILE = "unexpected file in context: {}"


def _default_host(context: Context) -> str:
    options = context.options
    environment = os.environ.get("SAMPAN_HOST", "") or os.environ.get("DOCKER_HOST", "")
    return options.host or environment or f"unix://{DEFAULT_SOCKET}"


def _list(words: list[str], context: Context) -> int:
    made = Parser("context ls", "[OPTIONS]", "List contexts", 1)
    made.add_argument("-q", "--quiet", action="store_true", help="names only")
    add_format(made)
    flags = made.parse_args(words)
    current = context.name
    rows = [_row(contexts.DEFAULT, "Current DOCKER_HOST based configuration", _default_host(context), current)]
    for name in contexts.names():
        try:
            kept = contexts.endpoint(name)
            rows.append(_row(name, kept.description, kept.host, current))
        except SampanError as error:
            rows.append(_row(name, "", "", current, error.message))
    if current not in [row["Name"] for row in rows]:
        missing = f'context "{current}": context not found'
        rows.append(_row(current, "", "", current, missing))
    rows.sort(key=lambda row: row["Name"])
    if flags.quiet:
        print("\n".join(row["Name"] for row in rows))
        _warn_of_environment()
        return 0
    if flags.format in ("", "table") or flags.format.startswith("table"):
        for row in rows:
            row["Name"] += " *" if row["Current"] else ""
    print_rows(rows, _TITLES, ("Name", "Description", "DockerEndpoint", "Error"), flags.format)
    _warn_of_environment()
    return 0


def _warn_of_environment() -> None:
    for variable in ("SAMPAN_HOST", "DOCKER_HOST"):
        if os.environ.get(variable):
            print(_OVERRIDDEN.format(variable, variable), file=sys.stderr)
            return


def _row(name: str, description: str, host: str, current: str, error: str = "") -> Row:
    return Row(
        Name=name, Description=description, DockerEndpoint=host, Error=error, Current=name == current
    )  # fmt: skip


def _show(words: list[str], context: Context) -> int:
    Parser("context show", "", "Print the name of the current context", 1).parse_args(words)
    print(context.name)
    return 0


def _use(words: list[str], context: Context) -> int:
    made = Parser("context use", "CONTEXT", "Set the current docker context", 1)
    made.add_argument("context", metavar="CONTEXT")
    name = made.parse_args(words).context
    contexts.use(name)
    print(name)
    print(f'Current context is now "{name}"', file=sys.stderr)
    _warn_of_environment()
    return 0


def _document(context: Context, name: str) -> dict[str, Any]:
    if name == contexts.DEFAULT:
        return {
            "Name": name, "Metadata": {},
            "Endpoints": {"docker": {"Host": _default_host(context), "SkipTLSVerify": False}},
            "TLSMaterial": {}, "Storage": {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"},
        }  # fmt: skip
    kept = contexts.endpoint(name)
    return {
        **contexts.metadata(name),
        "TLSMaterial": {"docker": [f"{each}.pem" for each in contexts.TLS_FILES if each in kept.files]}
        if kept.files else {},
        "Storage": {"MetadataPath": contexts.metadata_path(name), "TLSPath": contexts.tls_path(name)},
    }  # fmt: skip


def _inspect(words: list[str], context: Context) -> int:
    made = Parser("context inspect", "[OPTIONS] [CONTEXT] [CONTEXT...]", "Display detailed information on contexts", 1)
    made.add_argument("-f", "--format", default="", help="json, or a Go template")
    made.add_argument("names", nargs="*", metavar="CONTEXT")
    flags = made.parse_args(words)
    found, status = [], 0
    for name in flags.names or [context.name]:
        try:
            found.append(_document(context, name))
        except SampanError as error:
            print(f"sampan: {error.message}", file=sys.stderr)
            status = 1
    if flags.format:
        from sampan.cli.template import render

        for each in found:
            print(render(flags.format, each))
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    return status


def _settings_parser(name: str, text: str) -> Parser:
    made = Parser(f"context {name}", "[OPTIONS] CONTEXT", text, 1)
    made.add_argument("--description", default="", help="what it is for")
    made.add_argument(
        "--docker", default="", help="host=HOST,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL, or from=CONTEXT"
    )
    made.add_argument("context", metavar="CONTEXT")
    return made


def _endpoint(words: str, start: dict[str, str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A context's engine from what a person says, and what TLS with it needs."""
    given = contexts.parse_endpoint(words) or start
    if source := given.get("from"):
        if source == contexts.DEFAULT:
            host = os.environ.get("SAMPAN_HOST") or os.environ.get("DOCKER_HOST") or f"unix://{DEFAULT_SOCKET}"
            return {"Host": host, "SkipTLSVerify": False}, {}
        kept = contexts.endpoint(source)
        return {"Host": kept.host, "SkipTLSVerify": kept.skip_verify}, contexts.read_files(kept.files.items())
    from sampan.client.client import parse_host

    parse_host(given.get("host") or f"unix://{DEFAULT_SOCKET}")
    skip = given.get("skip-tls-verify", "").lower() in ("true", "1", "t")
    files = contexts.read_files((each, given[each]) for each in contexts.TLS_FILES if given.get(each))
    return {"Host": given.get("host", ""), "SkipTLSVerify": skip}, files


def _create(words: list[str], context: Context) -> int:
    made = _settings_parser("create", "Create a context")
    made.add_argument("--from", dest="source", default="", help="a context to copy")
    flags = made.parse_args(words)
    start = {"from": flags.source} if flags.source else {}
    if not flags.docker and not start:
        raise InvalidArgument("docker endpoint configuration is required")
    endpoint, files = _endpoint(flags.docker, start)
    contexts.save(flags.context, flags.description, endpoint, files, new=True)
    print(flags.context)
    print(f'Successfully created context "{flags.context}"', file=sys.stderr)
    return 0


def _update(words: list[str], context: Context) -> int:
    flags = _settings_parser("update", "Update a context").parse_args(words)
    contexts.check_name(flags.context)
    endpoint = contexts.metadata(flags.context).get("Endpoints", {}).get("docker", {})
    files: dict[str, bytes] = {}
    if flags.docker:
        endpoint, files = _endpoint(flags.docker, {})
    contexts.save(flags.context, flags.description, endpoint, files, new=False)
    print(flags.context)
    print(f'Successfully updated context "{flags.context}"', file=sys.stderr)
    return 0


def _remove(words: list[str], context: Context) -> int:
    made = Parser("context rm", "[OPTIONS] CONTEXT [CONTEXT...]", "Remove one or more contexts", 1)
    made.add_argument("-f", "--force", action="store_true", help="the current one too, and no error if it is not there")
    made.add_argument("names", nargs="+", metavar="CONTEXT")
    flags = made.parse_args(words)
    status = 0
    for name in flags.names:
        try:
            if name == contexts.DEFAULT:
                raise InvalidArgument('context "default" cannot be removed')
            if name == contexts.settings().get("currentContext"):
                if not flags.force:
                    raise Conflict(f'context "{name}" is in use, set -f flag to force remove')
                contexts.use(contexts.DEFAULT)
            contexts.remove(name)
            print(name)
        except SampanError as error:
            if flags.force and isinstance(error, NotFound):
                continue
            print(f"sampan: {error.message}", file=sys.stderr)
            status = 1
    return status


def _export(words: list[str], context: Context) -> int:
    made = Parser("context export", "CONTEXT [FILE|-]", "Export a context to a tar archive FILE or a tar stream", 1)
    made.add_argument("context", metavar="CONTEXT")
    made.add_argument("file", nargs="?", default="", metavar="FILE|-")
    flags = made.parse_args(words)
    contexts.check_name(flags.context)
    kept, buffer = contexts.endpoint(flags.context), io.BytesIO()
    members = {"meta.json": json.dumps(contexts.metadata(flags.context), separators=(",", ":")).encode()}
    members |= {f"tls/docker/{each}.pem": data for each, data in contexts.read_files(kept.files.items()).items()}
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    if flags.file == "-":
        if sys.stdout.isatty():
            raise InvalidArgument("cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.buffer.write(buffer.getvalue())
        return 0
    path = flags.file or f"{flags.context}.dockercontext"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(buffer.getvalue())
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from error
    print(f'Written file "{path}"')
    return 0


def _import(words: list[str], context: Context) -> int:
    made = Parser("context import", "CONTEXT FILE|-", "Import a context from a tar file", 1)
    made.add_argument("context", metavar="CONTEXT")
    made.add_argument("file", metavar="FILE|-")
    flags = made.parse_args(words)
    contexts.check_name(flags.context)
    data = sys.stdin.buffer.read() if flags.file == "-" else contexts.read_files([("x", flags.file)])["x"]
    document: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    try:
        # Docker's command leaves out the blanks that end an archive.
        with tarfile.open(fileobj=io.BytesIO(data + bytes(tarfile.BLOCKSIZE * 3)), mode="r:*") as archive:
            for entry in archive:
                found = archive.extractfile(entry) if entry.isfile() else None
                if found is None:
                    continue
                key = entry.name.removeprefix("tls/docker/").removesuffix(".pem")
                if entry.name == "meta.json":
                    document = json.loads(found.read())
                elif key in contexts.TLS_FILES and entry.name == f"tls/docker/{key}.pem":
                    files[key] = found.read()
                else:
                    raise InvalidArgument(_WRONG_FILE.format(entry.name))
        endpoint = document["Endpoints"]["docker"]
        description = str((document.get("Metadata") or {}).get("Description", ""))
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"{flags.file}: it is no context: {error}") from error
    contexts.save(flags.context, description, endpoint, files, new=True)
    print(flags.context)
    print(f'Successfully imported context "{flags.context}"', file=sys.stderr)
    return 0


COMMANDS: dict[str, Command] = {
    "create": _create, "export": _export, "import": _import, "inspect": _inspect, "ls": _list, "list": _list,
    "rm": _remove, "remove": _remove, "show": _show, "update": _update, "use": _use,
}  # fmt: skip


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
