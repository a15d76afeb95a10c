"""A pull's or push's progress on a terminal: a bar for each layer, by rich, which is imported only where it draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from sampan.client.client import Document


def draw(messages: Iterator[Document], output: TextIO) -> None:
    """Until the stream ends."""
    columns = (TextColumn("{task.fields[layer]}"), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(file=output)) as progress:
        for message in messages:
            identifier, status = message.get("id", ""), message.get("status", "")
            if not status:
                continue
            if not identifier or "Pulling from" in status:
                progress.console.print(f"{identifier}: {status}" if identifier else status, markup=False)
                continue
            if identifier not in tasks:
                tasks[identifier] = progress.add_task(status, total=None, layer=identifier)
            detail = message.get("progressDetail") or {}
            progress.update(
                tasks[identifier], description=status, completed=detail.get("current"), total=detail.get("total")
            )
