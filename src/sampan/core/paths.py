"""Where everything lies, and nothing else knows it: the data root outlives a reboot, the exec root does not."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

DEFAULT_DATA_ROOT = "/var/lib/sampan"
DEFAULT_EXEC_ROOT = "/run/sampan"


@dataclass(frozen=True)
class Paths:
    """Both roots are absolute paths."""

    data_root: str = DEFAULT_DATA_ROOT
    exec_root: str = DEFAULT_EXEC_ROOT

    @property
    def content(self) -> str:
        """The content store: an OCI image layout."""
        return f"{self.data_root}/content"

    @property
    def overlay2(self) -> str:
        return f"{self.data_root}/overlay2"

    @property
    def containers(self) -> str:
        return f"{self.data_root}/containers"

    @property
    def volumes(self) -> str:
        return f"{self.data_root}/volumes"

    @property
    def temporary(self) -> str:
        """Uploads and downloads under way; emptied when the core is opened."""
        return f"{self.data_root}/tmp"

    @property
    def database(self) -> str:
        return f"{self.data_root}/state.db"

    @property
    def socket(self) -> str:
        return f"{self.exec_root}/sampan.sock"

    @property
    def pidfile(self) -> str:
        return f"{self.exec_root}/sampan.pid"

    @property
    def shims(self) -> str:
        return f"{self.exec_root}/shims"

    @property
    def runtime(self) -> str:
        """The OCI runtime's state root."""
        return f"{self.exec_root}/runtime"

    def foreign_runtime(self, name: str) -> str:
        """The state root of a runtime that is not ours."""
        return f"{self.exec_root}/runtimes/{name}"

    @property
    def names(self) -> str:
        """Where the resolver takes the engine's word."""
        return f"{self.exec_root}/names.sock"

    @property
    def netns(self) -> str:
        return f"{self.exec_root}/netns"

    @property
    def mounts(self) -> str:
        """What is mounted for the mounts of containers that run."""
        return f"{self.exec_root}/mounts"

    def bundle(self, container_id: str) -> str:
        """A container's directory, which is its OCI bundle."""
        return f"{self.containers}/{container_id}"

    def log(self, container_id: str) -> str:
        return f"{self.containers}/{container_id}/{container_id}-json.log"

    def local_log(self, container_id: str) -> str:
        return f"{self.containers}/{container_id}/local-logs/container.log"

    def cached_log(self, container_id: str) -> str:
        """What can be read of a log that goes elsewhere."""
        return f"{self.containers}/{container_id}/container-cached.log"

    def exit_file(self, container_id: str) -> str:
        return f"{self.containers}/{container_id}/exit.json"

    def shim(self, container_id: str) -> str:
        """A shim's directory. A part of the id, as a unix socket's path has 108 bytes at most."""
        return f"{self.shims}/{container_id[:16]}"

    @property
    def _suffix(self) -> str:
        return hashlib.sha256(self.exec_root.encode()).hexdigest()[:8]

    @property
    def bridge(self) -> str:
        """The default network's interface: engines on one host tell theirs apart by the exec root."""
        return "sampan0" if self.exec_root == DEFAULT_EXEC_ROOT else f"smp{self._suffix}"

    @property
    def table(self) -> str:
        """The firewall's table."""
        return "sampan" if self.exec_root == DEFAULT_EXEC_ROOT else f"smp{self._suffix}"

    def make(self) -> None:
        """Make the directories. The data root is closed to all but root: containers put set-user-id programs into their
        volumes, and root's would be everybody's (CVE-2021-41091)."""
        for path, mode in (
            (self.data_root, 0o710), (self.content, 0o700), (self.overlay2, 0o710), (f"{self.overlay2}/l", 0o710),
            (self.containers, 0o710), (self.volumes, 0o701), (self.temporary, 0o700), (self.exec_root, 0o711),
            (self.shims, 0o700), (self.runtime, 0o700), (self.netns, 0o711), (self.mounts, 0o700),
        ):  # fmt: skip
            os.makedirs(path, mode=mode, exist_ok=True)
        os.chmod(self.data_root, 0o710)  # It may have been somebody else's, or an earlier version's.
