"""Control groups, versions 1 and 2: two pure plans (`v1`, `v2`), one applier (`group`)."""

from sampan.linux.cgroup.group import Cgroup, hierarchies
from sampan.linux.cgroup.write import BlockIOCount, Counters

__all__ = ["BlockIOCount", "Cgroup", "Counters", "hierarchies"]
