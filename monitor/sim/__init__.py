"""A simulated market with the truth inside: positions, margin, matching and liquidations."""
