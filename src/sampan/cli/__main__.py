"""The `sampan` command: finds the command's module by a table, and imports nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sampan.errors import InvalidArgument, SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.context import Context

COMMANDS = {
    "run": ("run", "Create and run a new container from an image"),
    "exec": ("exec", "Execute a command in a running container"),
    "ps": ("ps", "List containers"),
    "create": ("run", "Create a new container"),
    "start": ("start", "Start one or more stopped containers"),
    "stop": ("lifecycle", "Stop one or more running containers"),
    "restart": ("lifecycle", "Restart one or more containers"),
    "kill": ("lifecycle", "Kill one or more running containers"),
    "rm": ("lifecycle", "Remove one or more containers"),
    "pause": ("lifecycle", "Pause all processes within one or more containers"),
    "unpause": ("lifecycle", "Unpause all processes within one or more containers"),
    "wait": ("lifecycle", "Block until one or more containers stop, then print their exit codes"),
    "rename": ("lifecycle", "Rename a container"),
    "update": ("update", "Change the configuration of one or more containers"),
    "attach": ("start", "Attach to a running container"),
    "logs": ("logs", "Fetch the logs of a container"),
    "top": ("top", "Display the running processes of a container"),
    "cp": ("cp", "Copy files between a container and this machine"),
    "stats": ("stats", "Display what containers use, from second to second"),
    "port": ("top", "List port mappings of a container"),
    "inspect": ("inspect", "Return low-level information on objects"),
    "commit": ("files", "Create a new image from a container's changes"),
    "diff": ("files", "Inspect changes to files or directories on a container's filesystem"),
    "export": ("files", "Export a container's filesystem as a tar archive"),
    "images": ("images", "List images"),
    "rmi": ("images", "Remove one or more images"),
    "tag": ("images", "Create a tag that refers to an image"),
    "history": ("images", "Show the history of an image"),
    "pull": ("transfer", "Download an image from a registry"),
    "push": ("transfer", "Upload an image to a registry"),
    "search": ("search", "Search Docker Hub, or another registry, for images"),
    "manifest": ("manifest", "Look at what a registry has under a name"),
    "login": ("login", "Authenticate to a registry"),
    "logout": ("login", "Log out from a registry"),
    "import": ("transfer", "Import a tar of a file system to create an image"),
    "load": ("transfer", "Load images from a tar archive"),
    "save": ("transfer", "Save images to a tar archive"),
    "image": ("image", "Manage images"),
    "container": ("container", "Manage containers"),
    "volume": ("volume", "Manage volumes"),
    "network": ("network", "Manage networks"),
    "system": ("system", "Manage the engine"),
    "generate": ("generate", "Write what other programs need to run containers"),
    "context": ("context_command", "Manage contexts: engines by name"),
    "version": ("system", "Show the version information"),
    "info": ("system", "Display system-wide information"),
    "events": ("system", "Get real time events from the engine"),
    "completion": ("completion", "Print what a shell needs to complete command lines"),
    "daemon": ("daemon", "Run the engine in the foreground"),
}
"""Command: the module in this package that has it, and what it does."""

HIDDEN = {"__complete": ("completion", "What could come next on a command line")}

USAGE = "Usage:  sampan [OPTIONS] COMMAND"
OPTIONS = (
    (("--config",), "DIR", "Directory of config.json and contexts (DOCKER_CONFIG, ~/.docker)"),
    (("-c", "--context"), "NAME", "Context to use, instead of DOCKER_HOST and the current one"),
    (("-D", "--debug"), "", "Without effect"),
    (("-H", "--host"), "HOST", "Engine: unix:///PATH, tcp://ADDRESS:PORT or ssh://[USER@]HOST"),
    (("-l", "--log-level"), "LEVEL", "Without effect"),
    (("--tls",), "", "Use TLS, whoever the engine is; implied by --tlsverify"),
    (("--tlscacert",), "FILE", "Certificates that the engine's has to be signed by (~/.docker/ca.pem)"),
    (("--tlscert",), "FILE", "This person's certificate (~/.docker/cert.pem)"),
    (("--tlskey",), "FILE", "Its key (~/.docker/key.pem)"),
    (("--tlsverify",), "", "Use TLS, and have the engine prove who it is"),
    (("-v", "--version"), "", "Print the version"),
    (("-h", "--help"), "", "Print this"),
)
"""What stands before a command: its names, the name of its value, and what it does."""


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    titles = [f"{', '.join(names)} {value}".rstrip() for names, value, _ in OPTIONS]
    width = max(map(len, titles))
    options = [f"  {title:<{width}}  {text}" for title, (_, _, text) in zip(titles, OPTIONS, strict=True)]
    return "\n".join(
        [
            USAGE, "", "Containers: run, look after and read how they work", "", "Options:", *options, "",
            "Commands:", *commands, "", "Run 'sampan COMMAND --help' for more information on a command.",
        ]
    )  # fmt: skip


def take_options(words: list[str]) -> dict[str, str]:
    """Take what stands before the command off the words: by long name, with values. Raises InvalidArgument."""
    found: dict[str, str] = {}
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        option = next(((names[-1], metavar) for names, metavar, _ in OPTIONS if name in names), None)
        if option is None:
            raise InvalidArgument(f"unknown flag: {name}")
        if not option[1]:
            found[option[0]] = value if equals else "true"
            if value and not equals:
                words.insert(0, f"-{value}")  # Letters in one word.
        elif equals or value:
            found[option[0]] = value if equals else value.removeprefix("=")
        elif words:
            found[option[0]] = words.pop(0)
        else:
            raise InvalidArgument(f"flag needs an argument: {name}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: the command's own, or 1 and one line that says why."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = take_options(words)
    except InvalidArgument as error:
        print(f"{error.message}\n\n{USAGE}\n\nRun 'sampan --help' for more information", file=sys.stderr)
        return 125
    if "--version" in options:
        from sampan import __version__

        print(f"sampan version {__version__}")
        return 0
    if "--help" in options or not words:
        print(_help())
        return 0
    if directory := options.get("--config"):
        import os

        os.environ["DOCKER_CONFIG"] = directory
    return run(words[0], words[1:], context_of(options))


def context_of(options: dict[str, str]) -> Context:
    from sampan.cli.context import Context, Options

    files = {name: options[f"--tls{flag}"] for name, flag in _FILES if f"--tls{flag}" in options}
    verify = None
    if "--tls" in options or "--tlsverify" in options:
        verify = options.get("--tlsverify", "false").lower() in ("true", "1")
        verify = verify if verify or options.get("--tls", "true").lower() in ("true", "1") else None
    return Context(Options(options.get("--host", ""), options.get("--context", ""), files, verify))


_FILES = (("ca", "cacert"), ("cert", "cert"), ("key", "key"))


def run(name: str, words: Sequence[str], context: Context | None = None) -> int:
    """Run one command. Errors become one line and Docker's exit status."""
    command = COMMANDS.get(name) or HIDDEN.get(name)
    if command is None:
        print(f"sampan: unknown command: sampan {name}\n\nRun 'sampan --help' for more information", file=sys.stderr)
        return 1
    import importlib

    from sampan.cli.context import Context

    module = importlib.import_module(f"sampan.cli.{command[0]}")
    try:
        status: int = module.main(name, list(words), context or Context())
    except SampanError as error:
        print(f"sampan: {error.message}", file=sys.stderr)
        return getattr(error, "status", 0) or getattr(module, "FAILURE", 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more is to be said, not even by the interpreter's exit.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def entry() -> None:
    """The console script: leaves without taking the interpreter down, which is a tenth of a command's time."""
    import os

    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = 141
    os._exit(status)


if __name__ == "__main__":
    entry()
