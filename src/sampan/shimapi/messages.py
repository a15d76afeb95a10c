"""The typed messages between core and shim.

Every message travels in an `Envelope`. A request carries a sequence number of the sender's choosing and is
answered by exactly one envelope with the same number: one of the replies, or `Failure`. Envelopes with number 0 are
events: unsolicited, from the shim to every connection on which `Connect` was called (the control
connection that came with the `Spawn` counts as connected).

Times are nanoseconds since the epoch (UTC). Signals are numbers. Exit statuses are the shell's: 0 to 255,
and 128 + n for a death by signal n. Paths are absolute.
"""

from __future__ import annotations

import enum

import msgspec

from sampan.oci.runtime import LinuxResources, Process


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """The base of all messages: immutable, tagged with the class's name."""


# --- Values ---------------------------------------------------------------------------------------


class TaskStatus(enum.StrEnum):
    """Where a task stands. `RESTARTING`: the process ended and the shim waits out the back-off."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class RestartName(enum.StrEnum):
    """The names of Docker's restart policies."""

    NO = "no"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"
    ON_FAILURE = "on-failure"


class RestartPolicy(Message, frozen=True, kw_only=True):
    """When the shim starts the process again. `maximum_retry_count` counts for `on-failure` alone; 0: no limit."""

    name: RestartName = RestartName.NO
    maximum_retry_count: int = 0


NO_LOG = "failed to initialize logging driver"
"""How the message of a `Failure` begins that tells of a log that can't be written."""


class SyslogConfig(Message, frozen=True, kw_only=True):
    """Where syslog is, and how it wants to be told. `network`: unix, unixgram, udp, tcp, tcp+tls, or empty for the
    machine's own. `host`: a name, an address or a path. `format`: rfc3164, rfc5424, rfc5424micro, or empty for what
    the machine's own takes. `ca`, `certificate`, `key`: paths."""

    network: str = ""
    host: str = ""
    port: int = 0
    facility: int = 3
    format: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


class LogConfig(Message, frozen=True, kw_only=True):
    """Where the shim writes what the process prints.

    `driver`: json-file or local (Docker's formats), syslog, journald, or none. A file of `max_size` bytes is rotated to
    `path.1`, and so on up to `max_file` files in all; 0 for `max_size`: never. With syslog and journald the file is a
    copy, in the format of local, for those who read the log; empty for `path`: there is none.
    """

    driver: str = "json-file"
    path: str = ""
    max_size: int = 0
    max_file: int = 1
    compress: bool = False
    """The rotated ones."""
    attributes: dict[str, str] = {}
    """Told with each line: by json-file, and by journald as fields."""
    tag: str = ""
    """The container's name for syslog."""
    lossy: bool = False
    """Drop what a service takes too slowly, and never hold the process up (`mode=non-blocking`)."""
    buffer: int = 1 << 20
    """Bytes that wait for a service before either of it is done."""
    syslog: SyslogConfig | None = None


class WindowSize(Message, frozen=True, kw_only=True):
    """A terminal's size in characters."""

    width: int
    height: int


class Attachment(Message, frozen=True, kw_only=True):
    """A client's connection that is handed over with the message: one descriptor each, in order.

    The shim copies between the descriptor and the process and closes it when the streams end. `framed`: output
    goes in Docker's multiplexed frames (8 byte header), as for every process without a terminal; otherwise raw.
    `received` is what the engine had read past the HTTP head; it is input that comes before the socket's.
    The detach sequence, in raw bytes, ends the attachment and leaves the process alone; empty: none.
    """

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    framed: bool = True
    received: bytes = b""
    detach_keys: bytes = b""


class HealthCheck(Message, frozen=True, kw_only=True):
    """A program that tells by its exit status how the container is. Times in seconds.

    `action`: what an unhealthy container gets: none; kill (the restart policy then decides); restart, whatever the
    policy says; or stop, by `stop_signal` and, `stop_timeout` later, by SIGKILL.
    """

    process: Process
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int
    action: str = "none"
    stop_signal: int = 15
    stop_timeout: float = 10.0


# --- Requests: engine to spawner ------------------------------------------------------------------


class Create(Message, frozen=True, kw_only=True):
    """What a shim needs to know to supervise one container; containerd's CreateTaskRequest.

    `bundle` holds `config.json` and its root file system is mounted already. `state_root` is the OCI runtime's
    `--root`. `run_dir` is the shim's own directory (made by the sender, mode 0700): the shim listens on
    `run_dir/shim.sock`. `exit_path` is the file on permanent storage that holds the last `Exited` as JSON, written
    (and renamed into place) before anyone is told; it is what an engine reads that was away.
    """

    id: str
    bundle: str
    state_root: str
    run_dir: str
    exit_path: str
    terminal: bool = False
    stdin: bool = False
    """Keep the process's standard input open, for attachments to come (Docker's OpenStdin)."""
    stdin_once: bool = False
    """Close it when the first attachment with input ends (Docker's StdinOnce)."""
    window: WindowSize | None = None
    runtime: tuple[str, ...] = ()
    """The command of another OCI runtime, a path and its first arguments. Empty: ours, in the shim itself."""
    log: LogConfig = LogConfig()
    restart: RestartPolicy = RestartPolicy()
    attachments: tuple[Attachment, ...] = ()
    health: HealthCheck | None = None
    held: int = 0
    """How many more descriptors follow that the shim merely keeps open while it lives: port reservations."""


