"""Against a systemd that runs the machine: tests/vm."""
