"""The synchronous client: written by docs/reference/generate.py from the asynchronous one, but for `transport`."""
