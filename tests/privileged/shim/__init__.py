"""The shim's parts that need root."""
