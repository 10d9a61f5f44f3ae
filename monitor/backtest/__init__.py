"""Accuracy reports: what the core says, graded against what is true (model.md C2)."""
