"""What the engine's side (`core.tasks`) and the shim's side (`shim`) say to each other.

`messages` holds the types, `framing` puts them on a unix stream socket together with file descriptors.
The calls cover containerd's Task service one for one, so that its ttrpc and gRPC faces can be added
without touching what is behind them; what Docker needs beyond it (a restart policy in the shim, handed-over
client sockets, log files) is in fields of the same messages.

Who talks to whom::

    engine ──Spawn(create)──▶ spawner            one SOCK_STREAM socketpair, made when the spawner starts
       │                        │ fork           the descriptors of a Spawn: [control, attachments…, held…]
       │◀──────control──────▶ shim               Reply to the Spawn comes over `control`, from the shim itself
       └──connect(shim.sock)─▶ shim              after a restart of the engine: the same protocol, any number
"""
