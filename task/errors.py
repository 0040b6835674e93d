"""The one exception for faults that a user can cause and mend."""


class InputError(Exception):
    """What is wrong, where, and what to do, in one line; shown without a traceback."""
