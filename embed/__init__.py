"""Backbones look at every photograph once; what they see goes to the cache."""
