"""Sans-I/O codecs, one module a venue: bytes in, events and commands out."""
