"""Every name of R and I that published scripts use parses, prints and parses back the same."""

# A snippet a line reads best, however long.
# ruff: noqa: E501

import textwrap

import pytest

from transect.driver.verify import verify_module
from transect.ir.function import IRModule
from transect.ir.structural import structural_mismatch
from transect.script import parse, script
from transect.tir.buffer import Buffer
from transect.tir.builder import FunctionBuilder

HEAD = """
@I.ir_module
class Module:
    I.module_attrs({"a": 1})
    I.module_global_infos({
        "vdevice": [I.vdevice("llvm", 0), I.vdevice({"kind": "cuda"}, 0, "global"), I.vdevice("cuda", 1)],
        "nothing": [I.dummy_global_info()],
        "mesh": [R.device_mesh((2, 2), I.Range(0, 4)), R.device_mesh((2,), [4, 5])],
    })

    @T.prim_func
    def kernel(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
        for i in range(16):
            with T.block("b"):
                vi = T.axis.spatial(16, i)
                B[vi] = A[vi] + 1.0

    @T.prim_func
    def dynamic(A: T.Buffer(("n",), "float32"), B: T.Buffer(("m",), "float32"), m: T.int64):
        B[0] = A[0]

    @R.function(private=True)
    def helper(x: R.Tensor((16,), "float32")) -> R.Tensor((16,), "float32"):
        return x

    @R.function
    def main(x: R.Tensor((2, 3, 8, 8), "float32"), y: R.Tensor((16,), "float32"), i: R.Tensor((4,), "int64"),
             c: R.Tensor((), "bool"), s: R.Shape(["k", 4]), p: R.Prim("int64"), o: R.Object,
             w: R.Tensor((3,), "float32"), f: R.Callable((R.Tensor((16,), "float32"),), R.Tensor((16,), "float32")),
             t: R.Tuple(R.Tensor((16,), "float32"), R.Tensor("float32", ndim=2)), z: R.Tensor(("k", 8), "float16"),
             q: R.Tensor, d: R.Tensor((4,), "float32", "cuda:1")):
"""

