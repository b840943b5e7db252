"""Engines: a classifier opened under PyTorch or ONNX Runtime, on the CPU or a GPU, and proven to run where it should.

Every engine takes the same uint8 images from a buffer on its own device and leaves the probabilities in another one, so
that one clock can be held against all of them. Numbers of 32 bits are that: TF32 is off in PyTorch and in ONNX
Runtime's CUDA provider; TensorRT decides for itself.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from bench.onnx_file import INPUT, OUTPUT, read_onnx, require_size
from bench.providers import missing_library
from fusion.cores import cpu_count
from fusion.models.classifier import Classifier

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WARM_UP_CALLS = 2
"""Untimed calls at every new batch: algorithms are searched, kernels compiled, memory is taken."""
TENSORRT_BATCHES = {"min": 1, "opt": 32, "max": 64}
CUDA_OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": "1",
    "enable_cuda_graph": "1",
}


class RefusedError(Exception):
    """An engine can't or must not be measured, though this machine should have it; the message is the reason."""


class NotHereError(Exception):
    """This machine does not have what an engine needs; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One row of ``ENGINES``."""

    runtime: Literal["pytorch", "onnxruntime"]
    device: Literal["cpu", "cuda"]
    precisions: tuple[str, ...]
    step: Literal["eager", "graph", "compiled"] = "eager"
    """Of PyTorch: launched one by one, captured as one CUDA graph, or made by torch.compile."""
    provider: str = ""
    """Of ONNX Runtime."""
    options: dict[str, str] = field(default_factory=dict)
    """Of the provider."""
    by_default: bool = True
    """Measured without being named."""


ENGINES = {
    "pytorch-cpu": Engine(runtime="pytorch", device="cpu", precisions=("fp32",)),
    "pytorch-compiled-cpu": Engine(
        runtime="pytorch", device="cpu", precisions=("fp32",), step="compiled", by_default=False
    ),
    "onnxruntime-cpu": Engine(
        runtime="onnxruntime", device="cpu", precisions=("fp32", "int8"), provider="CPUExecutionProvider"
    ),
    "pytorch-cuda": Engine(runtime="pytorch", device="cuda", precisions=("fp32", "bf16", "fp16")),
    "pytorch-graph-cuda": Engine(runtime="pytorch", device="cuda", precisions=("fp32", "bf16", "fp16"), step="graph"),
    "pytorch-compiled-cuda": Engine(
        runtime="pytorch", device="cuda", precisions=("fp32", "fp16"), step="compiled", by_default=False
    ),
    "onnxruntime-cuda": Engine(
        runtime="onnxruntime",
        device="cuda",
        precisions=("fp32", "fp16"),
        provider="CUDAExecutionProvider",
        options=CUDA_OPTIONS,
    ),
    "onnxruntime-nhwc": Engine(
        runtime="onnxruntime",
        device="cuda",
        precisions=("fp32", "fp16"),
        provider="CUDAExecutionProvider",
        options=CUDA_OPTIONS | {"prefer_nhwc": "1"},
    ),
    "onnxruntime-tensorrt": Engine(
        runtime="onnxruntime",
        device="cuda",
        precisions=("fp32", "fp16"),
        provider="TensorrtExecutionProvider",
    ),
}
"""Name -> how a classifier is run. Compiling takes minutes for each network, so it has to be asked for."""


class Session(Protocol):
    """A classifier that is open and ready."""

    device: torch.device

    def bind(self, images_u8: Tensor) -> Callable[[], Tensor]:
        """Return a call that classifies what the buffer holds at the time.

        Args:
            images_u8: [B, 1, S, S] uint8, contiguous, on the session's device; the call reads it anew each time.

        Returns:
            A call that gives the [B] float32 probabilities on that device; the GPU may still be at work on them.
        """
        ...


def require_machine(name: str) -> None:
    """Check that this machine has what the engine ``name`` needs.

    Raises:
        NotHereError: it has not.
    """
    engine = ENGINES[name]
    if engine.device == "cuda" and not torch.cuda.is_available():
        raise NotHereError("torch sees no NVIDIA GPU here")
    if engine.provider == "TensorrtExecutionProvider" and (reason := missing_library("tensorrt")):
        raise NotHereError(f"TensorRT is not installed ({reason})")


def open_session(name: str, precision: str, *, image_size: int, file: Path | None, load: Callable[[], Any]) -> Session:
    """Open a classifier under the engine ``name``.

    Args:
        name: a key of ``ENGINES``.
        precision: one of the engine's.
        image_size: S, side of the images in pixels.
        file: the exported file of that precision; for ONNX Runtime.
        load: returns the ``Classifier`` on the CPU, which is left as it is; for PyTorch.

    Raises:
        RefusedError: it does not run where it should.
        NotHereError: the machine does not have what it needs.
        UserError: the file is not what an exported file promises to be.
    """
    require_machine(name)
    engine = ENGINES[name]
    if engine.runtime == "pytorch":
        return TorchSession(load(), engine, precision)
    assert file is not None
    require_size(read_onnx(file), image_size)
    return open_onnx(file, name, precision, image_size)


