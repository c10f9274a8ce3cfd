"""Each known error gets its cure, by its real text; no other error gets any."""

from __future__ import annotations

import builtins
import json
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch

from distrun.diagnose.cure_table import CURES
from distrun.diagnose.cures import cure_of, find
from tests.conftest import SCENARIOS

PROVOKED = {
    "module_missing": "the package that contains no_such_module_42 into",
    "module_of_another_name": "python -m pip install opencv-python-headless",
    "hidden_package": "a file named errors_beside.py",
    "partially_initialized": "errors_circle is imported while",
    "nccl_missing": 'init_process_group("gloo")',
    "mpi_missing": "has no MPI",
    "not_initialised": "init_process_group() before this line",
    "initialised_twice": "is_initialized()",
    "port_in_use": "ss -ltnp",
    "port_in_use_by_socket": "ss -ltnp",
    "ranks_missing": "leave out world_size",
    "unknown_interface": "GLOO_SOCKET_IFNAME",
    "unused_parameters": "find_unused_parameters=True",
    "nothing_to_train": "unfreeze",
    "attribute_of_the_wrapped": "model.module.generate",
    "sampler_and_shuffle": "sampler=sampler",
    "cuda_missing": "a build for CPUs",
    "checkpoint_of_cuda": "map_location='cpu'",
    "devices_differ": ".to(device)",
    "features": "set in_features to 5",
    "batch_sizes": "not 4 and 5",
    "uneven_samples": "collate_fn",
    "no_broadcast": "3 against 4",
    "scalar_type": "autocast",
    "layer_norm_dtypes": "autocast",
    "attention_dtypes": "autocast",
    "vectors": "autocast",
    "linear_dtypes": "autocast",
    "conv_dtypes": "autocast",
    "in_place": "set_detect_anomaly",
    "backward_twice": "retain_graph=True",
    "nothing_requires_grad": "trainable parameter",
    "no_scalar": "loss.mean()",
    "inference_tensor": "torch.no_grad()",
    "batch_norm_of_one": "drop_last=True",
    "label_out_of_range": "the label 10",
    "embedding_out_of_range": "num_embeddings",
    "meta_tensor": "to_empty",
    "keys_of_ddp": "consume_prefix_in_state_dict_if_present",
    "keys_of_compile": "_orig_mod.state_dict()",
    "sizes_of_a_checkpoint": "do not load weight",
    "keys_of_another": "strict=False",
    "optimizer_of_another": "same ones in the same order",
    "weights_only": "weights_only=False",
    "cut_checkpoint": "truncated",
    "worker_killed": "fewer num_workers",
    "pool_broken": "fewer max_workers",
    "lambda_to_a_worker": "top level of a module",
    "local_to_a_worker": "top level of a module",
    "lock_to_a_worker": "top level of a module",
    "no_main_guard": '__name__ == "__main__"',
    "child_of_a_daemon": "num_workers=0 there",
    "too_many_files": "ulimit -n 65536",
    "breakpoint_without_terminal": "--debug-rank 3 gives",
    "input_without_terminal": "--debug-rank 3 gives",
    "host_memory": "memory is full",
    "memory_error": "memory is full",
    "disk_full": "df -h",
    "read_only": "read-only",
    "permission": "/mnt/data/x",
    "relative_file": "Path(__file__).parent",
    "ascii_locale": "PYTHONUTF8=1",
    "local_rank_argument": "os.environ['LOCAL_RANK']",
}
"""Errors of scenarios/errors.py -> what their cure says."""

