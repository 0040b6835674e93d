"""The processes that this one has started, where /proc tells."""

from pathlib import Path


def children() -> set[str]:
    """Return the numbers of the child processes of all threads."""
    return {
        child
        for thread in Path("/proc/self/task").iterdir()
        for child in _read(thread / "children").decode().split()
    }


def decoders() -> set[str]:
    """Return the child processes that run a decoder."""
    return {
        child
        for child in children()
        if b"archiveprobe.embed.decoder" in _read(Path(f"/proc/{child}/cmdline"))
    }


def _read(file: Path) -> bytes:
    """Read a file of a thread or process; nothing where that has ended since it was listed."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