def open_onnx(file: Path, name: str, precision: str, image_size: int) -> "OnnxSession":
    """Open a checked file under the engine ``name`` of ONNX Runtime; see ``open_session``."""
    engine = ENGINES[name]
    options = dict(engine.options)
    if engine.provider == "TensorrtExecutionProvider":
        image = f"1x{image_size}x{image_size}"
        options["trt_fp16_enable"] = "1" if precision == "fp16" else "0"
        options |= {f"trt_profile_{end}_shapes": f"{INPUT}:{count}x{image}" for end, count in TENSORRT_BATCHES.items()}
    return OnnxSession(file, engine.provider, options, engine.device)


class TorchSession:
    """PyTorch: eager, captured as a CUDA graph, or compiled."""

    def __init__(self, classifier: Classifier, engine: Engine, precision: str) -> None:
        self.device, self.step = torch.device(engine.device), engine.step
        self.model = copy.deepcopy(classifier).eval()
        self.model.body.set_dtype(DTYPES[precision])
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.forward: Callable[[Tensor], Tensor] = self.model
        if self.step == "compiled":
            # Past its limits Dynamo would go on without compiling, in silence; every batch and network counts.
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 10_000
            mode = "reduce-overhead" if engine.device == "cuda" else None
            self.forward = torch.compile(self.model, dynamic=False, mode=mode)

    def bind(self, images_u8: Tensor) -> Callable[[], Tensor]:
        """Return the call; see ``Session``."""
        if self.step == "graph":
            return self._captured(images_u8)

        def run() -> Tensor:
            with torch.inference_mode():
                return self.forward(images_u8)

        return run

    def _captured(self, images_u8: Tensor) -> Callable[[], Tensor]:
        with torch.inference_mode():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_CALLS):
                    self.forward(images_u8)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = self.forward(images_u8)

        def run() -> Tensor:
            graph.replay()
            return result

        return run


class OnnxSession:
    """ONNX Runtime with buffers of torch bound to it, so that nothing is copied on the way in or out."""

    def __init__(self, file: Path, provider: str, options: dict[str, str], device: str) -> None:
        """Open ``file`` and prove that every operator is given to ``provider``.

        Raises:
            RefusedError: the provider is missing, can't be loaded, or leaves operators to another.
        """
        self.device = torch.device(device)
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise RefusedError(
                f"{provider} is missing: onnxruntime {onnxruntime.__version__} here has only {', '.join(available)}; "
                "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        onnxruntime.set_default_logger_severity(4)  # a provider that can't be loaded is told below, by name
        if device == "cuda":
            onnxruntime.preload_dlls()
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.intra_op_num_threads = cpu_count()
        # Its threads would go on spinning after a call, and slow down the engine that is timed next.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if device != "cpu":
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self.session = onnxruntime.InferenceSession(file, settings, providers=[(provider, options)])
            self.session.disable_fallback()
        except Exception as error:  # onnxruntime raises many kinds; what matters is that the engine is not to be had
            raise RefusedError(self._why_not(provider, " ".join(str(error).split())[:200])) from None
        if self.session.get_providers()[0] != provider:
            raise RefusedError(self._why_not(provider, f"the session runs on {self.session.get_providers()[0]}"))
        if elsewhere := self.nodes_elsewhere(provider):
            raise RefusedError(f"{provider} leaves operators to others: {', '.join(elsewhere)}")
        self.bindings = 0

    def nodes_elsewhere(self, provider: str) -> list[str]:
        """Return ``provider: operators`` for those that were placed elsewhere than on ``provider``."""
        placed: dict[str, set[str]] = {}
        for part in self.session.get_provider_graph_assignment_info():
            placed.setdefault(part.ep_name, set()).update(node.op_type for node in part.get_nodes())
        return [f"{name}: {', '.join(sorted(kinds))}" for name, kinds in placed.items() if name != provider]

    def bind(self, images_u8: Tensor) -> Callable[[], Tensor]:
        """Return the call; see ``Session``."""
        result = torch.empty(len(images_u8), dtype=torch.float32, device=self.device)
        binding, settings = self.session.io_binding(), onnxruntime.RunOptions()
        place = (self.device.type, 0)
        binding.bind_input(INPUT, *place, np.uint8, tuple(images_u8.shape), images_u8.data_ptr())
        binding.bind_output(OUTPUT, *place, np.float32, tuple(result.shape), result.data_ptr())
        self.bindings += 1
        settings.add_run_config_entry("gpu_graph_id", str(self.bindings))  # a graph belongs to its buffers

        def run(_kept: Tensor = images_u8) -> Tensor:  # the binding keeps an address, not the tensor
            self.session.run_with_iobinding(binding, settings)
            return result

        return run

    @staticmethod
    def _why_not(provider: str, reason: str) -> str:
        library = missing_library("tensorrt" if "Tensorrt" in provider else "cuda") if "CPU" not in provider else ""
        return f"{provider} can't be loaded: {library or reason}"


def describe_engines() -> dict[str, Any]:
    """Return what decides the speed of the engines besides the machine, as plain data."""
    return {
        "onnxruntime": {"intra_op_threads": cpu_count(), "graph_optimization": "all", "cuda": CUDA_OPTIONS},
        "pytorch": {"threads": torch.get_num_threads(), "memory_format": "channels_last"},
    }
