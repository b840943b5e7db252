"""What a network costs in size: layers as the paper counts them, parameters, multiply-accumulates, activations.

All is read from the graph of ``torch.export``; nothing is computed, so the weights may also be on the meta device.

The layer count is one rule for every network: each operator on the way from the image to the logits counts as
``LAYERS`` says, and input, softmax and output are three more. So read, it gives what the paper's Table 5 prints:

* The mean of squeeze-and-excite is a pooling.
* SiLU is two layers, a sigmoid and a multiplication.
* An operator that reads weights alone (weight standardisation) is no layer: it can be computed once for all images.
"""

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from fusion.errors import UserError

ENDS = 3
"""Input, softmax and output: layers of the paper outside the graph."""

WEIGHTED = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "convolution", "linear", "addmm")
"""Convolutions and fully connected layers."""

LAYERS = {
    operator: layers
    for layers, operators in (
        (1, WEIGHTED),
        (1, ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "linalg_vector_norm")),
        (1, ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "leaky_relu", "prelu", "elu", "selu", "celu")),
        (1, ("sigmoid", "hardsigmoid", "tanh", "softmax", "softplus", "gelu", "hardswish", "mish")),
        (2, ("silu",)),  # sigmoid, multiplication
        (1, ("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "mean", "amax", "max")),
        (1, ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d")),
        (1, ("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")),
        (1, ("add", "sub", "rsub", "sum", "mul", "div", "pow", "exp", "sqrt", "rsqrt", "maximum", "minimum")),
        (2, ("addcmul",)),  # multiplication, addition
        (1, ("cat", "stack")),
        (1, ("matmul", "mm", "bmm", "einsum")),
        (3, ("scaled_dot_product_attention",)),  # product, softmax, product
        (0, ("dropout", "feature_dropout", "alpha_dropout", "pad", "constant_pad_nd")),
        (0, ("flatten", "unflatten", "view", "view_as", "reshape", "reshape_as", "squeeze", "unsqueeze")),
        (0, ("permute", "transpose", "t", "roll", "flip", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle")),
        (0, ("getitem", "slice", "select", "index", "split", "split_with_sizes", "chunk", "unbind")),
        (0, ("expand", "expand_as", "repeat", "tile", "repeat_interleave", "unfold", "im2col", "col2im")),
        (0, ("contiguous", "clone", "alias", "detach", "to", "type_as", "_assert_tensor_metadata")),
    )
    for operator in operators
}
"""Layers by operator of ``aten``, in place or not. One that only moves, copies or drops values is none."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """The size of one network, and of its work on one image."""

    layers: int
    """As the paper counts them."""
    parameters: int
    """Elements of all parameters, trained or frozen."""
    parameter_mib: float
    """Parameters and floating-point buffers (mean and variance of batch norm) as float32, in MiB; integer buffers (the
    counter ``num_batches_tracked``, index tables) are left out."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products: half the FLOPs of torch's ``FlopCounterMode``, which
    leaves out biases, normalisation, activation, pooling and other elementwise work."""
    activations: int
    """Elements written by convolutions and fully connected layers (Radosavovic et al., CVPR 2020)."""
    image_size: int
    """Side of the image in pixels."""


def measure_complexity(model: nn.Module, channels: int, image_size: int) -> Complexity:
    """Measure a network, which is left as it was.

    Args:
        model: takes [1, ``channels``, S, S] images to logits; in eval mode.
        channels: 1 grey, 3 colour.
        image_size: S, side of the image in pixels.

    Raises:
        UserError: the network has an operator that is not in ``LAYERS``.
        ValueError: it is in training mode, where its graph is another.
    """
    name = type(model).__name__
    if any(module.training for module in model.modules()):
        raise ValueError(f"{name} is in training mode; call its eval() before measuring it")
    image = next(model.parameters(), torch.empty(0)).new_zeros(1, channels, image_size, image_size)
    program = torch.export.export(model, (image,))
    steps = _steps(program)
    unknown = {operator: str(step.target) for step in steps if (operator := _operator(step)) not in LAYERS}
    if unknown:
        raise UserError(
            f"{name} has operators the layer count does not know: {', '.join(sorted(unknown.values()))}; add "
            f"{', '.join(map(repr, sorted(unknown)))} to LAYERS in bench/complexity.py with the layers each counts as, "
            "0 if it only moves values"
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())
    return Complexity(
        layers=ENDS + sum(LAYERS[_operator(step)] for step in steps),
        parameters=parameters,
        parameter_mib=(parameters + buffers) * 4 / 2**20,
        macs=_macs(program),
        activations=sum(step.meta["val"].numel() for step in steps if _operator(step) in WEIGHTED),
        image_size=image_size,
    )


def _steps(program: torch.export.ExportedProgram) -> list[fx.Node]:
    """Return the calls that the image flows through, in order."""
    inputs = set(program.graph_signature.user_inputs)
    reached = {node for node in program.graph.nodes if node.name in inputs}
    steps = []
    for node in program.graph.nodes:
        if node.op == "call_function" and not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
            steps.append(node)
    return steps


def _operator(step: fx.Node) -> str:
    """Return the key of ``LAYERS``: ``relu`` for ``aten.relu_.default``."""
    if isinstance(step.target, torch._ops.OpOverload):
        return step.target.name().removeprefix("aten::").partition(".")[0].removesuffix("_")
    return getattr(step.target, "__name__", str(step.target))


def _macs(program: torch.export.ExportedProgram) -> int:
    """Count on the graph's own fake tensors, which have shapes and no memory."""
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        fx.Interpreter(program.graph_module).run(*inputs)
    return counter.get_total_flops() // 2
