"""The engine's default confinement of containers: capabilities, seccomp profile, hidden paths, devices. Pure."""
