"""A task with images to review."""

from reviewed import reviewed_task, task  # noqa: F401
