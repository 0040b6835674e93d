"""The one exception that leaves this folder; nothing heavy is imported here."""


class CacheError(Exception):
    """A cache cannot be used as asked; the message is one line: what, where, what to do."""
