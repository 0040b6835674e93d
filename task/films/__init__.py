"""Images taken out of films."""
