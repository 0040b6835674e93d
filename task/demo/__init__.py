"""The built-in archive: drawn street scenes, as untidy as a real archive, from one seed."""

from archiveprobe.task.demo.archive import DemoError, DemoSummary, write_demo

__all__ = ["DemoError", "DemoSummary", "write_demo"]
