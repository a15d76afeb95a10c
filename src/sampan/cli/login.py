"""`login` and `logout`."""

from __future__ import annotations

import argparse
import sys

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.credentials import Config, server_of
from sampan.errors import InvalidArgument

FAILURE = 1


def parser(name: str) -> Parser:
    if name == "logout":
        made = Parser(name, "[SERVER]", "Log out from a registry", 1)
    else:
        made = Parser(name, "[OPTIONS] [SERVER]", "Authenticate to a registry", 1)
        made.add_argument("-u", "--username", default="", help="the user's name")
        made.add_argument("-p", "--password", help="the password or token: others can see it in the list of processes")
        made.add_argument("--password-stdin", action="store_true", help="take the password from standard input")
    made.add_argument("server", nargs="?", default="", metavar="SERVER")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    server = server_of(flags.server)
    if name == "logout":
        print(f"Removing login credentials for {server}")
        if not Config().erase(server):
            print(f"Not logged in to {server}")
        return 0
    return _login(context, flags, server)


def _login(context: Context, flags: argparse.Namespace, server: str) -> int:
    config = Config()
    given = _given(flags, config.get(server))
    answer = context.client.call("POST", "/auth", {**given, "serveraddress": server})
    identity = answer.get("IdentityToken", "")
    helper = config.store(server, given["username"], given["password"], identity or given.get("identitytoken", ""))
    if not helper and not identity:
        print(
            f"WARNING! Your credentials are stored unencrypted in '{config.path}'.\n"
            "Configure a credential helper to remove this warning.", file=sys.stderr,
        )  # fmt: skip
    print(answer.get("Status", "Login Succeeded"))
    return 0


def _given(flags: argparse.Namespace, kept: dict[str, str]) -> dict[str, str]:
    """The name and the password: from the flags, from what is kept, or from the person."""
    if flags.password_stdin:
        if flags.password is not None:
            raise InvalidArgument("--password and --password-stdin are mutually exclusive")
        if not flags.username:
            raise InvalidArgument("the --password-stdin option requires --username")
        password = sys.stdin.read().rstrip("\r\n")
        if not password:
            raise InvalidArgument("password is empty")
        return {"username": flags.username, "password": password}
    if flags.password is not None:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
        if not flags.username:
            raise InvalidArgument("the --password option requires --username")
        return {"username": flags.username, "password": flags.password}
    if not flags.username and (kept.get("password") or kept.get("identitytoken")):
        return {"username": "", "password": "", **kept}
    if not sys.stdin.isatty():
        raise InvalidArgument("cannot perform an interactive login from a non TTY device")
    import getpass

    default = kept.get("username", "")
    username = flags.username or input(f"Username ({default}): " if default else "Username: ").strip() or default
    password = getpass.getpass("Password: ")
    if not username or not password:
        raise InvalidArgument("username and password are required" if username or password else "nothing was given")
    return {"username": username, "password": password}
