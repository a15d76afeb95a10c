"""Control groups, versions 1 and 2: two pure plans (`v1`, `v2`), one applier (`limits`), the group itself (`group`)."""

from sampan.linux.cgroup.group import Cgroup, group_of
from sampan.linux.cgroup.hierarchies import hierarchies

__all__ = ["Cgroup", "group_of", "hierarchies"]
