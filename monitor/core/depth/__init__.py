"""What the order books would absorb."""
