"""`/exec`: one more process in a running container."""

from __future__ import annotations

from sampan.api.exec import ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecStartRequest
from sampan.client.client import quoted
from sampan.client.documents import Completed
from sampan.client.synchronous.calls import Calls
from sampan.client.synchronous.streams import Stream


class Execs:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(self, container: str, request: ExecCreateRequest) -> str:
        """Its id. Raises NotFound, and Conflict when the container does not run."""
        response = self._calls.open("POST", f"/containers/{quoted(container)}/exec", request)
        return (self._calls.document(ExecCreateResponse, response)).id

    def start(self, exec_id: str, *, tty: bool = False, size: tuple[int, int] | None = None) -> Stream:
        """Its streams. `tty`: as it was created. `size`: the terminal's height and width."""
        request = ExecStartRequest(tty=tty, console_size=size)
        connection, _ = self._calls.upgrade(f"/exec/{quoted(exec_id)}/start", request)
        return Stream(connection, terminal=tty)

    def start_detached(self, exec_id: str, *, tty: bool = False) -> None:
        """In the background."""
        request = ExecStartRequest(detach=True, tty=tty)
        self._calls.done(self._calls.open("POST", f"/exec/{quoted(exec_id)}/start", request))

    def inspect(self, exec_id: str) -> ExecInspect:
        response = self._calls.open("GET", f"/exec/{quoted(exec_id)}/json")
        return self._calls.document(ExecInspect, response)

    def resize(self, exec_id: str, *, height: int, width: int) -> None:
        """Its terminal."""
        self._calls.done(self._calls.open("POST", f"/exec/{quoted(exec_id)}/resize", h=height, w=width))

    def run(
        self,
        container: str,
        *command: str,
        stdin: bytes | None = None,
        user: str = "",
        env: tuple[str, ...] = (),
        working_dir: str = "",
    ) -> Completed:
        """Run a command to its end. `stdin`: its input."""
        request = ExecCreateRequest(
            cmd=command, user=user, env=env, working_dir=working_dir, attach_stdin=stdin is not None,
            attach_stdout=True, attach_stderr=True,
        )  # fmt: skip
        exec_id = self.create(container, request)
        with self.start(exec_id) as stream:
            if stdin is not None:
                stream.write(stdin)
                stream.end_input()
            stdout, stderr = stream.read()
        return Completed((self.inspect(exec_id)).exit_code or 0, stdout, stderr)
