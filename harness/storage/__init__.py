"""Storage: a second home of a run directory, at an address that fsspec knows, such as s3://bucket/path.

The journal stays the truth. A process of its own (`process`) copies what the driver has made durable, and brings it back
where it is missing; nothing that is read there is believed unless its SHA-256 is known.
"""
