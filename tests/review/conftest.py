"""A task with images to review."""

from reviewed import known_seed, reviewed_task, task  # noqa: F401
