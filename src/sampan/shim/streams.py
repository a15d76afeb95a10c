"""A process's standard streams, and the clients that are attached to them.

Output goes to the log and to every client that wants it. A client that does not read holds the process up once its
buffer is full, as with Docker; one that has gone is forgotten. Input goes to the process from any client that may give
it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import socket
import struct
from collections.abc import Callable

from sampan.linux.terminal import set_size
from sampan.shim.log import Log
from sampan.shim.loop import HANGUP, READ, WRITE, Loop
from sampan.shimapi.messages import Attachment, WindowSize

_CHUNK = 1 << 15
_BUFFER = 1 << 20
_WIDE = 1 << 18
"""Bytes of a pipe whose process prints a lot: it is woken, and wakes us, four times less often."""
_FRAME = struct.Struct(">BxxxL")
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class DetachKeys:
    """Finds the detach sequence in what a client types, even if it comes in pieces."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def filter(self, data: bytes) -> tuple[bytes, bool]:
        """What the process is to get, and whether the sequence was completed."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
                continue
            # What looked like the beginning of the sequence was none: it was meant for the process.
            passed += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False


class Client:
    """One attached connection. Owned by its `Streams`; the descriptor is closed with it."""

    def __init__(self, streams: Streams, descriptor: int, attachment: Attachment) -> None:
        self.descriptor = descriptor
        self.wants = {_STDOUT: attachment.stdout, _STDERR: attachment.stderr}
        self.full = False
        self._streams = streams
        self._attachment = attachment
        self._keys = DetachKeys(attachment.detach_keys)
        self._output = bytearray()
        self._reading = attachment.stdin
        self._ending = False
        os.set_blocking(descriptor, False)
        self._watch()
        if attachment.stdin and attachment.received:
            self._typed(attachment.received)

    @property
    def gives_input(self) -> bool:
        return self._attachment.stdin

    def _watch(self) -> None:
        events = WRITE if self._output else 0
        if self._reading and not self._streams.input_full:
            events |= READ
        self._streams.loop.watch(self.descriptor, events, self._ready)

    def rewatch(self) -> None:
        """The process takes input again."""
        if self.descriptor >= 0:
            self._watch()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.descriptor >= 0 and events & READ:
            self._read()
        elif self.descriptor >= 0 and events & HANGUP:
            self._streams.drop(self)

    def _read(self) -> None:
        try:
            data = os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._streams.drop(self)
            return
        if data:
            self._typed(data)
            return
        # The client has nothing more to say, and may still want to hear.
        self._reading = False
        self._streams.input_ended(self)
        if self.descriptor >= 0:
            self._watch()

    def _typed(self, data: bytes) -> None:
        data, detached = self._keys.filter(data)
        if data:
            self._streams.give(data)
        if detached:
            self._streams.detach(self)
        elif self.descriptor >= 0:
            self._watch()

    def send(self, stream: int, data: bytes) -> None:
        """Send output, in Docker's frame where the client knows it, or keep it until the client takes it."""
        pieces = [_FRAME.pack(stream, len(data)), data] if self._attachment.framed else [data]
        if not self._output:
            sent = self._sent_at_once(pieces)
            if sent == sum(map(len, pieces)) or self.descriptor < 0:
                return
            pieces = [b"".join(pieces)[sent:]]
        self._output += b"".join(pieces)
        self._flush()

    def _sent_at_once(self, pieces: list[bytes]) -> int:
        """As a client that keeps up takes it: nothing is copied, and nothing watched."""
        try:
            return os.writev(self.descriptor, pieces)
        except BlockingIOError:
            return 0
        except OSError:
            self._streams.drop(self)
            return 0

    def _flush(self) -> None:
        try:
            while self._output:
                sent = os.write(self.descriptor, self._output)
                del self._output[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._streams.drop(self)
            return
        was_full, self.full = self.full, len(self._output) > (_BUFFER if not self.full else _BUFFER // 2)
        if not self._output and self._ending:
            self._streams.drop(self)
            return
        self._watch()
        if was_full and not self.full:
            self._streams.resume()

    def finish(self) -> None:
        """Close when everything is sent."""
        self._ending = True
        self._reading = False
        if not self._output:
            self._streams.drop(self)
        else:
            self._watch()

    def close(self) -> None:
        """Close now. The end is sent even where somebody else holds a copy of the connection."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor < 0:
            return
        self._streams.loop.forget(descriptor)
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
        os.close(descriptor)


class Streams:
    """The shim's ends of one process's streams. `on_end`: all output has been read."""

    def __init__(
        self,
        loop: Loop,
        log: Log | None,
        on_end: Callable[[], None],
        on_detach: Callable[[], None],
        *,
        close_input_with_client: bool = False,
    ) -> None:
        self.loop = loop
        self._log = log
        self._on_end = on_end
        self._on_detach = on_detach
        self._close_input_with_client = close_input_with_client
        self._sources: dict[int, int] = {}
        self._narrow: set[int] = set()
        self._input = -1
        self._pending_input = bytearray()
        self._input_ending = False
        self._master = -1
        self.clients: list[Client] = []
        self.ended = False

    # --- The process's side -----------------------------------------------------------------------

    def use_pipes(self, stdin: int | None, stdout: int, stderr: int) -> None:
        """Take over the pipes' ends."""
        self._sources = {stdout: _STDOUT, stderr: _STDERR}
        self._narrow = {stdout, stderr}
        if stdin is not None:
            os.set_blocking(stdin, False)
            self._input = stdin
        self._begin()

    def use_terminal(self, master: int, takes_input: bool) -> None:
        """Take over a terminal's master."""
        self._master = master
        self._sources = {master: _STDOUT}
        if takes_input:
            self._input = master
        self._begin()

    def _begin(self) -> None:
        for descriptor in self._sources:
            os.set_blocking(descriptor, False)
        self._watch_sources()
        self._write_input()

    def _watch_sources(self) -> None:
        blocked = self._blocked
        for descriptor in self._sources:
            events = 0 if blocked else READ
            if descriptor == self._input and self._pending_input:
                events |= WRITE
            self.loop.watch(descriptor, events, functools.partial(self._ready, descriptor))

    def _ready(self, descriptor: int, events: int) -> None:
        if events & WRITE:
            self._write_input()
        if descriptor in self._sources and events & (READ | HANGUP):
            self._read(descriptor)

    def _read(self, descriptor: int) -> bool:
        """One piece of output; False when there is none now."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # A terminal whose other side is closed.
                raise
            data = b""
        if not data:
            self._end_source(descriptor)
            return False
        if len(data) == _CHUNK and descriptor in self._narrow:
            self._narrow.remove(descriptor)
            with contextlib.suppress(OSError):  # More than an ordinary user may have.
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _WIDE)
        stream = self._sources[descriptor]
        if self._log is not None:
            self._log.write(stream, data)
        for client in list(self.clients):
            if client.wants[stream]:
                client.send(stream, data)
        if self._blocked:
            self._watch_sources()
        return True

    @property
    def _blocked(self) -> bool:
        """Whether somebody who gets the output has enough for now."""
        return any(client.full for client in self.clients) or (self._log is not None and self._log.full)

    def _end_source(self, descriptor: int) -> None:
        del self._sources[descriptor]
        self.loop.forget(descriptor)
        if descriptor == self._input:
            self._input = -1
        if descriptor == self._master:
            self._master = -1
        os.close(descriptor)
        if not self._sources and not self.ended:
            self.ended = True
            self._on_end()

    def resume(self) -> None:
        """A client, or the log, takes more again."""
        self._watch_sources()

    def drain(self) -> None:
        """The process has ended: read what it left, and wait for no one else that has its streams."""
        for descriptor in list(self._sources):
            while descriptor in self._sources and self._read(descriptor):
                continue
        for descriptor in list(self._sources):
            if descriptor in self._sources:
                self._end_source(descriptor)

    def resize(self, window: WindowSize) -> bool:
        """False if there is no terminal."""
        if self._master < 0:
            return False
        set_size(self._master, window.width, window.height)
        return True

    # --- Input ------------------------------------------------------------------------------------

    @property
    def input_full(self) -> bool:
        return len(self._pending_input) > _BUFFER

    def give(self, data: bytes) -> None:
        """Input for the process; dropped if it takes none."""
        if self._input_ending:
            return
        self._pending_input += data
        self._write_input()

    def _write_input(self) -> None:
        if self._input < 0:
            if self._sources:
                self._pending_input.clear()  # Nobody will ever read it.
            return
        was_full = self.input_full
        try:
            while self._pending_input:
                sent = os.write(self._input, self._pending_input[:_CHUNK])
                del self._pending_input[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._pending_input.clear()
            self.close_input()
            return
        if not self._pending_input and self._input_ending:
            self.close_input()
            return
        if self._input == self._master:
            self._watch_sources()
        elif self._pending_input:
            self.loop.watch(self._input, WRITE, lambda events: self._write_input())
        else:
            self.loop.forget(self._input)
        if was_full and not self.input_full:
            for client in self.clients:
                client.rewatch()

    def input_ended(self, client: Client) -> None:
        """A client has half-closed its connection."""
        if self._close_input_with_client:
            self.end_input()

    def end_input(self) -> None:
        """Close the process's input when it has taken what is pending."""
        self._input_ending = True
        if not self._pending_input:
            self.close_input()

    def close_input(self) -> None:
        """Close it now. A terminal's input has no end of its own: it hangs up with the terminal."""
        if self._input < 0 or self._input == self._master:
            return
        self.loop.forget(self._input)
        os.close(self._input)
        self._input = -1

    # --- Clients ----------------------------------------------------------------------------------

    def attach(self, descriptor: int, attachment: Attachment) -> None:
        """One more client; at the end of the process's output it is told so by the end of the stream."""
        client = Client(self, descriptor, attachment)
        self.clients.append(client)
        if self.ended:
            client.finish()

    def detach(self, client: Client) -> None:
        """The client typed the detach sequence."""
        client.finish()
        self._on_detach()

    def drop(self, client: Client) -> None:
        """The client has gone, or has got everything."""
        client.close()
        if client in self.clients:
            self.clients.remove(client)
            if client.gives_input and not self.ended:
                self.input_ended(client)
            self._watch_sources()

    def finish(self) -> None:
        """No more output will come: close every client when it has got everything."""
        for client in list(self.clients):
            client.finish()
        self.close_input()
