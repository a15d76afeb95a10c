"""A pull's or push's progress on a terminal: a bar for each layer, by rich, which is imported only where it draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sampan.cli.table import size
from sampan.client.client import Document

_ENDED = ("Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted from")


def draw(messages: Iterator[Document], output: TextIO) -> None:
    """Until the stream ends."""
    columns = (
        TextColumn("{task.fields[layer]}"), TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.fields[amount]}"),
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(file=output, highlight=False)) as progress:
        for message in messages:
            identifier, status = message.get("id", ""), message.get("status", "")
            if not status:
                continue
            if not identifier or "Pulling from" in status:
                text = f"{identifier}: {status}" if identifier else status
                progress.console.print(text, markup=False, soft_wrap=True)
                continue
            if identifier not in tasks:
                tasks[identifier] = progress.add_task(status, total=1, layer=identifier, amount="")
            detail = message.get("progressDetail") or {}
            current, total = detail.get("current", 0), detail.get("total", 0)
            if status.startswith(_ENDED):
                progress.update(tasks[identifier], description=status, completed=1, total=1)
            elif total:
                amount = f"{size(current)}/{size(total)}"
                progress.update(
                    tasks[identifier], description=status, completed=current, total=total, amount=amount
                )  # fmt: skip
            else:
                progress.update(tasks[identifier], description=status)
