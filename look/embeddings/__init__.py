"""What the page asks of embeddings: maps, neighbours, words."""
