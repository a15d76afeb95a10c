"""`system dial-stdio`: this process's standard streams become a connection to the engine."""

from __future__ import annotations

import os
import select
import socket

from sampan.cli.context import Context
from sampan.cli.streams import write_all

_CHUNK = 1 << 16


def dial(context: Context) -> int:
    """Until the engine has no more to say. The end of the input is the end of one direction only."""
    context.client.close()  # It has started an engine, where there was none.
    connection = context.client.host.connect()
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        for descriptor, events in poll.poll():
            if descriptor == 0:
                data = os.read(0, _CHUNK)
                if data:
                    connection.sendall(data)
                    continue
                poll.unregister(0)
                connection.shutdown(socket.SHUT_WR)
                if events & select.POLLERR:
                    return 0
            else:
                try:
                    data = connection.recv(_CHUNK)
                except ConnectionError:
                    return 0
                if not data:
                    return 0
                write_all(1, data)
