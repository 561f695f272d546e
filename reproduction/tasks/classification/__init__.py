"""Image classification (TPAMI'20 appendix B)."""