class Spawn(Message, frozen=True, kw_only=True):
    """Fork a shim for `create`, and start the process too when `start` is set.

    Descriptors: the shim's control connection, then one for each attachment, then the held ones.
    The spawner does not answer: the shim answers over the control connection, with the same number, with `Created`,
    `Started` or `Failure`. A control connection that ends without an answer is a shim that died.
    """

    create: Create
    start: bool = True


class OpenNetns(Message, frozen=True, kw_only=True):
    """Make a network namespace, pin it by a bind mount on `path` (made by the spawner) and open a NETLINK_ROUTE
    socket inside it. Answered by the spawner with `NetnsOpened` and that socket as its descriptor."""

    path: str


class EnterNetns(Message, frozen=True, kw_only=True):
    """Open a NETLINK_ROUTE socket inside the namespace pinned at `path`. Answered by `NetnsOpened`."""

    path: str


class OpenNames(Message, frozen=True, kw_only=True):
    """Open what the resolver listens by inside the namespace pinned at `path`: a UDP socket and a listening TCP socket
    at 127.0.0.11, and a NETLINK_NETFILTER socket to lead the port of names there. Answered by `NetnsOpened` with
    these three."""

    path: str


class StartNames(Message, frozen=True, kw_only=True):
    """Fork the resolver. Its descriptor is the listening socket that engines connect to. Answered with `Done`."""


class CleanUp(Message, frozen=True, kw_only=True):
    """Have another runtime (`Create.runtime`) forget a container whose shim was killed, and end its processes.
    `run_dir`: for the runtime's log. Answered by the spawner with `Done`."""

    id: str
    runtime: tuple[str, ...]
    state_root: str
    run_dir: str


# --- Requests: engine to shim ---------------------------------------------------------------------


class Connect(Message, frozen=True, kw_only=True):
    """Say who you are and send me events from now on. Answered by `TaskState`."""


class Start(Message, frozen=True, kw_only=True):
    """Execute the created process. Answered by `Started`."""


class Exec(Message, frozen=True, kw_only=True):
    """Run one more process in the container, and start it at once. Descriptors: one for each attachment.

    Answered by `ExecStarted`. `stdin` keeps its input open; without it, input is /dev/null.
    """

    exec_id: str
    process: Process
    stdin: bool = False
    window: WindowSize | None = None
    attachments: tuple[Attachment, ...] = ()


class Attach(Message, frozen=True, kw_only=True):
    """Attach one more client, whose connection is the message's descriptor. Answered by `Done`."""

    attachment: Attachment
    exec_id: str | None = None


class Resize(Message, frozen=True, kw_only=True):
    """Set the terminal's size. Answered by `Done`."""

    window: WindowSize
    exec_id: str | None = None


class CloseIO(Message, frozen=True, kw_only=True):
    """Close the process's standard input. Answered by `Done`."""

    exec_id: str | None = None


class Kill(Message, frozen=True, kw_only=True):
    """Send a signal, to the first process (or the exec's), or to `all` in the container.

    `stop`: the user wants the container down, so the restart policy no longer applies. Answered by `Done`.
    """

    signal: int
    all: bool = False
    stop: bool = False
    exec_id: str | None = None


class Pause(Message, frozen=True, kw_only=True):
    """Freeze the container's processes. Answered by `Done`."""


class Resume(Message, frozen=True, kw_only=True):
    """Thaw them. Answered by `Done`."""


class Update(Message, frozen=True, kw_only=True):
    """Change the limits or the restart policy of the live container; what is None stays. Answered by `Done`."""

    resources: LinuxResources | None = None
    restart: RestartPolicy | None = None


class Hold(Message, frozen=True, kw_only=True):
    """Keep the message's descriptors open from now on, as `Create.held`, and let go of the sockets that are bound to
    these places: protocol, IPv4 address, port. Answered by `Done`."""

    released: tuple[tuple[str, str, int], ...] = ()


class Stats(Message, frozen=True, kw_only=True):
    """Read the cgroup's counters. Answered by `StatsTaken`."""


class Pids(Message, frozen=True, kw_only=True):
    """List the processes in the container. Answered by `PidList`."""


class State(Message, frozen=True, kw_only=True):
    """Ask how the task stands. Answered by `TaskState`."""


class Wait(Message, frozen=True, kw_only=True):
    """Answered by `Exited` (or `ExecExited`) when the process has ended for good (not when it will be restarted)."""

    exec_id: str | None = None


class Delete(Message, frozen=True, kw_only=True):
    """Forget an exec that has ended, or (None) the stopped task: its cgroup and runtime state. Answered by `Done`."""

    exec_id: str | None = None