VALUES = {
    "add": "R.add(y, y)",
    "multiply": "R.multiply(y, 2)",
    "subtract": "y - 1.5",
    "divide": "R.divide(y, R.const(2, 'float32'))",
    "power": "y ** y",
    "maximum": "R.maximum(y, y)",
    "minimum": "R.minimum(y, y)",
    "floor_divide": "R.floor_divide(i, i)",
    "equal": "i == i",
    "greater": "y > y",
    "less": "R.less(y, y)",
    "matmul": "R.matmul(x, x, out_dtype='float32')",
    "nn.conv2d": "R.nn.conv2d(x, R.zeros((4, 3, 3, 3), 'float32'), strides=[1, 1], padding=(1, 1), out_dtype='float32')",
    "nn.conv1d": "R.nn.conv1d(R.zeros((2, 3, 8)), R.zeros((4, 3, 3)), padding=1)",
    "permute_dims": "R.permute_dims(x, axes=[0, 2, 3, 1])",
    "sum": "R.sum(x, axis=[1, -1], keepdims=True)",
    "max": "R.max(x)",
    "mean": "R.mean(x, -1)",
    "nn.relu": "R.nn.relu(x)",
    "nn.gelu": "R.nn.gelu(x)",
    "nn.silu": "R.nn.silu(x)",
    "nn.softmax": "R.nn.softmax(x, axis=1)",
    "nn.log_softmax": "R.nn.log_softmax(x)",
    "nn.layer_norm": "R.nn.layer_norm(x, R.ones((8,)), R.zeros((8,)), axes=[-1], epsilon=1e-6)",
    "nn.batch_norm": "R.nn.batch_norm(x, w, w, w, w, axis=1)",
    "nn.max_pool2d": "R.nn.max_pool2d(x, pool_size=[2, 2], strides=[2, 2])",
    "nn.avg_pool2d": "R.nn.avg_pool2d(x, (2, 2))",
    "nn.adaptive_avg_pool2d": "R.nn.adaptive_avg_pool2d(x, [1, 1])",
    "nn.pad": "R.nn.pad(y, (1, 1))",
    "nn.attention": "R.nn.attention(R.zeros((1, 4, 2, 8)), R.zeros((1, 4, 2, 8)), R.zeros((1, 4, 2, 8)), scale=0.5)",
    "nn.nll_loss": "R.nn.nll_loss(R.zeros((4, 5)), i, reduction='sum')",
    "image.resize2d": "R.image.resize2d(x, (16, 16), method='nearest_neighbor')",
    "reshape": "R.reshape(x, (6, 64))",
    "flatten": "R.flatten(x)",
    "concat": "R.concat((y, y), axis=0)",
    "split": "R.split(y, 4)",
    "layout_transform": "R.layout_transform(y, index_map=lambda i: (i // 4, i % 4))",
    "astype": "R.astype(x, 'float16')",
    "ones": "R.ones((k, 3), 'int8')",
    "zeros": "R.zeros(R.shape([k, 3]), dtype='float16')",
    "full": "R.full((k,), 1.5, 'float32')",
    "full_like": "R.full_like(y, R.const(1.0))",
    "arange": "R.arange(0, 10, 2)",
    "strided_slice": "R.strided_slice(x, axes=[1], begin=[0], end=[2])",
    "broadcast_to": "R.broadcast_to(w, (k, 3))",
    "take": "R.take(x, i, axis=2)",
    "expand_dims": "R.expand_dims(y, [0, -1])",
    "squeeze": "R.squeeze(R.expand_dims(y, 0), axis=[0])",
    "clip": "R.clip(y, 0, 6)",
    "abs": "R.abs(y)",
    "exp": "R.exp(y)",
    "tanh": "R.tanh(y)",
    "sqrt": "R.sqrt(y)",
    "cumsum": "R.cumsum(y, 0, dtype='float64')",
    "where": "R.where(c, y, y)",
    "argmax": "R.argmax(x, axis=1)",
    "index_put": "R.index_put(y, (i,), R.zeros((4,)), accumulate=True)",
    "null_value": "R.null_value()",
    "to_vdevice": "R.to_vdevice(y, 'cuda:0')",
    "shape_of": "R.shape_of(y)",
    "tensor_to_shape": "R.tensor_to_shape(i)",
    "shape_to_tensor": "R.shape_to_tensor(s)",
    "grad.start_checkpoint": "R.grad.start_checkpoint(y)",
    "grad.end_checkpoint": "R.grad.end_checkpoint(y)",
    "memory.view": "R.memory.view(y, (4, 4))",
    "memory.alloc_storage": "R.memory.alloc_storage(R.shape([64]))",
    "memory.alloc_tensor": "R.memory.alloc_tensor(R.memory.alloc_storage(R.shape([64])), 0, R.shape([16]), dtype='float32')",
    "memory.kill_storage": "R.memory.kill_storage(R.memory.alloc_storage(R.shape([64])))",
    "memory.kill_tensor": "R.memory.kill_tensor(y)",
    "builtin.alloc_tensor": "R.builtin.alloc_tensor(R.shape([16]), R.dtype('float32'), R.prim_value(0), R.str('global'))",
    "vm.kill_object": "R.vm.kill_object(y)",
    "call_tir": "R.call_tir(kernel, (y,), out_sinfo=R.Tensor((16,), 'float32'))",
    "call_dps": "R.call_dps((16,), cls.kernel, [y])",
    "call_tir_inplace": "R.call_tir_inplace(cls.kernel, (y, y), inplace_indices=[1], out_sinfo=R.Tensor((16,), 'float32'))",
    "call_dps_packed": "R.call_dps_packed('f', (y, y), out_sinfo=[R.Tensor((16,), 'float32'), R.Tensor((4,), 'int8')])",
    "call_packed": "R.call_packed('f', y, R.str('a'), R.prim_value(3), sinfo_args=[R.Tensor((16,), 'float32')])",
    "call_pure_packed": "R.call_pure_packed('f', y, sinfo_args=(R.Tensor(ndim=2),))",
    "call_inplace_packed": "R.call_inplace_packed('f', y, inplace_indices=[0], sinfo_args=R.Tensor((16,), 'float32'))",
    "call_builtin_with_ctx": "R.call_builtin_with_ctx('f', (y, R.prim_value(1)), sinfo_args=(R.Object,))",
    "dist.call_tir": "R.dist.call_tir(cls.kernel, (y,), R.DTensor((16,), 'float32', 'mesh[1]', 'S[0]'))",
    "memory.alloc_storage by position": "R.memory.alloc_storage(R.shape([64]), R.prim_value(1), R.str('shared'), R.dtype('float32'))",
    "memory.alloc_tensor by position": "R.memory.alloc_tensor(R.memory.alloc_storage(R.shape([64]), 0, 'global', 'uint8'), R.prim_value(0), R.shape([4, 4]), R.dtype('float16'))",
    "memory.view by position": "R.memory.view(y, R.shape([8]), R.dtype('float32'), R.prim_value(8))",
    "vm.alloc_storage": "R.vm.alloc_storage(R.shape([64]), R.prim_value(0), R.dtype('uint8'))",
    "vm.alloc_tensor": "R.vm.alloc_tensor(R.vm.alloc_storage(R.shape([64]), R.prim_value(0), R.dtype('uint8')), R.prim_value(0), R.shape([16]), R.dtype('float32'), R.prim_value(0))",
    "vm.call_tir_dyn": "R.vm.call_tir_dyn(cls.dynamic, (y, y, R.shape([16])))",
    "emit_te": "R.emit_te(double, z, 3)",
    "emit_te of several": "R.emit_te(pair, y, x)",
    "emit_with_ty": "R.emit_with_ty(R.call_packed('f', y), R.Tensor((k, 2), 'float32'))",
    "nonzero": "R.nonzero(y)",
    "const": "R.const([[1.5, 2], [3, -0.0]], 'float16')",
    "shape": "R.shape([k, 4, k * 2])",
    "prim_value": "R.prim_value(T.int32(3))",
    "tuple": "R.tuple(y, (x, i), R.shape([1]), 3)",
    "str": "R.str('a \"quoted\" text')",
    "dtype": "R.dtype('float32')",
    "print": "R.print(y, i, format='{} {}')",
    "assert_op": "R.assert_op(c, y, format='bad {}')",
    "ExternFunc": "R.ExternFunc('my.function')",
    "TupleGetItem": "R.TupleGetItem(t, 1)",
    "match_cast": "R.match_cast(o, R.Tensor((k, 2), 'float32'))",
    "make_closure": "R.make_closure(cls.helper, (y,))",
    "invoke_closure": "R.invoke_closure(f, (y,), sinfo_args=(R.Object,))",
    "call of a function": "cls.helper(y)",
    "call of a parameter": "f(y)",
    "call of a name": "helper(y)",
    "item": "t[0]",
}  # fmt: skip

