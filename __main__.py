"""`python -m archiveprobe`: the same as the command `archiveprobe`."""

from archiveprobe.cli import main

main()
