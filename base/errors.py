"""The one exception for faults that a user can cause and mend."""


class InputError(Exception):
    """What is wrong, where, and what to do, in one line; shown without a traceback."""

    def __init__(self, message: str) -> None:
        # Names of files, columns and keys may hold line ends.
        super().__init__(" ".join(message.splitlines()))