QUOTED = {
    # torch/csrc/cuda/Module.cpp, c10/cuda, torch/cuda/__init__.py
    "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity "
    "of 79.10 GiB of which 1.75 GiB is free.": "PYTORCH_ALLOC_CONF",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).": "update",
    "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA "
    "GPU": "no driver",
    "RuntimeError: No CUDA GPUs are available": "CUDA_VISIBLE_DEVICES",
    "AcceleratorError: CUDA error: device-side assert triggered\nCUDA kernel errors might be "
    "asynchronously reported": "CUDA_LAUNCH_BLOCKING=1",
    "AcceleratorError: CUDA error: an illegal memory access was encountered": "CUDA_LAUNCH",
    "AcceleratorError: CUDA error: invalid device ordinal": "set_device",
    "AcceleratorError: CUDA error: all CUDA-capable devices are busy or unavailable": "exclusively",
    "RuntimeError: CUDA error: no kernel image is available for execution on the device": "arch",
    "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with "
    "multiprocessing, you must use the 'spawn' start method": "multiprocessing_context='spawn'",
    "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED": "memory is full",
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
    "`cublasCreate(handle)`": "memory is full",
    "RuntimeError: cuDNN version incompatibility: PyTorch was compiled  against (9, 8, 0) but "
    "found runtime version (8, 9, 7).": "LD_LIBRARY_PATH",
    "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, "
    "cuda:0 and cpu!": ".to(device)",
    "RuntimeError: Input type (torch.cuda.FloatTensor) and weight type (torch.FloatTensor) should "
    "be the same": ".to(device)",
    "RuntimeError: FlashAttention only supports Ampere GPUs or newer.": "older than Ampere",
    "OSError: CUDA_HOME environment variable is not set. Please set it": "nvcc",
    # torch/csrc/distributed/c10d
    "ValueError: ProcessGroupNCCL is only supported with GPUs, no GPUs found!": "gloo",
    "DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3690, invalid usage, NCCL version "
    "2.28.9\nncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
    "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1b000": "LOCAL_RANK",
    "DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:94, unhandled system error "
    "(run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9\nncclSystemError: System call "
    "(e.g. socket, malloc) or external library call failed": "NCCL_DEBUG=INFO",
    "DistBackendError: [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, "
    "OpType=ALLREDUCE) ran for 600000 milliseconds before timing out.": "in time",
    "RuntimeError: [../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1000ms for recv "
    "operation to complete": "in time",
    "RuntimeError: Rank 1 failed to pass monitoredBarrier in 1000 ms": "in time",
    "RuntimeError: No backend type associated with device type cuda": "cpu:gloo,cuda:nccl",
    "RuntimeError: Expected to mark a variable ready only once. This error is caused by one of "
    "the following reasons": "static_graph=True",
    "RuntimeError: DDP expects same model across all ranks, but Rank 0 has 4 params, while rank 1 "
    "has inconsistent 2 params.": "different models",
    "RuntimeError: Detected mismatch between collectives on ranks. Rank 0 is running collective: "
    "CollectiveFingerPrint(SequenceNumber=0, OpType=ALLREDUCE": "DISTRUN_COMM_CHECK=1",
    # torch/utils/data, aten/src/ATen/MapAllocator.cpp
    "RuntimeError: DataLoader worker (pid 71) is killed by signal: Bus error. It is possible that "
    "dataloader's workers are out of shared memory.": "--shm-size",
    "RuntimeError: DataLoader worker (pid 71) is killed by signal: Killed. ": "fewer num_workers",
    "RuntimeError: unable to write to file </torch_71_123_0>: No space left on device "
    "(28)": "--shm-size",
    "RuntimeError: unable to open shared memory object </torch_71_1_0> in read-write mode: Too "
    "many open files (24)": "ulimit -n 65536",
    # a build of torch for CPUs
    "AssertionError: Torch not compiled with CUDA enabled": "a build for CPUs",
    "RuntimeError: Distributed package doesn't have NCCL built in": "no NCCL",
    "ModuleNotFoundError: No module named 'PIL'": "install pillow",
    "ModuleNotFoundError: No module named 'yaml'": "install pyyaml",
    "ModuleNotFoundError: No module named 'sklearn'": "install scikit-learn",
    "ModuleNotFoundError: No module named 'hydra'": "install hydra-core",
    "ImportError: cannot import name 'choice' from 'random' (consider renaming "
    "'/home/me/random.py' since it has the same name)": "rename /home/me/random.py",
    "OSError: [Errno 122] Disk quota exceeded: '/home/me/x'": "quota -s",
    "SSLError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed": "SSL_CERT_FILE",
    "RuntimeError: Missing key in checkpoint state_dict: model.weight.": "another structure",
    # the dynamic linker, NumPy, OpenMP
    "ImportError: /x/flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEi": "again",
    "ImportError: libcudart.so.12: cannot open shared object file: No such file": "libcudart.so.12",
    "ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found": "GLIBCXX_3.4.32",
    "ValueError: numpy.dtype size changed, may indicate binary incompatibility.": "numpy<2",
    "RuntimeError: can't start new thread": "OMP_NUM_THREADS=1",
    # huggingface_hub/utils/_http.py, transformers/utils/hub.py
    "GatedRepoError: 401 Client Error. (Request ID: Root=1)\n\nCannot access gated repo for url "
    "https://huggingface.co/meta-llama/x.": "accept the terms",
    "OSError: You are trying to access a gated repo.\nMake sure to have access": "accept the terms",
    "RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1)\n\nRepository Not Found for "
    "url: https://huggingface.co/api/models/x.": "hf auth login",
    "OSError: We couldn't connect to 'https://huggingface.co' to load the files": "HF_HUB_OFFLINE",
    # wandb/errors, torch/_inductor
    "UsageError: api_key not configured (no-tty). call wandb.login(key=[your_api_key])": "offline",
    "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config": "CXX=",
    "AttributeError: module 'torch.distributed' has no attribute 'init_process_group'": "without",
}  # fmt: skip
"""Errors that cannot be provoked on every machine, in the words of the sources named above."""

