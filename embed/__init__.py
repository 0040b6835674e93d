"""Run every backbone over every image once, into the caches."""
