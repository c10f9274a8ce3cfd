r"""The table of cures: a pattern of the error text, the cure, and the source of both.

The first match is used, so specific patterns come before general ones. A pattern contains the
error's type, or words that no other error uses: a wrong cure is worse than none. `^` is the start
of a line: of `Type: message`, or of a line that the rank printed. `\1` is the pattern's group,
`{rank}` the rank that failed. Cures with `{rank}` are not used for a rank that had the launcher's
stdin.
"""

# ruff: noqa: E501 - a table: one line a cure
from __future__ import annotations

import re
from typing import NamedTuple

_TORCH = "https://docs.pytorch.org/docs/stable/"
_PYTHON = "https://docs.python.org/3/library/"
_C10D = "torch/distributed/distributed_c10d.py"
_REDUCER = "torch/csrc/distributed/c10d/reducer.cpp"


class Cure(NamedTuple):
    """One line of the table."""

    pattern: re.Pattern[str]
    words: str
    """The text after `hint:`; its commands work when pasted."""
    source: str
    """The source: a page about the error or the cure, or the file that raises the error."""


def _cure(pattern: str, words: str, source: str) -> Cure:
    return Cure(re.compile(pattern, re.MULTILINE), words, source)


_IMPORTS = (
    _cure(r"^ModuleNotFoundError: No module named 'cv2'", "python -m pip install opencv-python-headless", "pypi: opencv-python-headless"),
    _cure(r"^ModuleNotFoundError: No module named 'PIL'", "python -m pip install pillow", "pypi: pillow"),
    _cure(r"^ModuleNotFoundError: No module named 'yaml'", "python -m pip install pyyaml", "pypi: pyyaml"),
    _cure(r"^ModuleNotFoundError: No module named 'sklearn'", "python -m pip install scikit-learn", "pypi: scikit-learn"),
    _cure(r"^ModuleNotFoundError: No module named 'hydra'", "python -m pip install hydra-core", "pypi: hydra-core"),
    _cure(r"No module named 'torch\._C\._distributed_c10d'|module 'torch\.distributed' has no attribute '(?:init_process_group|is_initialized|ReduceOp)'", "this torch is built without torch.distributed: install an official build of torch", "torch/distributed/__init__.py (is_available)"),
    _cure(r"^ModuleNotFoundError: No module named '[\w.]+'; '(\w+)' is not a package", r"a file named \1.py is found before the package \1: rename that file", "https://docs.python.org/3/tutorial/modules.html#the-module-search-path"),
    _cure(r"^ModuleNotFoundError: No module named '([\w.]+)'", r"install the package that contains \1 into the Python that runs distrun; if \1 is your own file, start in its directory or add --env PYTHONPATH=ITS_DIRECTORY", _PYTHON + "exceptions.html#ModuleNotFoundError"),
    _cure(r"^(?:ImportError|AttributeError): .*partially initialized module '([\w.]+)'", r"\1 is imported while it is still being imported: a file of yours has the name of a package, or two modules import each other", "https://docs.python.org/3/faq/programming.html"),
    _cure(r"^(?:ImportError|AttributeError): .*\(consider renaming '([^']+)'", r"rename \1: it is imported instead of the module of that name", "https://docs.python.org/3/whatsnew/3.13.html"),
    _cure(r"A module that was compiled using NumPy 1\.x cannot be run in|numpy\.(?:dtype|ufunc) size changed|_ARRAY_API not found", "an extension was built for another NumPy: upgrade that package, or python -m pip install 'numpy<2'", "https://numpy.org/doc/stable/numpy_2_0_migration_guide.html"),
    _cure(r"^(?:ImportError|OSError): (lib(?:cudart|cublas|cudnn|nccl|nvrtc|cusparse|cufft|nvJitLink)[\w.-]*): cannot open shared object", r"\1 is missing: install torch again with its nvidia packages, and try without LD_LIBRARY_PATH", "torch/__init__.py (_load_global_deps)"),
    _cure(r"^(?:ImportError|OSError): .*undefined symbol: ", "a library was built for another version of torch or CUDA: build or install it again for the one that is installed", "https://github.com/pytorch/pytorch/issues/111469"),
    _cure(r"version `(GLIBC(?:XX)?_[\d.]+)' not found", r"a library needs \1, newer than this system has: install a build for this system, or use a newer image", "https://gcc.gnu.org/onlinedocs/libstdc++/faq.html"),
)  # fmt: skip
_SETUP = (
    _cure(r"Distributed package doesn't have NCCL", 'this torch has no NCCL: use init_process_group("gloo"), or install a build of torch with CUDA', _C10D),
    _cure(r"Distributed package doesn't have (\w+) built in", r"this torch has no \1: use gloo on CPUs, nccl on GPUs", _C10D),
    _cure(r"ProcessGroupNCCL is only supported with GPUs, no GPUs found", 'no GPU is visible to this rank: use init_process_group("gloo"), or run distrun check', "torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp"),
    _cure(r"Default process group has not been initialized", "call torch.distributed.init_process_group() before this line, on every rank", _C10D),
    _cure(r"trying to initialize the default process group twice", "call init_process_group() once: if not torch.distributed.is_initialized()", _C10D),
    _cure(r"error: the following arguments are required: .*--local[-_]rank", "LOCAL_RANK is in the environment: replace the argument by int(os.environ['LOCAL_RANK'])", _TORCH + "elastic/run.html"),
    _cure(r"No backend type associated with device type (\w+)", r"the process group has no backend for \1 tensors: init_process_group('cpu:gloo,cuda:nccl'), or move the tensor", _C10D),
    _cure(r"EADDRINUSE|[Aa]ddress already in use", "the script uses a port that is in use: use the MASTER_PORT that distrun sets, or port 0; ss -ltnp lists listening processes", "torch/csrc/distributed/c10d/socket.cpp"),
    _cure(r"Timed out after \d+ seconds waiting for clients", "not all ranks called init_process_group: leave out world_size and rank, distrun sets them", "torch/csrc/distributed/c10d/TCPStore.cpp"),
    _cure(r"Duplicate GPU detected|CUDA error: invalid device ordinal", "each rank needs its own GPU: torch.cuda.set_device(int(os.environ['LOCAL_RANK'])), and --nproc-per-node gpu", "https://github.com/NVIDIA/nccl/blob/master/src/init.cc"),
    _cure(r"ncclSystemError|ncclUnhandledCudaError|ncclInternalError", "--env NCCL_DEBUG=INFO prints details; with several networks also --env NCCL_SOCKET_IFNAME=NAME", "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html"),
    _cure(r"makeDevice(?:ForHostname|ForInterface)|Unable to find address for: ", "gloo found no usable address: --env GLOO_SOCKET_IFNAME=NAME, a name from: ip -br address", "torch/csrc/distributed/c10d/ProcessGroupGloo.cpp"),
)  # fmt: skip
_COLLECTIVES = (
    _cure(r"op\.preamble\.length <= op\.nbytes", "ranks called a collective with different sizes or dtypes: with distrun.comm, --env DISTRUN_COMM_CHECK=1 names the two lines", "gloo/transport/tcp/pair.cc"),
    _cure(r"Detected mismatch between collectives on ranks", "the ranks made different calls: with distrun.comm, --env DISTRUN_COMM_CHECK=1 names the two lines", "torch/csrc/distributed/c10d/ProcessGroupWrapper.cpp"),
    _cure(r"Watchdog caught collective operation timeout|Timed out waiting \d+ms for (?:recv|send) operation|failed to pass monitoredBarrier in \d+ ms|Application timeout caused pair closure", "some rank did not call this collective in time: look for a branch on the rank or for uneven data; if it is only slow, init_process_group(timeout=timedelta(hours=1))", _TORCH + "distributed.html"),
    _cure(r"Expected to have finished reduction in the prior iteration", "some parameters were not used in the loss: DistributedDataParallel(model, find_unused_parameters=True); --env TORCH_DISTRIBUTED_DEBUG=INFO names them", _REDUCER),
    _cure(r"Expected to mark a variable ready only once", "a parameter is used twice in one backward: DistributedDataParallel(model, static_graph=True), or checkpoint(…, use_reentrant=False)", _REDUCER),
    _cure(r"DDP expects same model across all ranks|appears not to match sizes of the same param in process 0", "the ranks built different models: use the same configuration on all ranks, and no size that depends on the rank or its data", "torch/csrc/distributed/c10d/reducer.cpp"),
    _cure(r"DistributedDataParallel is not needed when a module doesn't have any parameters? that requires? a gradient", "wrap the model only for training, or unfreeze a parameter first", "torch/nn/parallel/distributed.py"),
    _cure(r"^AttributeError: '(?:DistributedDataParallel|DataParallel)' object has no attribute '(\w+)'", r"the model is inside its wrapper: model.module.\1", "torch/nn/parallel/distributed.py"),
    _cure(r"sampler option is mutually exclusive with shuffle", "a DistributedSampler shuffles by itself: DataLoader(…, sampler=sampler) without shuffle, and sampler.set_epoch(epoch)", "torch/utils/data/dataloader.py"),
)  # fmt: skip
_GPU = (
    _cure(r"CUDA out of memory", "a smaller batch, or recomputation; against fragmentation: --env PYTORCH_ALLOC_CONF=expandable_segments:True; distrun check shows other processes on the GPU", _TORCH + "notes/cuda.html#memory-management"),
    _cure(r"CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_(?:ALLOC_FAILED|NOT_INITIALIZED)", "most often the GPU's memory is full: a smaller batch; distrun check shows other processes on the GPU", "https://github.com/pytorch/pytorch/issues/16831"),
    _cure(r"cuDNN version incompatibility", "another cuDNN than torch's own is loaded: start without LD_LIBRARY_PATH", "torch/backends/cudnn/__init__.py"),
    _cure(r"Torch not compiled with CUDA enabled", 'this torch is a build for CPUs: install one with CUDA, or use "cpu" as the device', "torch/cuda/__init__.py"),
    _cure(r"The NVIDIA driver on your system is too old|CUDA driver version is insufficient", "update the NVIDIA driver, or install a torch for an older CUDA; distrun check shows both versions", "torch/csrc/cuda/Module.cpp"),
    _cure(r"Found no NVIDIA driver on your system", 'no driver is loaded here: run distrun check, or use "cpu" as the device; in docker: --gpus all', "c10/cuda/CUDAFunctions.cpp"),
    _cure(r"No CUDA GPUs are available", "CUDA_VISIBLE_DEVICES hides the GPUs, or there are none: run distrun check", "torch/csrc/cuda/Module.cpp"),
    _cure(r"all CUDA-capable devices are busy or unavailable", "another process uses the GPU exclusively: run distrun check", "https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html"),
    _cure(r"CUDA error: device-side assert triggered", "most often a label or an index out of range: --env CUDA_LAUNCH_BLOCKING=1 names the line, the CPU names the value", _TORCH + "notes/cuda.html#asynchronous-execution"),
    _cure(r"CUDA error: (?:an illegal memory access|unspecified launch failure|misaligned address)", "--env CUDA_LAUNCH_BLOCKING=1 names the failing line", _TORCH + "notes/cuda.html#asynchronous-execution"),
    _cure(r"no kernel image is available for execution on the device", "this torch, or an extension, is not built for this GPU: install one whose torch.cuda.get_arch_list() has it", "torch/cuda/__init__.py"),
    _cure(r"Cannot re-initialize CUDA in forked subprocess", "CUDA was used before a fork: DataLoader(…, multiprocessing_context='spawn'), or keep CUDA out of the workers", _TORCH + "notes/multiprocessing.html"),
    _cure(r"FlashAttention only supports (\w+) GPUs or newer", r"this GPU is older than \1: use torch's own scaled_dot_product_attention (attn_implementation='sdpa')", "https://github.com/Dao-AILab/flash-attention"),
    _cure(r"Expected all tensors to be on the same device|Tensor on device \S+ is not on the expected device|Input type \(torch\.cuda\.\w+\) and weight type \(torch\.(?!cuda)\w+\)|Input type \(torch\.(?!cuda)\w+\) and weight type \(torch\.cuda", "move the model and every tensor of the batch to one device, .to(device); what is made in forward: device=x.device", "aten/src/ATen/core/op_registration/adaption.cpp"),
    _cure(r"Attempting to deserialize object on (?:a )?CUDA device", "torch.load(path, map_location='cpu')", "torch/serialization.py"),
    _cure(r"CUDA_HOME environment variable is not set|CUDA_HOME does not exist", "building an extension needs the CUDA toolkit (nvcc): install it, and --env CUDA_HOME=ITS_DIRECTORY", "torch/utils/cpp_extension.py"),
)  # fmt: skip
_TENSORS = (
    _cure(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)", r"the input has \1 features, the layer takes \2: set in_features to \1, or reshape the input", "aten/src/ATen/native/LinearAlgebra.cpp"),
    _cure(r"Expected input batch_size \((\d+)\) to match target batch_size \((\d+)\)", r"outputs and targets must have the same batch size, not \1 and \2: check view, reshape and squeeze before the loss", "torch/nn/functional.py"),
    _cure(r"stack expects each tensor to be equal size", "the samples of a batch differ in size: pad or crop them, or give DataLoader a collate_fn", "torch/utils/data/_utils/collate.py"),
    _cure(r"The size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)", r"two shapes do not broadcast, \1 against \2: print both before this line; they must be equal, or one of them 1", _TORCH + "notes/broadcasting.html"),
    _cure(r"expected scalar type \w+ but found \w+|expected both vectors to have same dtype|expect parameter to have scalar type|Expected query, key, and value to have the same dtype|must have the same dtype, but got|expected m1 and m2 to have the same dtype|Input type \(\w+\) and (?:weight|bias) type \(\w+\) should be the same", "cast the input to the model's dtype, x.to(model.weight.dtype), or run under torch.autocast", _TORCH + "amp.html"),
    _cure(r"modified by an inplace operation", "torch.autograd.set_detect_anomaly(True) names the forward line; in DDP with two forwards, broadcast_buffers=False", "torch/csrc/autograd/saved_variable.cpp"),
    _cure(r"Trying to backward through the graph a second time", "one backward per forward: detach() what is passed to the next step, or backward(retain_graph=True)", "torch/csrc/autograd/saved_variable.cpp"),
    _cure(r"element 0 of tensors does not require grad", "the loss does not depend on a trainable parameter: check no_grad, detach(), .item() and frozen layers", "torch/csrc/autograd/engine.cpp"),
    _cure(r"grad can be implicitly created only for scalar outputs", "call backward() on a scalar: loss.mean().backward(); under DataParallel there is one loss per GPU", "torch/autograd/__init__.py"),
    _cure(r"Inference tensors cannot be saved for backward", "create that tensor under torch.no_grad() instead of torch.inference_mode(), or clone() it", "torch/csrc/autograd/variable.cpp"),
    _cure(r"Expected more than 1 value per channel when training", "BatchNorm got a batch of 1: DataLoader(…, drop_last=True)", "torch/nn/functional.py"),
    _cure(r"^IndexError: Target (-?\d+) is out of bounds", r"the label \1 is outside of 0 … classes-1: check the labels and the last layer's size", "aten/src/ATen/native/LossNLL.cpp"),
    _cure(r"^IndexError: index out of range in self", "an index is num_embeddings or more: check the size of the vocabulary, or of the positions", "aten/src/ATen/native/Embedding.cpp"),
    _cure(r"Cannot copy out of meta tensor", "module.to_empty(device=device) instead of .to(device), then load or initialise the weights", "torch/nn/modules/module.py"),
)  # fmt: skip
_CHECKPOINTS = (
    _cure(r"in loading state_dict for [\s\S]*?(?:Missing|Unexpected) key\(s\) in state_dict: \"module\.", "one side is wrapped in DDP: save model.module.state_dict(), or torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, 'module.')", "torch/nn/modules/utils.py"),
    _cure(r"in loading state_dict for [\s\S]*? key\(s\) in state_dict: \"_orig_mod\.", "one side is a compiled model: save model._orig_mod.state_dict(), or compile with model.compile()", "torch/_dynamo/eval_frame.py"),
    _cure(r"in loading state_dict for [\s\S]*?size mismatch for ([\w.]+)", r"the checkpoint is from a model with other sizes: build the model with the settings of the training, or do not load \1", "torch/nn/modules/module.py"),
    _cure(r"in loading state_dict for ", "the checkpoint is from another model, or from another version of this one: print(model.load_state_dict(state, strict=False)) lists what differs", "torch/nn/modules/module.py"),
    _cure(r"Missing key in checkpoint state_dict: ", "the checkpoint has another structure: load it with the names and wrappers that it was saved with", "torch/distributed/checkpoint/default_planner.py"),
    _cure(r"loaded state dict (?:contains a parameter group that doesn't match the size|has a different number of parameter groups)", "the optimizer was saved for other parameters: build it with the same ones in the same order, or start with a new state", "torch/optim/optimizer.py"),
    _cure(r"Weights only load failed", "if you trust who wrote the file: torch.load(path, weights_only=False); else torch.serialization.add_safe_globals([THE_CLASSES_IT_NAMES])", "torch/serialization.py"),
    _cure(r"PytorchStreamReader failed (?:reading zip archive|locating file)", "the file is truncated or not a checkpoint: write it on rank 0 only, under a temporary name, and rename it when it is complete", "caffe2/serialize/inline_container.cc"),
)  # fmt: skip
_PROCESSES = (
    _cure(r"signal: Bus error|unable to [^\n]*</torch_[^\n]*: No space left on device|unable to allocate shared memory\(shm\)", "/dev/shm is full or small (df -h /dev/shm): docker run --shm-size=8g or --ipc=host; or DataLoader(…, num_workers=0)", "torch/utils/data/_utils/signal_handling.py"),
    _cure(r"An attempt has been made to start a new process before the", 'put the code of the script below if __name__ == "__main__":, because spawned workers import the script', _PYTHON + "multiprocessing.html#the-spawn-and-forkserver-start-methods"),
    _cure(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:exited unexpectedly|is killed by signal: (?:Killed|Terminated))", "often out of memory: fewer num_workers; with num_workers=0 the rank itself shows the error", "torch/utils/data/dataloader.py"),
    _cure(r"^BrokenProcessPool: ", "a process of the pool was killed, often out of memory: fewer max_workers; the rank's log may have more", _PYTHON + "concurrent.futures.html"),
    _cure(r"^(?:PicklingError|AttributeError|TypeError): .*(?:Can't pickle|Can't get local object|[Cc]annot pickle) ", "objects sent to another process must be picklable: functions and classes at the top level of a module, no lambda, open file or lock; or num_workers=0", _PYTHON + "pickle.html#what-can-be-pickled-and-unpickled"),
    _cure(r"daemonic processes are not allowed to have children", "a worker of a pool or DataLoader starts processes: use num_workers=0 there, or a ProcessPoolExecutor outside", _PYTHON + "multiprocessing.html"),
    _cure(r"Too many open files|received 0 items of ancdata", "ulimit -n 65536 before distrun; or torch.multiprocessing.set_sharing_strategy('file_system')", _TORCH + "multiprocessing.html"),
    _cure(r"can't start new thread|libgomp: Thread creation failed|OMP: Error #34", "the limit of processes and threads is reached (ulimit -u, or pids of the container): --env OMP_NUM_THREADS=1, fewer workers", "https://docs.python.org/3/library/resource.html#resource.RLIMIT_NPROC"),
    _cure(r"OMP: Error #15", "two OpenMP libraries are loaded: install torch and numpy from one source, both by pip or both by conda", "https://github.com/pytorch/pytorch/issues/37377"),
    _cure(r"^BdbQuit\b|bdb\.BdbQuit", "breakpoint() needs a terminal: --debug-rank {rank} gives it to this rank", _PYTHON + "pdb.html"),
    _cure(r"^EOFError: EOF when reading a line", "input() and pdb found no input: --debug-rank {rank} gives this rank the terminal", _PYTHON + "functions.html#input"),
    _cure(r"DefaultCPUAllocator: can't allocate memory|^MemoryError\b|^_ArrayMemoryError: |\[Errno 12\] Cannot allocate memory", "the machine's memory is full: fewer ranks a node (--nproc-per-node), fewer workers, a smaller batch", "c10/core/impl/alloc_cpu.cpp"),
)  # fmt: skip
_FILES = (
    _cure(r"No space left on device|inline_container\.cc[^\n]*unexpected pos", "a disk is full: df -h shows which; --env TMPDIR=DIRECTORY moves temporary files, --runs-dir the logs", _PYTHON + "errno.html#errno.ENOSPC"),
    _cure(r"Disk quota exceeded", "your quota is used up: quota -s shows it; --runs-dir, HF_HOME and TMPDIR may point elsewhere", _PYTHON + "errno.html#errno.EDQUOT"),
    _cure(r"Read-only file system", "that path is mounted read-only: write to another path, or mount it writable", _PYTHON + "errno.html#errno.EROFS"),
    _cure(r"^PermissionError: \[Errno 13\] Permission denied: '([^']+)'", r"this user may not use \1: namei -l shows its owner; write elsewhere, or change the owner", _PYTHON + "exceptions.html#PermissionError"),
    _cure(r"^FileNotFoundError: \[Errno 2\] No such file or directory: '(?!/)(?:[^']*/[^']*|[^'/]+\.[A-Za-z]\w*)'", "the path is relative to where distrun was started: start there, or Path(__file__).parent / … in the script", _PYTHON + "pathlib.html"),
    _cure(r"^UnicodeDecodeError: 'ascii' codec", "the locale is not UTF-8: --env PYTHONUTF8=1", "https://docs.python.org/3/using/cmdline.html#envvar-PYTHONUTF8"),
    _cure(r"[Gg]ated repo|^GatedRepoError|Access to (?:model|dataset) \S+ is restricted", "accept the terms on its page, then hf auth login on this machine, or HF_TOKEN=… in a file for --env-file", "https://huggingface.co/docs/hub/models-gated"),
    _cure(r"^(?:RepositoryNotFoundError|HfHubHTTPError|OSError|HTTPError): [\s\S]*?401 Client Error[\s\S]*?huggingface\.co", "the name is wrong, or it needs a token: hf auth login on this machine, or HF_TOKEN=… in a file for --env-file", "https://huggingface.co/docs/huggingface_hub/quick-start"),
    _cure(r"couldn't connect to 'https://huggingface\.co'|Cannot find the requested files in the disk cache and outgoing traffic has been disabled", "huggingface.co cannot be reached from here: download once where it can, then --env HF_HOME=SHARED_DIRECTORY --env HF_HUB_OFFLINE=1", "https://huggingface.co/docs/transformers/installation"),
    _cure(r"^UsageError: (?:api_key not configured|No API key configured)", "--env WANDB_MODE=offline, or WANDB_API_KEY=… in a file for --env-file", "https://docs.wandb.ai/guides/track/environment-variables"),
    _cure(r"CERTIFICATE_VERIFY_FAILED", "Python does not trust the certificate, often that of a proxy: --env SSL_CERT_FILE=ITS_BUNDLE.pem", _PYTHON + "ssl.html"),
    _cure(r"Failed to find C compiler|InvalidCxxCompiler|No working C\+\+ compiler found", "torch.compile needs a compiler: install gcc and g++, or --env CXX=ITS_PATH; --env TORCH_COMPILE_DISABLE=1 runs without compiling", "torch/_inductor/cpp_builder.py"),
)  # fmt: skip
CURES: tuple[Cure, ...] = (
    *_IMPORTS,
    *_SETUP,
    *_COLLECTIVES,
    *_PROCESSES,
    *_CHECKPOINTS,
    *_GPU,
    *_TENSORS,
    *_FILES,
)
