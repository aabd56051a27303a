"""AMX: the intrinsics on tiles, and what must be around them: permission, configuration, release.

Which register holds what is in `tile_registers`.
"""

from __future__ import annotations

from transect.codegen.llvm.expression import ExpressionEmitter, Handler
from transect.codegen.llvm.module import ModuleText
from transect.codegen.llvm.tile_registers import REGISTERS, is_tile
from transect.ir.expr import Call, GlobalVar, Intrinsic, StringImm
from transect.ir.traverse import walk
from transect.support.errors import UnsupportedError
from transect.tir.stmt import Allocate, For, Stmt
from transect.tir.tiles import ROW_BYTES, TILE_ROWS, product_name
from transect.tir.visit import child_stmts, own_terms, walk_stmts

_PALETTE = bytes([1, 0, *[0] * 14]) + b"".join(
    [
        *[ROW_BYTES.to_bytes(2, "little")] * REGISTERS,
        bytes(16),
        bytes([TILE_ROWS] * REGISTERS),
        bytes(8),
    ]
)
"""The configuration of the tiles (64 bytes, see LDTILECFG): all of them whole."""

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
_CALLS = frozenset({"call_packed", "call_cpacked", "call_extern"})


def begin(emitter: ExpressionEmitter, stmt: Stmt, *, whole: bool = False) -> None:
    """At the start of a function that runs `stmt`, if it uses tiles: ask for permission and
    configure them; at its exit, release them.

    whole: parallel loops in `stmt` run here too, not on other threads. Raises UnsupportedError if
    the target has no tiles, or if calls may destroy them.
    """
    if not _uses_tiles(stmt, whole=whole):
        return
    if "amx_tile" not in emitter.unit.target.features:
        raise UnsupportedError(
            f"AMX tiles on {emitter.unit.target}, which has none",
            remedy='compile for a target with the feature "amx_tile", such as x86-sapphirerapids',
        )
    _check_calls(stmt)
    text, module = emitter.text, emitter.text.module
    status = text.define(f"call i32 {module.helper('transect.amx.enable')}()")
    refused, ready = text.label("refused"), text.label("ready")
    allowed = text.define(f"icmp eq i32 {status}, 0")
    text.branch_if(allowed, ready, refused, likely=True)
    text.begin(refused)
    # Not through the exit: to release tiles needs the permission too.
    text.emit("ret i32 -1")
    text.open = False
    text.begin(ready)
    emitter.tiles.configured = True
    _configure(emitter)
    name = module.declare("llvm.x86.tilerelease", "void", [])
    text.at_exit.append(f"  call void {name}()")


def check_parallel(emitter: ExpressionEmitter, loop: For) -> None:
    """Raises UnsupportedError if tiles are in use around a parallel loop."""
    if emitter.tiles.live:
        raise UnsupportedError(
            f"a parallel loop over {loop.var.name!r} while {', '.join(emitter.tiles.live)} "
            "are in tile registers",
            span=loop.span,
            remedy="allocate tiles inside of the loop: each thread has its own",
        )


def resume(emitter: ExpressionEmitter) -> None:
    """After a parallel loop, of which this thread ran a part and then released its tiles."""
    if emitter.tiles.configured:
        _configure(emitter)


def _uses_tiles(stmt: Stmt, *, whole: bool) -> bool:
    stack = [stmt]
    while stack:
        item = stack.pop()
        if isinstance(item, Allocate) and is_tile(item.var):
            return True
        if whole or not (isinstance(item, For) and item.kind == "parallel"):
            stack.extend(child_stmts(item))
    return False


def _check_calls(stmt: Stmt) -> None:
    """What is called may use tiles too: the registers are the caller's to save, and nothing
    saves them."""
    for item in walk_stmts(stmt):
        for term in walk(*own_terms(item)):
            if not isinstance(term, Call):
                continue
            name = term.op.name if isinstance(term.op, Intrinsic | GlobalVar) else str(term.op)
            if isinstance(term.op, GlobalVar) or name in _CALLS:
                first = term.args[0] if term.args else None
                called = first.value if isinstance(first, StringImm) else name
                raise UnsupportedError(
                    f"a call of {called!r} in a function that uses AMX tiles",
                    span=item.span,
                    remedy="call it from another function: a call may leave no tile as it was",
                )


