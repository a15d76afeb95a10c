"""The asynchronous client. What is here, but for `transport`, is the source of `sampan.client.synchronous`:
`docs/reference/generate.py` writes that from this."""
