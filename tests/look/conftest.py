"""Drawn archives, and an encoder that counts what it is asked to embed."""

from counted import archive, bench, draw, mixed  # noqa: F401
