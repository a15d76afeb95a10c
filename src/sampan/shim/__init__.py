"""The spawner, and the shim that it forks for each container. No event loop of a library, no threads."""
