"""Representation heads: what a task puts on top of the four streams."""
