"""int8 files by ONNX Runtime's static quantization: ranges of the activations from training rows, weights by channel.

Convolutions and what lies between them are quantized; normalisation and head stay in floating point.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from bench.onnx_file import INPUT
from fusion.atomic import refuse_disk
from fusion.checksums import recording
from fusion.errors import UserError

CALIBRATION_BATCH = 16
KEPT_IN_FLOAT = ("Div", "Sub")
"""Operators of the normalisation."""


class _Rows(CalibrationDataReader):
    """Hands out the images batch by batch."""

    def __init__(self, images_u8: np.ndarray) -> None:
        starts = range(0, len(images_u8), CALIBRATION_BATCH)
        self.batches = iter([{INPUT: images_u8[start : start + CALIBRATION_BATCH]} for start in starts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def quantize_int8(path: Path, out: Path, calibration_u8: np.ndarray) -> None:
    """Write the int8 file of an exported one.

    Args:
        path: the fp32 file.
        out: file to write, through a temporary name.
        calibration_u8: [N, 1, S, S] uint8 training rows.

    Raises:
        UserError: ONNX Runtime can't quantize it, or the file can't be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            model = onnx.load(prepared)
            quantize_static(
                str(prepared),
                str(quantized),
                _Rows(calibration_u8),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,  # seven bits: with eight, sums of products saturate on a CPU without VNNI
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=[node.name for node in model.graph.node if _is_kept(node)],
            )
            result = onnx.load(quantized)
        except Exception as error:  # the tool raises whatever its parts raise
            refuse_disk(error, quantized)
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} can't be quantized: {type(error).__name__}: {reason}") from error
    facts = {one.key: one.value for one in model.metadata_props} | {"precision": "int8"}
    del result.metadata_props[:]
    for key, value in (facts | {"calibration_rows": str(len(calibration_u8))}).items():
        result.metadata_props.add(key=key, value=value)
    with recording(out) as temporary:
        temporary.write_bytes(result.SerializeToString())


def _is_kept(node: onnx.NodeProto) -> bool:
    return node.name.startswith("head.") or node.op_type in KEPT_IN_FLOAT
