"""The resolver that containers on user-defined networks ask at 127.0.0.11: one process for all of an engine's
sandboxes, which lives on while the engine is away (docs/design/0016-names.md).

`message` reads questions and writes answers, `zone` knows the names, `control` is what the engine says, `upstream` asks
other servers, `opener` opens sockets in the containers' namespaces, `server` is the process.
"""
