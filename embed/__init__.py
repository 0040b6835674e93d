"""Backbones look at every image once; what they see goes to the cache."""
