"""The pure core: events and ticks in, messages out. No clock, no randomness, no input or output."""
