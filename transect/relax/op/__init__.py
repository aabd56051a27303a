"""The operators of graphs, as one table: script name (without "R.") -> where its class is.

Each entry is a frozen dataclass, in the file of its family: what it means, its type inference, its
loops. A package of one's own adds operators through the entry-point group "transect.operators",
each entry named as in script and pointing at the class.
"""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import entry_points

from transect.relax.expr import Op
from transect.support.errors import InputError

_FAMILIES: dict[str, dict[str, str]] = {
    "call": {
        "call_tir": "CallTIR",
        "call_tir_inplace": "CallTIRInplace",
        "call_dps_packed": "CallDPSPacked",
        "call_packed": "CallPacked",
        "call_pure_packed": "CallPurePacked",
        "call_inplace_packed": "CallInplacePacked",
        "call_builtin_with_ctx": "CallBuiltinWithCtx",
        "make_closure": "MakeClosure",
        "invoke_closure": "InvokeClosure",
        "invoke_pure_closure": "InvokePureClosure",
        "null_value": "NullValue",
        "print": "Print",
        "assert_op": "AssertOp",
        "shape_of": "ShapeOf",
        "tensor_to_shape": "TensorToShape",
        "shape_to_tensor": "ShapeToTensor",
    },
    "op.attention": {
        "nn.attention": "Attention",
        "nn.attention_bias": "AttentionBias",
        "nn.attention_var_len": "AttentionVarLen",
    },
    "op.attention_mask": {
        "nn.attention_window": "AttentionWindow",
    },
    "op.binary": {
        "add": "Add",
        "subtract": "Subtract",
        "multiply": "Multiply",
        "divide": "Divide",
        "floor_divide": "FloorDivide",
        "floor_mod": "FloorMod",
        "mod": "Mod",
        "power": "Power",
        "atan2": "Atan2",
        "log_add_exp": "LogAddExp",
        "maximum": "Maximum",
        "minimum": "Minimum",
        "bitwise_and": "BitwiseAnd",
        "bitwise_or": "BitwiseOr",
        "bitwise_xor": "BitwiseXor",
        "left_shift": "LeftShift",
        "right_shift": "RightShift",
        "logical_and": "LogicalAnd",
        "logical_or": "LogicalOr",
        "logical_xor": "LogicalXor",
        "ewise_fma": "EwiseFMA",
    },
    "op.compare": {
        "equal": "Equal",
        "not_equal": "NotEqual",
        "less": "Less",
        "less_equal": "LessEqual",
        "greater": "Greater",
        "greater_equal": "GreaterEqual",
        "where": "Where",
    },
    "op.convert": {
        "bitcast": "Bitcast",
        "cast_narrow": "CastNarrow",
    },
    "op.create": {
        "full": "Full",
        "full_like": "FullLike",
        "zeros": "Zeros",
        "ones": "Ones",
        "zeros_like": "ZerosLike",
        "ones_like": "OnesLike",
        "arange": "Arange",
        "arange_size": "ArangeSize",
        "arange_tensor": "ArangeTensor",
        "triu": "Triu",
        "tril": "Tril",
        "eye": "Eye",
        "eye_like": "EyeLike",
        "one_hot": "OneHot",
        "hamming_window": "HammingWindow",
    },
    "op.data_size": {
        "count_nonzero": "CountNonzero",
        "nonzero_positions": "NonzeroPositions",
        "unique_groups": "UniqueGroups",
        "select_boxes": "SelectBoxes",
        "list_boxes": "ListBoxes",
    },
    "op.distributed": {
        "dist.annotate_sharding": "AnnotateSharding",
        "dist.redistribute": "Redistribute",
        "dist.redistribute_replica_to_shard": "RedistributeReplicaToShard",
        "dist.call_tir_local_view": "CallTIRLocalView",
        "dist.call_tir": "DistCallTIR",
        "ccl.allreduce": "AllReduce",
        "ccl.allgather": "AllGather",
        "ccl.broadcast_from_worker0": "BroadcastFromWorker0",
        "ccl.scatter_from_worker0": "ScatterFromWorker0",
    },
    "op.element": {
        "element": "Element",
    },
    "op.stretch": {
        "stretch": "Stretch",
    },
    "op.elementwise": {
        "exp": "Exp",
        "log": "Log",
        "log2": "Log2",
        "log10": "Log10",
        "log1p": "Log1p",
        "expm1": "Expm1",
        "sqrt": "Sqrt",
        "rsqrt": "Rsqrt",
        "sin": "Sin",
        "cos": "Cos",
        "tan": "Tan",
        "sinh": "Sinh",
        "cosh": "Cosh",
        "tanh": "Tanh",
        "asin": "Asin",
        "acos": "Acos",
        "atan": "Atan",
        "asinh": "Asinh",
        "acosh": "Acosh",
        "atanh": "Atanh",
        "erf": "Erf",
        "sigmoid": "Sigmoid",
        "negative": "Negative",
        "abs": "Abs",
        "sign": "Sign",
        "square": "Square",
        "floor": "Floor",
        "ceil": "Ceil",
        "trunc": "Trunc",
        "round": "Round",
        "clip": "Clip",
        "isnan": "IsNan",
        "isinf": "IsInf",
        "isfinite": "IsFinite",
        "logical_not": "LogicalNot",
        "bitwise_not": "BitwiseNot",
        "astype": "Astype",
        "wrap_param": "WrapParam",
        "builtin.stop_lift_params": "StopLiftParams",
    },
    "op.image": {
        "image.affine_grid": "AffineGrid",
        "image.grid_sample": "GridSample",
    },
    "op.index": {
        "take": "Take",
        "gather_elements": "GatherElements",
        "gather_nd": "GatherND",
        "scatter_elements": "ScatterElements",
        "scatter_nd": "ScatterND",
        "index_tensor": "IndexTensor",
        "index_put": "IndexPut",
        "reverse_sequence": "ReverseSequence",
        "tensor_scatter": "TensorScatter",
    },
    "op.layout": {
        "layout_transform": "LayoutTransform",
    },
    "op.linear_algebra": {
        "matmul": "Matmul",
        "linear": "Linear",
        "outer": "Outer",
        "einsum": "Einsum",
        "determinant": "Determinant",
    },
    "op.lowered": {
        "memory.view": "View",
        "memory.ensure_zero_offset": "EnsureZeroOffset",
        "memory.kill_storage": "KillStorage",
        "memory.kill_tensor": "KillTensor",
        "vm.kill_object": "KillObject",
        "builtin.alloc_tensor": "BuiltinAllocTensor",
        "vm.alloc_storage": "VMAllocStorage",
        "vm.alloc_tensor": "VMAllocTensor",
        "vm.call_tir_dyn": "VMCallTIRDyn",
        "to_vdevice": "ToVDevice",
        "hint_on_device": "HintOnDevice",
        "grad.start_checkpoint": "StartCheckpoint",
        "grad.end_checkpoint": "EndCheckpoint",
        "grad.no_grad": "NoGrad",
    },
    "op.manipulate": {
        "reshape": "Reshape",
        "flatten": "Flatten",
        "nn.batch_flatten": "BatchFlatten",
        "squeeze": "Squeeze",
        "expand_dims": "ExpandDims",
        "broadcast_to": "BroadcastTo",
        "permute_dims": "PermuteDims",
        "concat": "Concat",
        "stack": "Stack",
        "split": "Split",
        "repeat": "Repeat",
        "tile": "Tile",
        "flip": "Flip",
        "meshgrid": "Meshgrid",
    },
    "op.memory": {
        "memory.alloc_storage": "AllocStorage",
        "memory.alloc_tensor": "AllocTensor",
    },
    "op.nn_activation": {
        "nn.relu": "Relu",
        "nn.relu6": "Relu6",
        "nn.leakyrelu": "LeakyRelu",
        "nn.elu": "Elu",
        "nn.celu": "Celu",
        "nn.selu": "Selu",
        "nn.gelu": "Gelu",
        "nn.gelu_tanh": "GeluTanh",
        "nn.silu": "Silu",
        "nn.softplus": "Softplus",
        "nn.softsign": "Softsign",
        "nn.hardsigmoid": "HardSigmoid",
        "nn.hardswish": "HardSwish",
        "nn.mish": "Mish",
        "nn.thresholded_relu": "ThresholdedRelu",
        "nn.prelu": "Prelu",
        "nn.softmax": "Softmax",
        "nn.log_softmax": "LogSoftmax",
        "nn.dropout": "Dropout",
    },
    "op.nn_conv": {
        "nn.conv1d": "Conv1d",
        "nn.conv2d": "Conv2d",
        "nn.conv3d": "Conv3d",
        "nn.conv1d_transpose": "Conv1dTranspose",
        "nn.conv2d_transpose": "Conv2dTranspose",
        "nn.conv3d_transpose": "Conv3dTranspose",
    },
    "op.nn_loss": {
        "nn.nll_loss": "NLLLoss",
        "nn.cross_entropy_with_logits": "CrossEntropyWithLogits",
    },
    "op.nn_norm": {
        "nn.layer_norm": "LayerNorm",
        "nn.rms_norm": "RMSNorm",
        "nn.group_norm": "GroupNorm",
        "nn.instance_norm": "InstanceNorm",
        "nn.batch_norm": "BatchNorm",
        "nn.local_response_norm": "LocalResponseNorm",
    },
    "op.nn_pad": {
        "nn.pad": "Pad",
        "nn.dynamic_pad": "DynamicPad",
        "nn.pixel_shuffle": "PixelShuffle",
        "nn.pixel_unshuffle": "PixelUnshuffle",
    },
    "op.nn_pool": {
        "nn.max_pool1d": "MaxPool1d",
        "nn.max_pool2d": "MaxPool2d",
        "nn.max_pool3d": "MaxPool3d",
        "nn.avg_pool1d": "AvgPool1d",
        "nn.avg_pool2d": "AvgPool2d",
        "nn.avg_pool3d": "AvgPool3d",
        "nn.adaptive_avg_pool1d": "AdaptiveAvgPool1d",
        "nn.adaptive_avg_pool2d": "AdaptiveAvgPool2d",
        "nn.adaptive_avg_pool3d": "AdaptiveAvgPool3d",
        "nn.adaptive_max_pool1d": "AdaptiveMaxPool1d",
        "nn.adaptive_max_pool2d": "AdaptiveMaxPool2d",
        "nn.adaptive_max_pool3d": "AdaptiveMaxPool3d",
    },
    "op.nn_window": {
        "nn.max_pool_with_indices": "MaxPoolWithIndices",
        "nn.lp_pool": "LpPool",
    },
    "op.qdq": {
        "quantize": "Quantize",
        "dequantize": "Dequantize",
        "requantize": "Requantize",
    },
    "op.recurrent": {
        "nn.rnn_cell": "RnnCell",
        "nn.gru_reset": "GruReset",
        "nn.gru_cell": "GruCell",
        "nn.lstm_cell": "LstmCell",
    },
    "op.random": {
        "random.uniform": "RandomUniform",
        "random.normal": "RandomNormal",
    },
    "op.reduce": {
        "sum": "Sum",
        "prod": "Prod",
        "max": "Max",
        "min": "Min",
        "mean": "Mean",
        "variance": "Variance",
        "std": "Std",
        "collapse_sum_like": "CollapseSumLike",
        "collapse_sum_to": "CollapseSumTo",
    },
    "op.region": {
        "image.roi_align": "RoiAlign",
        "image.roi_max_pool": "RoiMaxPool",
        "nn.deform_conv2d": "DeformConv2d",
        "nn.col2im": "Col2Im",
    },
    "op.resize": {
        "image.resize": "Resize",
        "image.resize1d": "Resize1d",
        "image.resize2d": "Resize2d",
        "image.resize3d": "Resize3d",
    },
    "op.search": {
        "argmax": "Argmax",
        "argmin": "Argmin",
        "bucketize": "Bucketize",
        "nonzero": "Nonzero",
        "unique": "Unique",
        "size": "Size",
    },
    "op.signal": {
        "signal.dft": "Fourier",
        "signal.frames": "Frames",
        "signal.mel_weights": "MelWeights",
    },
    "op.slice": {
        "strided_slice": "StridedSlice",
        "slice_scatter": "SliceScatter",
        "dynamic_strided_slice": "DynamicStridedSlice",
    },
    "op.sort": {
        "sort": "Sort",
        "argsort": "Argsort",
        "topk": "TopK",
    },
    "op.statistical": {
        "cumsum": "Cumsum",
        "cumprod": "Cumprod",
        "multinomial_from_uniform": "MultinomialFromUniform",
    },
}
"""Module of transect.relax -> script name -> class."""

OPERATORS: dict[str, str] = {
    name: f"transect.relax.{module}:{attribute}"
    for module, entries in _FAMILIES.items()
    for name, attribute in entries.items()
}
"""Script name -> "module:Class"."""

ENTRY_POINTS = "transect.operators"
"""The entry-point group of operators in users' packages."""


@cache
def find_operator(name: str) -> type[Op]:
    """The operator with a script name such as "nn.softmax", loaded when first asked for.

    Raises InputError, with the closest names, if there is none.
    """
    path = OPERATORS.get(name)
    if path is not None:
        module, _, attribute = path.partition(":")
        return getattr(importlib.import_module(module), attribute)
    added = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in added:
        loaded = added[name].load()
        if not (isinstance(loaded, type) and issubclass(loaded, Op)):
            raise InputError(f"the entry point {added[name].value!r} of {name!r} is no operator")
        return loaded
    close = difflib.get_close_matches(name, [*OPERATORS, *added], n=3)
    raise InputError(
        f"there is no operator {name!r}",
        remedy=f"did you mean {' or '.join(map(repr, close))}?"
        if close
        else f'add one through the entry-point group "{ENTRY_POINTS}"',
    )