def _configure(emitter: ExpressionEmitter) -> None:
    """Make all tiles whole, and empty."""
    module = emitter.text.module
    table = module.helper("transect.amx.palette")
    name = module.declare("llvm.x86.ldtilecfg", "void", ["ptr"])
    emitter.text.emit(f"call void {name}(ptr {table})")


def enable(module: ModuleText) -> str:
    """status enable(): ask the operating system once for the use of tiles by this process."""
    module.declare("syscall", "i64", ["i64", "..."])
    module.declare("TVMFFIErrorSetRaisedFromCStr", "void", ["ptr", "ptr"])
    message = module.string(
        "the operating system does not let this process use AMX tiles "
        "(arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) failed): they need a processor with AMX, "
        "Linux 5.16 or later, and alternate signal stacks that are large enough. "
        "Compile for a target without the feature amx_tile to do without them"
    )
    request = f"i64 {_ARCH_PRCTL}, i64 {_REQUEST_PERMISSION}, i64 {_TILE_DATA}"
    return f"""@transect.amx.enabled = internal global i32 0
define internal i32 @transect.amx.enable() {{
entry:
  %known = load atomic i32, ptr @transect.amx.enabled monotonic, align 4
  %asked = icmp ne i32 %known, 0
  br i1 %asked, label %done, label %ask
ask:
  %answer = call i64 (i64, ...) @syscall({request})
  %given = icmp eq i64 %answer, 0
  br i1 %given, label %remember, label %refused
remember:
  store atomic i32 1, ptr @transect.amx.enabled monotonic, align 4
  br label %done
refused:
  call void @TVMFFIErrorSetRaisedFromCStr(ptr {module.string("RuntimeError")}, ptr {message})
  ret i32 -1
done:
  ret i32 0
}}"""


def palette(module: ModuleText) -> str:
    """The configuration that `begin` loads."""
    data = "".join(f"\\{byte:02X}" for byte in _PALETTE)
    return f'@transect.amx.palette = internal constant [64 x i8] c"{data}", align 64'


def _zero(emitter: ExpressionEmitter, call: Call) -> str:
    tile, _ = emitter.tiles.number(call, call.args[0])
    name = emitter.text.module.declare("llvm.x86.tilezero", "void", ["i8"])
    emitter.text.emit(f"call void {name}(i8 {tile})")
    return ""


def _load(emitter: ExpressionEmitter, call: Call) -> str:
    tile, _ = emitter.tiles.number(call, call.args[0])
    name = emitter.text.module.declare("llvm.x86.tileloadd64", "void", ["i8", "ptr", "i64"])
    address, stride = emitter.emit(call.args[1]), emitter.index(call.args[2])
    emitter.text.emit(f"call void {name}(i8 {tile}, ptr {address}, i64 {stride})")
    return ""


def _store(emitter: ExpressionEmitter, call: Call) -> str:
    tile, _ = emitter.tiles.number(call, call.args[2])
    name = emitter.text.module.declare("llvm.x86.tilestored64", "void", ["i8", "ptr", "i64"])
    address, stride = emitter.emit(call.args[0]), emitter.index(call.args[1])
    emitter.text.emit(f"call void {name}(i8 {tile}, ptr {address}, i64 {stride})")
    return ""


def _dot(emitter: ExpressionEmitter, call: Call) -> str:
    (c, total), (a, left), (b, right) = (emitter.tiles.number(call, arg) for arg in call.args)
    operation = product_name(left, right, total)
    feature = "amx_int8" if total.is_int else "amx_bf16"
    if feature not in emitter.unit.target.features:
        raise UnsupportedError(
            f"tile products of {left} on {emitter.unit.target}, which lacks {feature}"
        )
    name = emitter.text.module.declare(f"llvm.x86.{operation}", "void", ["i8", "i8", "i8"])
    emitter.text.emit(f"call void {name}(i8 {c}, i8 {a}, i8 {b})")
    return ""


HANDLERS: dict[str, Handler] = {
    "amx_tile_zero": _zero,
    "amx_tile_load": _load,
    "amx_tile_store": _store,
    "amx_tile_dot": _dot,
}
"""Intrinsic name -> what emits it."""

HELPERS = {"transect.amx.enable": enable, "transect.amx.palette": palette}
"""Parts of the module that tiles need, by name."""
