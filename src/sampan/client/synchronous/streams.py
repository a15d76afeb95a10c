"""A process's streams: what attach and exec turn a connection into."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType

from sampan.client.documents import Output
from sampan.client.frames import Demultiplexer
from sampan.client.synchronous.calls import Calls
from sampan.client.synchronous.transport import Connection, Response


class Stream:
    """Output as it comes, and input. `terminal`: both outputs are one, and nothing is framed."""

    def __init__(self, connection: Connection, *, terminal: bool) -> None:
        self._connection = connection
        self._demultiplexer = None if terminal else Demultiplexer()
        self._ready: deque[Output] = deque()

    def __iter__(self) -> Iterator[Output]:
        return self

    def __next__(self) -> Output:
        """The next piece of output, until the process ends or is detached from."""
        while not self._ready:
            data = self._connection.receive()
            if not data:
                raise StopIteration
            if self._demultiplexer is None:
                return Output(1, data)
            self._ready.extend(Output(*piece) for piece in self._demultiplexer.feed(data))
        return self._ready.popleft()

    def read(self) -> tuple[bytes, bytes]:
        """All that is left of standard output and of standard error."""
        found: tuple[list[bytes], list[bytes]] = ([], [])
        for piece in self:
            found[piece.stream == 2].append(piece.data)
        return b"".join(found[0]), b"".join(found[1])

    def write(self, data: bytes) -> None:
        """Input. Raises Unavailable when the process has ended."""
        self._connection.send(data)

    def end_input(self) -> None:
        """The process reads its input's end; its output goes on."""
        self._connection.end_output()

    def close(self) -> None:
        """Let go; the process goes on."""
        self._connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()


def outputs(calls: Calls, response: Response, *, terminal: bool) -> Iterator[Output]:
    """The pieces of a log."""
    demultiplexer = Demultiplexer()
    for data in calls.pieces(response):
        if terminal:
            yield Output(1, data)
            continue
        for piece in demultiplexer.feed(data):
            yield Output(*piece)
