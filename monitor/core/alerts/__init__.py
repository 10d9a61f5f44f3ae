"""Phases, reasons in words, and what is wrong with the inputs."""