TYPES = {
    "Tensor": "R.Tensor(dtype='float32', ndim=2)",
    "Tensor[...]": "R.Tensor[(k, 2), 'float32']",
    "Tensor with device": "R.Tensor((k, 2), 'float32', vdevice='cuda:1')",
    "Shape": "R.Shape(ndim=3)",
    "Shape of values": "R.Shape([k, k + 1])",
    "Prim": "R.Prim(value=k)",
    "Tuple": "R.Tuple([R.Tensor((k,)), R.Tuple()])",
    "Object": "R.Object",
    "Any": "R.Any()",
    "Callable": "R.Callable((R.Object, R.Prim('int64')), R.Tensor((k,), 'float32'), purity=False)",
    "Callable of anything": "R.Callable(ret=R.Object)",
    "dist.DTensor": "R.dist.DTensor((k, 8), 'float32', R.dist.device_mesh((2,), [4, 5]), 'S[0]')",
    "DTensor": "R.DTensor((k, 8), 'float32', 'mesh[0]', 'S[0], R')",
}

WITHOUT_OWN_FORM = {
    "memory.alloc_storage by position": 'scope="shared", virtual_device_index=1, dtype="float32"',
    "memory.alloc_tensor by position": 'dtype="float16"', "memory.view by position": "relative_byte_offset=R.prim_value(8)",
    "emit_te": "cls._double, (z,)", "emit_te of several": "cls._pair, (y, x)", "emit_with_ty": "R.call_packed(",
    "subtract": "R.subtract(y, R.prim_value(1.5))", "call_dps": "R.call_tir(cls.kernel, (y,)", "TupleGetItem": "t[1]",
    "call of a function": "cls.helper(y)", "call of a parameter": "f(y)", "call of a name": "cls.helper(y)", "item": "t[0]",
}  # fmt: skip


def _double(b: FunctionBuilder, x: Buffer, factor: int) -> Buffer:
    return b.compute(x.shape, lambda *i: x[i] * factor, name="y")


def _pair(b: FunctionBuilder, x: Buffer, y: Buffer) -> tuple[Buffer, Buffer]:
    return _double(b, x, 2), _double(b, y, 3)


def _round_trip(body: str) -> str:
    source = HEAD + textwrap.indent(body, " " * 8) + "\n"
    first = parse(source, double=_double, pair=_pair)
    assert isinstance(first, IRModule)
    verify_module(first)
    text = script(first)
    again = parse(text)
    assert structural_mismatch(first, again) is None, text
    assert script(again) == text
    return text


@pytest.mark.parametrize("name", VALUES)
def test_value(name: str) -> None:
    text = _round_trip(f"gv = {VALUES[name]}\nreturn gv")
    assert WITHOUT_OWN_FORM.get(name, f"R.{name}(") in text


@pytest.mark.parametrize("name", TYPES)
def test_type(name: str) -> None:
    _round_trip(f"gv = R.match_cast(o, {TYPES[name]})\nreturn gv")


def test_statements() -> None:
    text = _round_trip(
        "R.func_attr({'k': 'v', 'n': [1, 2]})\n"
        "with R.dataflow():\n"
        "    a = R.add(y, y)\n"
        "    b: R.Tensor((16,), 'float32') = a + y\n"
        "    n2 = T.int64()\n"
        "    e = R.match_cast(q, R.Tensor((n2, k), 'float32'))\n"
        "    R.output(b)\n"
        "with R.dataflow():\n"
        "    g = R.exp(e)\n"
        "if c:\n"
        "    h = R.exp(b)\n"
        "    r = R.add(h, y)\n"
        "else:\n"
        "    if c:\n"
        "        r = R.tanh(y)\n"
        "    else:\n"
        "        r = y\n"
        "@R.function\n"
        "def inner(u: R.Tensor((16,), 'float32')) -> R.Tensor((16,), 'float32'):\n"
        "    v = R.add(u, r)\n"
        "    return v\n"
        "l, m = R.split(inner(r), 2)\n"
        "R.print(g)\n"
        "return (l, (m, g))"
    )
    assert text.count("with R.dataflow():") == 2
    assert "R.output(b, e)" in text
    assert "R.output(g)" in text
    assert "def inner(" in text
