"""Classify the images of an archive: embed once, probe on the cached embeddings, fine-tune last."""
