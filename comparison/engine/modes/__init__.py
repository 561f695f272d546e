"""The modes of a comparison, M0 to M10; each gives a verdict of its own."""
