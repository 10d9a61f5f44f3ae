"""Fuel against depth: the loop, its critical points, and what a shock would do."""
