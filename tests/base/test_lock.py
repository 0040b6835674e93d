import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from archiveprobe.base import lock
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock, is_locked

HOLD = """
import sys, time
from pathlib import Path
from archiveprobe.base.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_second_writer_in_one_process_is_refused_naming_the_first(tmp_path):
    with Lock(tmp_path):
        with pytest.raises(InputError) as caught:
            Lock(tmp_path).acquire()
        message = str(caught.value)
        holder = json.loads((tmp_path / "LOCK").read_text())
        assert f"pid {os.getpid()} on host {socket.gethostname()}" in message
        assert f"since {holder['since']}" in message
        assert message.count("\n") == 0
    with Lock(tmp_path):
        pass


@pytest.mark.proves("writers")
def test_killed_holder_does_not_block(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match=f"pid {holder.pid} "):
            Lock(tmp_path).acquire()
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / "LOCK").exists()
    assert not is_locked(tmp_path)
    with Lock(tmp_path):
        assert is_locked(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "a\\nb"}', b"\xff" * 9])
def test_unreadable_holder_is_still_one_line(tmp_path, content):
    with Lock(tmp_path):
        (tmp_path / "LOCK").write_bytes(content)
        with pytest.raises(InputError, match="another process") as caught:
            Lock(tmp_path).acquire()
    assert "\n" not in str(caught.value)


@pytest.mark.proves("disk")
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_read_only_folder(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.os, "open", refuse)
    with pytest.raises(InputError, match=r"cannot lock .*writable"):
        Lock(tmp_path).acquire()


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot lock"):
        Lock(tmp_path / "nowhere").acquire()
    assert not is_locked(tmp_path / "nowhere")


def test_lock_on_a_removed_file_is_no_lock(tmp_path, monkeypatch):
    real = lock.fcntl.flock

    def flock_after_prune(descriptor, operation):
        (tmp_path / "LOCK").unlink(missing_ok=True)
        return real(descriptor, operation)

    monkeypatch.setattr(lock.fcntl, "flock", flock_after_prune)
    with pytest.raises(InputError, match="just removed"):
        Lock(tmp_path).acquire()
