"""Build the index in a process of its own, whose memory goes back to the system when it ends."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.files import explained, make_folder
from archiveprobe.base.progress import Progress, silent
from archiveprobe.base.reading import PRODUCT_BYTES, digest_of
from archiveprobe.embed.processes import end_with_parent, interrupt_later
from archiveprobe.look.index import FORM, find_index, write_index
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.corrections import corrections_file
from archiveprobe.task.find_images import find_images
from archiveprobe.task.snapshot import digest_of_words, snapshot_file
