"""An image of programs of this machine, for where no registry is in reach: an OCI layout of one layer, in a tar."""

from sampan.fromhost.pack import pack

__all__ = ["pack"]
