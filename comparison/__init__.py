"""The only place that imports both the reproduction and the reference."""
