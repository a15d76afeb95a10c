"""The `sampan` command: finds the command's module by a table, and imports nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sampan.errors import SampanError

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
    "version": ("system", "Show the version information"),
    "info": ("system", "Display system-wide information"),
    "events": ("system", "Get real time events from the engine"),
    "daemon": ("daemon", "Run the engine in the foreground"),
}
"""Command: the module in this package that has it, and what it does."""

USAGE = "Usage:  sampan [-H HOST] COMMAND [ARGUMENTS]"


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            USAGE, "", "Containers: run, look after and read how they work", "", "Options:",
            "  -H, --host HOST  Engine to connect to (unix:///path or tcp://address:port)",
            "  -v, --version    Print the version", "", "Commands:", *lines, "",
            "Run 'sampan COMMAND --help' for more information on a command.",
        ]
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: the command's own, or 1 and one line that says why."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    host = ""
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word in ("-H", "--host") and words:
            host = words.pop(0)
        elif word.startswith("--host="):
            host = word.removeprefix("--host=")
        elif word.startswith("-H") and len(word) > 2:
            host = word[2:].removeprefix("=")
        elif word in ("-v", "--version"):
            from sampan import __version__

            print(f"sampan version {__version__}")
            return 0
        elif word in ("-h", "--help"):
            print(_help())
            return 0
        elif word not in ("-D", "--debug"):
            print(f"unknown flag: {word}\nSee 'sampan --help'.", file=sys.stderr)
            return 125
    if not words:
        print(_help())
        return 0
    return run(words[0], words[1:], host)


def run(name: str, words: Sequence[str], host: str = "") -> int:
    """Run one command. Errors become one line and Docker's exit status."""
    if name not in COMMANDS:
        print(f"sampan: '{name}' is not a sampan command.\nSee 'sampan --help'", file=sys.stderr)
        return 1
    import importlib

    from sampan.cli.context import Context

    module = importlib.import_module(f"sampan.cli.{COMMANDS[name][0]}")
    try:
        status: int = module.main(name, list(words), Context(host))
    except SampanError as error:
        print(f"sampan: {error.message}", file=sys.stderr)
        return getattr(module, "FAILURE", 1)
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
