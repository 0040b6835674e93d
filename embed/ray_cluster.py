"""A Ray cluster for the length of a command: one that runs already, or one of this machine.

Ray is asked for little here: to start processes, to start them again where they die, and to hand
rows from one to the next. What is done is known by receipts, whose log the command itself keeps.
"""

import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import archiveprobe
from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import one_line

# Ray's own file of a token, and the variable that stands in for it.
_TOKEN_FILE = Path(".ray") / "auth_token"
_NICENESS = "RAY_worker_niceness"
_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105
_TOKEN_BYTES = 32
_SILENT = {"log_to_driver": False, "logging_level": logging.CRITICAL}
# A socket's path has at most 107 bytes, of which Ray's own names take 64.
_LONGEST_FOLDER = 30
_END_SECONDS = 20.0
# Ray gives a node 30 s to start, and parts of it less: on a busy machine that may be too little.
_STARTS = 3
# Characters of Ray's own words.
_SHOWN = 200


@dataclass(frozen=True)
class Cluster:
    """Counts what a cluster has for units, over all of its hosts."""

    cpus: int
    gpus: int


@contextmanager
def ray_cluster(workers: int | None = None, notify: Notify = lambda _: None) -> Iterator[Cluster]:
    """Connect to the cluster of RAY_ADDRESS or `ray start`, else start one of `workers` cores here.

    Nothing of one that was started here is left when the block ends, however it does: the kernel
    ends its processes with this one. A process that is connected already stays as it is.

    Raises:
        InputError: Ray is not installed, the cluster does not answer, or none can start here.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield _size(ray)
        return
    before = descendants(os.getpid())
    with _session_folder() as folder:
        try:
            _pass_on_messages(ray, notify)
            with _one_line(), _signals_kept(), _without_chatter():
                address = ray._private.services.canonicalize_bootstrap_address(None)
                protect_token(is_local=address is None)
                if address is None:
                    _start_local(ray, folder, max(1, workers or usable_cores()))
                else:
                    variables = {"PYTHONPATH": _python_path(), "OMP_WAIT_POLICY": "PASSIVE"}
                    ray.init(address, runtime_env={"env_vars": variables}, **_SILENT)
            size = _size(ray)
            where = "of this machine" if address is None else f"at {address}"
            notify(f"Ray cluster {where}: {size.cpus} cores, {size.gpus} GPUs")
            yield size
        finally:
            started = descendants(os.getpid()) - before
            with _without_chatter():
                ray.shutdown()
            _wait_for(started)


def device_of(device: str | None, cluster: Cluster) -> str:
    """Return the device of the actors: Ray shows each of them its own GPU.

    Raises:
        InputError: the cluster has no GPU.
    """
    if device is None:
        return "cuda" if cluster.gpus else "cpu"
    if device != "cpu" and not cluster.gpus:
        raise InputError(f"the Ray cluster has no GPU for --device {device}: say --device cpu")
    return "cpu" if device == "cpu" else "cuda"


def load_ray() -> Any:
    """Import Ray. Raises InputError where it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            f"Ray cannot be loaded ({error}): pip install 'archiveprobe[ray]', or name another "
            "--engine"
        ) from None
    return ray


def _pass_on_messages(ray: Any, notify: Notify) -> None:
    """Tell what Ray reports of processes that died, which it would print on stdout."""

    def tell(data: dict[str, Any], **_: Any) -> None:
        for line in data["lines"]:
            notify(f"Ray: {' '.join(str(line).split())[:_SHOWN]}")

    ray._private.worker.print_to_stdstream = tell


def _start_local(ray: Any, folder: str, cores: int) -> None:
    """Start a cluster of this machine, which listens to this machine only, without dashboard."""
    how = {"num_cpus": cores, "include_dashboard": False, "_temp_dir": folder, **_SILENT}
    constants = ray._private.ray_constants
    # Ray has no other switch for this: its servers listen where its address is, and 127.0.0.1 is
    # replaced by a public one unless clusters of several hosts are switched off.
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment(
            {
                constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
                "PYTHONPATH": _python_path(),
                # By default workers step back behind every other process (nice 15), so that beside
                # other work they take less than the processes of the local engine do.
                _NICENESS: os.environ.get(_NICENESS, "0"),
            }
        ):
            for left in reversed(range(_STARTS)):
                try:
                    ray.init("local", **how)
                    return
                except Exception:
                    _kill_processes_of(folder)
                    if not left:
                        raise
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _kill_processes_of(folder: str) -> None:
    """End what a failed start has left, which Ray forgets: all of it names the folder."""
    for process in descendants(os.getpid()):
        with suppress(OSError):
            if folder.encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)


@contextmanager
def _session_folder() -> Iterator[str]:
    """Make a folder for sockets and logs, which is gone afterwards."""
    usual = tempfile.gettempdir()
    folder = usual if len(usual) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="ray-", dir=folder, ignore_cleanup_errors=True) as own:
        yield own


def descendants(process: int) -> set[int]:
    """Return the processes that this one has started, and that those have started, on Linux."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        # The name of a process, in parentheses, may hold anything.
        with suppress(OSError):
            state, parent, *_ = file.read_text(errors="replace").rpartition(")")[2].split()
            if state != "Z":
                children.setdefault(int(parent), []).append(int(file.parent.name))
    found, rest = set[int](), [process]
    while rest:
        some = set(children.get(rest.pop(), ())) - found
        found |= some
        rest.extend(some)
    return found


def _wait_for(processes: set[int]) -> None:
    """Wait until processes have ended that Ray does not wait for; its workers take a second."""
    end = time.monotonic() + _END_SECONDS
    while time.monotonic() < end and any(map(is_running, processes)):
        time.sleep(0.05)


def is_running(process: int) -> bool:
    """Return whether a process has not ended yet, on Linux."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def protect_token(*, is_local: bool) -> None:
    """Keep the token, with which anybody could run programs on the cluster, from other users.

    Ray 2.60.0 writes ~/.ray/auth_token readable for all; 2.60.1 mends that and can be had from no
    registry yet. So a file that is there is mended, and a cluster of this machine gets a token of
    its own, which is never written.
    """
    file = Path.home() / _TOKEN_FILE
    if file.is_file():
        file.chmod(0o600)
    elif is_local:
        os.environ.setdefault(_TOKEN, secrets.token_hex(_TOKEN_BYTES))


def _size(ray: Any) -> Cluster:
    found = ray.cluster_resources()
    return Cluster(max(1, int(found.get("CPU", 1))), int(found.get("GPU", 0)))


def _python_path() -> str:
    """Return where workers find this package: as it was found here, also in a checkout."""
    package = Path(archiveprobe.__file__).parent
    own = [str(package.parent)] if package.name == archiveprobe.__name__ else []
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _one_line() -> Iterator[None]:
    """Say in one line why there is no cluster. Raises InputError."""
    try:
        yield
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", _SHOWN)
        raise InputError(
            f"no Ray cluster ({reason}): check `ray status`; RAY_ADDRESS names the cluster to use, "
            "and without it and after `ray stop` this machine starts one"
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Give SIGTERM back to whoever handles it here, since Ray takes it."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep what Ray and its libraries write meanwhile from stderr; its own logs hold it."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with _environment({"RAY_BACKEND_LOG_LEVEL": "fatal"}), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