class Shutdown(Message, frozen=True, kw_only=True):
    """End the shim. Refused with `Conflict` while the task runs, unless `now`. Answered by `Done`, then EOF."""

    now: bool = False


# --- Replies and events ---------------------------------------------------------------------------


class Done(Message, frozen=True, kw_only=True):
    """It is done and there is nothing to tell."""


class Failure(Message, frozen=True, kw_only=True):
    """It was not done. `kind` is a name from `sampan.errors`; the message is a user's."""

    kind: str
    message: str


class Created(Message, frozen=True, kw_only=True):
    """The container is made, its process waits for `Start`."""

    pid: int


class Started(Message, frozen=True, kw_only=True):
    """The process has been executed. As an event: the restart policy started it again."""

    pid: int
    started_at: int
    restart_count: int = 0


class ExecStarted(Message, frozen=True, kw_only=True):
    """An exec's process runs; `pid` in the host's namespace."""

    exec_id: str
    pid: int


class Probe(Message, frozen=True, kw_only=True):
    """One run of a health check's program. `exit_status` -1: it was not started, or not done in time."""

    started_at: int
    ended_at: int
    exit_status: int
    output: str


class Health(Message, frozen=True, kw_only=True):
    """`status`: starting, healthy or unhealthy. `log`: the last probes."""

    status: str = "starting"
    failing_streak: int = 0
    log: tuple[Probe, ...] = ()


class Probed(Message, frozen=True, kw_only=True):
    """Event: a health check's program has run. `changed`: the status is another than before."""

    health: Health
    changed: bool


class Exited(Message, frozen=True, kw_only=True):
    """The container's first process has ended and its output is drained. Also the content of `exit_path`.

    `will_restart`: the restart policy starts it again after the back-off.
    `error` is set when a restart failed before the process could be executed.
    """

    id: str
    pid: int
    exit_status: int
    exited_at: int
    started_at: int = 0
    oom_killed: bool = False
    will_restart: bool = False
    restart_count: int = 0
    stopped_by_user: bool = False
    error: str = ""
    health: Health | None = None


class ExecExited(Message, frozen=True, kw_only=True):
    """An exec's process has ended and its output is drained."""

    exec_id: str
    pid: int
    exit_status: int
    exited_at: int


class Detached(Message, frozen=True, kw_only=True):
    """Event: a client typed the detach sequence."""

    exec_id: str | None = None


class OutOfMemory(Message, frozen=True, kw_only=True):
    """Event: the kernel killed a process of the container for want of memory."""


class TaskState(Message, frozen=True, kw_only=True):
    """How the task stands."""

    id: str
    status: TaskStatus
    pid: int = 0
    shim_pid: int = 0
    terminal: bool = False
    started_at: int = 0
    restart_count: int = 0
    exited: Exited | None = None
    execs: tuple[str, ...] = ()
    health: Health | None = None


class PidList(Message, frozen=True, kw_only=True):
    """Host pids of the container's processes."""

    pids: tuple[int, ...]


class StatsTaken(Message, frozen=True, kw_only=True):
    """The cgroup's counters in the units the kernel gives: bytes, nanoseconds, counts.

    `unified`: of cgroup v2. `cpu_each`: by CPU, v1 only."""

    read_at: int
    cpu_usage: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_time: int = 0
    memory_usage: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    memory_stat: dict[str, int] = {}
    pids_current: int = 0
    pids_limit: int = 0
    blkio: tuple[BlockIO, ...] = ()
    unified: bool = False
    cpu_each: tuple[int, ...] = ()


class BlockIO(Message, frozen=True, kw_only=True):
    """One line of io.stat, or of blkio.throttle.io_service_bytes."""

    major: int
    minor: int
    operation: str
    bytes: int = 0
    count: int = 0


class NetnsOpened(Message, frozen=True, kw_only=True):
    """The namespace is there; with it comes what was to be opened inside."""


SpawnerRequest = Spawn | OpenNetns | EnterNetns | OpenNames | StartNames | CleanUp
ShimRequest = (
    Connect | Start | Exec | Attach | Resize | CloseIO | Kill | Pause | Resume | Update | Hold | Stats | Pids
    | State | Wait | Delete | Shutdown
)  # fmt: skip
Event = Started | Exited | ExecExited | Detached | OutOfMemory | Probed
Reply = (
    Done | Failure | Created | Started | ExecStarted | Exited | ExecExited | TaskState | PidList | StatsTaken
    | NetnsOpened
)  # fmt: skip


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A numbered message: what framing puts on the wire, as MessagePack."""

    number: int
    body: (
        Spawn | OpenNetns | EnterNetns | OpenNames | StartNames | CleanUp | Connect | Start | Exec | Attach | Resize
        | CloseIO | Kill | Pause | Resume | Update | Hold | Stats | Pids | State | Wait | Delete | Shutdown | Done
        | Failure | Created | Started | ExecStarted | Exited | ExecExited | Detached | OutOfMemory | TaskState | PidList
        | StatsTaken | NetnsOpened | Probed
    )  # fmt: skip
