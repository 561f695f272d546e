"""Scenes of real digits with exact labels for dense tasks: data that every machine has."""
