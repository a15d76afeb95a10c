"""Images from registries. aiohttp is imported here, and so this package only when something is pulled."""
