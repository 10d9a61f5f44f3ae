"""The shells that consume outputs: Redis, the HTTP server, the journal on disk."""
