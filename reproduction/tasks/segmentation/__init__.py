"""Semantic segmentation (TPAMI'20 section 5)."""
