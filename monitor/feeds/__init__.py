"""The shells that produce inputs: sockets, HTTP, the clock, recordings. They know no venue."""
