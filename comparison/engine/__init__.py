"""Equivalence of any two PyTorch modules: matched, measured against noise, localized."""