PRINTED = {
    "terminate called after throwing an instance of 'gloo::EnforceNotMet'\n  what():  [enforce fail"
    " at gloo/transport/tcp/pair.cc:456] op.preamble.length <= op.nbytes. 8 vs 4": "COMM_CHECK=1",
    "OMP: Error #15: Initializing libiomp5.so, but found libomp.so already initialized.": "OpenMP",
    "Traceback (most recent call last):\n  File x\nbdb.BdbQuit\n": "terminal",
    "train.py: error: the following arguments are required: --data, --local_rank": "LOCAL_RANK",
    "Traceback (most recent call last):\nModuleNotFoundError: No module named 'a.b'\n": "a.b into",
}

ERRORS = [n for n in vars(builtins) if n.endswith("Error") and n != "MemoryError"]
UNRELATED = [
    *(f"{name}: batch of 3, not of 4" for name in ERRORS),
    "KeyError: 'module.weight'",
    "ValueError: loss is nan at step 3",
    "RuntimeError: the address book is in use",
    "RuntimeError: No backend of the user's",
    "ImportError: cannot import name 'x' from 'y' (/home/me/y.py)",
    "ModuleNotFoundError: import of torch halted; None in sys.modules",
    "FileNotFoundError: [Errno 2] No such file or directory: '/data/train.bin'",
    "FileNotFoundError: [Errno 2] No such file or directory: 'gcc'",
    "FileNotFoundError: [Errno 2] No such file or directory: 'python3.11'",
    "FileNotFoundError: 'a.txt' is not there",
    "PermissionError: [Errno 1] Operation not permitted",
    "AttributeError: 'Trainer' object has no attribute 'module'",
    "AttributeError: 'MyDataParallelThing' object has no attribute 'generate'",
    "TypeError: 'NoneType' object is not subscriptable",
    "RuntimeError: could not load state_dict",
    "IndexError: list index out of range",
    "RuntimeError: the worker exited unexpectedly",
    "ConnectionResetError: [Errno 104] Connection reset by peer",
    "TimeoutError: timed out",
    "EOFError: Ran out of input",
    "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    "HTTPError: 401 Client Error: Unauthorized for url: https://example.org/api",
    "RuntimeError: CUDA error: unknown error",
    "AssertionError: \\1 \\g<9>",
]  # fmt: skip


@pytest.fixture(scope="module")
def provoked() -> dict[str, str]:
    program = [sys.executable, str(SCENARIOS / "errors.py")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=110, check=True)
    said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return said


def report(text: str) -> dict[str, Any]:
    kind, _, message = text.partition(": ")
    return {"type": kind, "message": message, "carriers": []}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PROVOKED)
def test_a_real_error_gets_its_cure(provoked: dict[str, str], name: str) -> None:
    if name == "cuda_missing" and torch.version.cuda is not None:
        pytest.skip("this torch is built with CUDA")
    cure = cure_of(1, report(provoked[name]), "", 3)
    assert PROVOKED[name] in cure, provoked[name]
    assert "\n" not in cure


def test_every_provoked_error_has_its_line_in_the_table(provoked: dict[str, str]) -> None:
    assert set(provoked) == set(PROVOKED)


@pytest.mark.parametrize("text", QUOTED)
def test_an_error_of_machines_that_are_not_here_gets_its_cure(text: str) -> None:
    assert QUOTED[text] in cure_of(1, report(text), "")


@pytest.mark.parametrize("text", PRINTED)
def test_what_was_only_printed_gets_its_cure(text: str) -> None:
    assert PRINTED[text] in cure_of(-signal.SIGABRT, None, "step 7\n" + text + "\n", 3)


@pytest.mark.parametrize("text", UNRELATED)
def test_an_unrelated_error_gets_none(text: str) -> None:
    assert cure_of(1, report(text), "") == ""
    assert cure_of(1, None, f"Traceback …\n{text}\n") == ""


def test_a_bus_error_without_a_word_is_a_small_shared_memory() -> None:
    assert "--shm-size" in cure_of(-signal.SIGBUS, None, "")
    assert cure_of(-signal.SIGSEGV, None, "") == ""


def test_a_carrier_counts_too_and_what_was_printed_before_does_not() -> None:
    carried = {**report("ValueError: x"), "carriers": ["carried by BdbQuit: y"]}
    assert "--debug-rank 3" in cure_of(1, carried, "", 3)
    assert cure_of(1, carried, "") == ""  # a person has quit the debugger
    assert cure_of(1, report("ValueError: x"), "OSError: Too many open files") == ""


def test_every_cure_has_its_words_its_source_and_an_error_that_shows_it(
    provoked: dict[str, str],
) -> None:
    texts = (*provoked.values(), *QUOTED, *PRINTED)
    shown = {found[0] for text in texts if (found := find(text, 0))}
    for cure in CURES:
        assert cure.source and cure.words and "\n" not in cure.words
        assert not re.search(r"[.;]$", cure.words)
    assert len(CURES) >= 30
    assert [c.pattern.pattern for c in CURES if c not in shown] == []
