"""Embeddings on disk: written once, durably, and read by everything above."""
