"""Memory that runs out: recognised in whichever words, met with less, told in one line."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from snapshots import current_cache

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import is_locked
from archiveprobe.base.memory import is_out_of_memory, memory_for
from archiveprobe.cache.store import Reader
from archiveprobe.embed import networks
from archiveprobe.embed.inventory import verify_caches
from archiveprobe.embed.models import read_state, seeded
from archiveprobe.embed.networks import load_backbone

ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 411041792 bytes. Error code 12 (Cannot allocate memory)"
)
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
FAULTS = [
    MemoryError(),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError(ALLOCATOR),
    RuntimeError(CUBLAS),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not execute a primitive"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"),
    OSError(12, "Cannot allocate memory"),
]
# Every fault is recognised; what follows is the same for all.
SOME = [FAULTS[0], FAULTS[4]]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x512 and 768x1000)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
    RuntimeError("could not create a primitive descriptor for the matmul primitive"),
    RuntimeError("CUDA error: device-side assert triggered"),
    ValueError("memory"),
    OSError(28, "No space left on device"),
]


def rows_of(task: Any) -> int:
    record = current_cache(task, "resnet18")
    assert record is not None
    assert not is_locked(record.folder)
    return Reader(record.folder).rows


@pytest.mark.parametrize("error", FAULTS, ids=str)
def test_memory_that_ran_out_is_recognised(error, fault_of) -> None:
    assert is_out_of_memory(error)

    def run_out() -> None:
        with memory_for("loading it", "buy more"):
            raise error

    assert fault_of(run_out) == "out of memory loading it: buy more"


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_faults_are_not_taken_for_it(error) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, memory_for("loading it", "buy more"):
        raise error
    assert caught.value is error


def test_torchs_own_class_is_recognised() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError())


def test_what_was_told_in_one_line_is_not_told_twice(fault_of) -> None:
    def told() -> None:
        with memory_for("loading it", "buy more"):
            raise InputError("out of memory elsewhere")

    assert fault_of(told) == "out of memory elsewhere"


@pytest.mark.proves("memory")
@pytest.mark.parametrize("error", SOME, ids=str)
def test_batches_are_halved_until_they_fit(archive, bench, error) -> None:
    archive.add_drawn(range(10))
    bench.settings.update(most=1, fault=error)
    assert bench.run(archive.task(), precision="fp32").embedded == 10
    assert set(bench.encoders["resnet18"].log) == {1}
    assert "batch halved to 1" in bench.text()


@pytest.mark.proves("memory")
@pytest.mark.parametrize("error", SOME, ids=str)
def test_a_crop_that_does_not_fit_is_told_and_what_is_done_is_kept(
    archive, bench, error, fault_of
) -> None:
    archive.add_drawn(range(12))
    task = archive.task()

    def use_up() -> None:
        if bench.encoders["resnet18"].log:
            raise error

    bench.settings["before"] = use_up
    fault_of(
        lambda: bench.run(task, precision="fp32"),
        "out of memory embedding one crop with ",
        "resnet18",
        " on cpu: free memory, or choose a smaller backbone",
    )
    assert rows_of(task) == 4
    del bench.settings["before"]
    assert bench.run(task).embedded == 8
    assert verify_caches(task, deep=True).ok


@pytest.mark.proves("memory")
def test_what_fits_alone_is_computed_alone(archive, bench, monkeypatch) -> None:
    monkeypatch.setattr("archiveprobe.embed.forward.usable_cores", lambda: 3)
    archive.add_drawn(range(12))
    inside, refused = threading.Semaphore(1), threading.Event()

    def small_machine() -> None:
        if not inside.acquire(blocking=False):
            refused.set()
            raise MemoryError
        # The first pass lasts until there is another beside it.
        refused.wait(60)
        inside.release()

    bench.settings["before"] = small_machine
    assert bench.run(archive.task(), precision="fp32", batch_size=1).embedded == 12
    assert refused.is_set()


@pytest.mark.parametrize("error", SOME, ids=str)
def test_memory_that_runs_out_while_a_precision_is_tried(archive, bench, error, fault_of) -> None:
    archive.add_drawn(range(4))
    bench.settings.update(faster=("bf16",), most=0, fault=error)
    fault_of(lambda: bench.run(archive.task()), "out of memory trying ", "resnet18", "--precision")


@pytest.mark.proves("memory")
@pytest.mark.parametrize("error", SOME, ids=str)
def test_weights_that_do_not_fit(make_backbone, monkeypatch, error, fault_of) -> None:
    def too_big(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(networks, "load_model", too_big)
    words = "out of memory loading ", "test_vit", " on cpu: ", "--backbone"
    fault_of(lambda: load_backbone(make_backbone("test_vit")), *words)


@pytest.mark.parametrize("error", SOME, ids=str)
def test_memory_is_not_mistaken_for_damaged_weights(
    make_backbone, monkeypatch, tmp_path, error
) -> None:
    def too_big(*_: Any, **__: Any) -> Any:
        raise error

    for name in ("safetensors.torch.load_file", "torch.load"):
        monkeypatch.setattr(name, too_big)
    for name in ("w.safetensors", "w.pt"):
        with pytest.raises(type(error)):
            read_state(tmp_path / name)
    with pytest.raises(type(error)):
        seeded(make_backbone("test_vit"), too_big)


@pytest.mark.proves("memory")
@pytest.mark.parametrize("where", ["a batch", "the trial of a precision"])
def test_another_fault_of_a_network_is_one_line(archive, bench, where, fault_of) -> None:
    archive.add_drawn(range(4))
    trial = where != "a batch"
    bench.settings.update(
        faster=("bf16",) if trial else (), most=0, fault=RuntimeError("shapes\ndiffer " * 90)
    )
    message = fault_of(
        lambda: bench.run(archive.task()),
        "resnet18.a1_in1k on cpu cannot embed (RuntimeError: shapes differ shapes",
        "check its arguments and preprocess in task.toml",
    )
    assert len(message) < 500


@pytest.mark.proves("memory")
def test_a_network_that_gives_no_tensor_is_one_line(make_backbone, fault_of) -> None:
    encoder: Any = load_backbone(make_backbone("test_resnet"))
    encoder._read = lambda module, pixels: (module(pixels), None)
    crops = np.zeros((1, 64, 64, 3), np.uint8)
    fault_of(lambda: encoder.embed(crops, np.zeros(1, bool)), "own gives tuple", "another backbone")
