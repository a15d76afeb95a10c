"""The kernel, one function a system call, named after it. Raises OSError only; decides nothing."""
