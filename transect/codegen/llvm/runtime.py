"""The run-time helpers that compiled modules carry along, as IR text: workspace and parallel loops.

They depend on the C library and share libgomp where the process has it: an exported object needs
nothing else.
A helper is written into a module on first use. Those for values of tvm-ffi are in `objects`.
"""

from __future__ import annotations

import os

from transect.codegen.llvm.module import ModuleText
from transect.codegen.llvm.objects import checked_size
from transect.runtime.code import UNLOAD

_SLOTS = 4
"""Released blocks kept per size class."""

_CLOSED = 1 << 16
"""The bit of the pool's gate that says that nobody may enter; below it, how many are inside."""

_SPINS = 20000
"""Looks at a word before a thread sleeps: some ten microseconds."""

_ONLY_IF_LOADED = os.RTLD_LAZY | os.RTLD_NOLOAD
"""How libgomp is opened: a process that has it has threads that wait in it, which ours would
disturb; one that has not is better off with a pool that waits for nobody who comes late."""

_PIECES = 8
"""Pieces of a thread's range of a parallel loop that other threads may take, at most."""


def _declare_error(module: ModuleText) -> None:
    module.declare("TVMFFIErrorSetRaisedFromCStr", "void", ["ptr", "ptr"])


def workspace_pool(module: ModuleText) -> str:
    """The pool: per size class (a power of two) some released blocks, exchanged without locks.

    A block starts with 64 bytes that hold its class; what is handed out is 64-byte aligned.
    """
    return f"@transect.workspace.pool = internal global [{64 * _SLOTS} x ptr] zeroinitializer"


def workspace_take(module: ModuleText) -> str:
    """status take(slot, element bytes, number of dimensions, dimensions): fill the slot."""
    module.helper("transect.workspace.pool")
    _declare_error(module)
    module.declare("aligned_alloc", "ptr", ["i64", "i64"])
    module.declare("llvm.ctlz.i64", "i64", ["i64", "i1"])
    no_memory = module.string("out of memory for a workspace")
    return f"""define internal i32 @transect.workspace.take(
  ptr %slot, i64 %element, i64 %count, ptr %dims) {{
entry:
{checked_size(module, "%count", "a workspace's size is negative or overflows", "find")}
find:
  %last = add i64 %size, 63
  %zeros = call i64 @llvm.ctlz.i64(i64 %last, i1 false)
  %bits = sub i64 64, %zeros
  %tiny = icmp ult i64 %bits, 10
  %class = select i1 %tiny, i64 10, i64 %bits
  %first = mul i64 %class, {_SLOTS}
  br label %scan
scan:
  %s = phi i64 [ 0, %find ], [ %s.next, %scan.next ]
  %at = add i64 %first, %s
  %cell = getelementptr ptr, ptr @transect.workspace.pool, i64 %at
  %seen = load atomic ptr, ptr %cell monotonic, align 8
  %empty = icmp eq ptr %seen, null
  br i1 %empty, label %scan.next, label %take
take:
  %taken = atomicrmw xchg ptr %cell, ptr null acquire
  %lost = icmp eq ptr %taken, null
  br i1 %lost, label %scan.next, label %found
scan.next:
  %s.next = add i64 %s, 1
  %again = icmp ult i64 %s.next, {_SLOTS}
  br i1 %again, label %scan, label %fresh
fresh:
  %bytes = shl i64 1, %class
  %made = call ptr @aligned_alloc(i64 64, i64 %bytes)
  %none = icmp eq ptr %made, null
  br i1 %none, label %failed, label %mark
failed:
  call void @TVMFFIErrorSetRaisedFromCStr(ptr {module.string("MemoryError")}, ptr {no_memory})
  ret i32 -1
mark:
  store i64 %class, ptr %made
  br label %found
found:
  %block = phi ptr [ %taken, %take ], [ %made, %mark ]
  %data = getelementptr i8, ptr %block, i64 64
  store ptr %data, ptr %slot
  ret i32 0
}}"""


def workspace_release(module: ModuleText) -> str:
    """release(slot): give the slot's block back, if it holds one, and empty it."""
    module.helper("transect.workspace.pool")
    module.declare("free", "void", ["ptr"])
    return f"""define internal void @transect.workspace.release(ptr %slot) {{
entry:
  %data = load ptr, ptr %slot
  %none = icmp eq ptr %data, null
  br i1 %none, label %done, label %give
give:
  store ptr null, ptr %slot
  %block = getelementptr i8, ptr %data, i64 -64
  %class = load i64, ptr %block
  %first = mul i64 %class, {_SLOTS}
  br label %scan
scan:
  %s = phi i64 [ 0, %give ], [ %s.next, %next ]
  %at = add i64 %first, %s
  %cell = getelementptr ptr, ptr @transect.workspace.pool, i64 %at
  %swap = cmpxchg ptr %cell, ptr null, ptr %block release monotonic
  %kept = extractvalue {{ptr, i1}} %swap, 1
  br i1 %kept, label %done, label %next
next:
  %s.next = add i64 %s, 1
  %again = icmp ult i64 %s.next, {_SLOTS}
  br i1 %again, label %scan, label %drop
drop:
  call void @free(ptr %block)
  br label %done
done:
  ret void
}}"""


def workspace_drain(module: ModuleText) -> str:
    """drain(): free every pooled block."""
    module.helper("transect.workspace.pool")
    module.declare("free", "void", ["ptr"])
    return f"""define internal void @transect.workspace.drain() {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  %cell = getelementptr ptr, ptr @transect.workspace.pool, i64 %i
  %block = atomicrmw xchg ptr %cell, ptr null acquire
  call void @free(ptr %block)
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, {64 * _SLOTS}
  br i1 %more, label %loop, label %done
done:
  ret void
}}"""


def chunk(module: ModuleText) -> str:
    """chunk(body, context, begin, end): run a part of a parallel loop on this thread.

    The first error of any thread is moved into the context's first field, for the join to raise.
    """
    module.declare("TVMFFIErrorMoveFromRaised", "void", ["ptr"])
    module.declare("TVMFFIObjectDecRef", "i32", ["ptr"])
    return """define internal void @transect.chunk(ptr %body, ptr %context, i64 %begin, i64 %end) {
entry:
  %error = alloca ptr
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %run, label %done
run:
  %status = call i32 %body(ptr %context, i64 %begin, i64 %end)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %done, label %failed
failed:
  store ptr null, ptr %error
  call void @TVMFFIErrorMoveFromRaised(ptr %error)
  %raised = load ptr, ptr %error
  %swap = cmpxchg ptr %context, ptr null, ptr %raised release monotonic
  %first = extractvalue {ptr, i1} %swap, 1
  br i1 %first, label %done, label %drop
drop:
  %ignored = call i32 @TVMFFIObjectDecRef(ptr %raised)
  br label %done
done:
  ret void
}"""


def part_ways(module: ModuleText) -> str:
    """part.ways(cpu, index): leave the processor `cpu`, on which the caller of a parallel loop
    runs, if this thread (not the caller itself, index 0) has been woken there and may go elsewhere.

    A scheduler may keep two threads on one processor for tenths of a second while another idles
    (measured: every call of the demo model after a pause took twice its time).
    """
    for name, parameters in (
        ("sched_getcpu", []),
        ("sched_getaffinity", ["i32", "i64", "ptr"]),
        ("sched_setaffinity", ["i32", "i64", "ptr"]),
    ):
        module.declare(name, "i32", parameters)
    module.declare("llvm.memset.p0.i64", "void", ["ptr", "i8", "i64", "i1"])
    return """define internal void @transect.part.ways(i64 %cpu, i64 %index) {
entry:
  %mask = alloca [16 x i64], align 8
  %own = alloca [16 x i64], align 8
  %caller = icmp eq i64 %index, 0
  br i1 %caller, label %done, label %look
look:
  %here = call i32 @sched_getcpu()
  %place = sext i32 %here to i64
  %same = icmp eq i64 %place, %cpu
  %small = icmp ult i64 %place, 1024
  %check = and i1 %same, %small
  br i1 %check, label %read, label %done
read:
  call void @llvm.memset.p0.i64(ptr %mask, i8 0, i64 128, i1 false)
  call void @llvm.memset.p0.i64(ptr %own, i8 0, i64 128, i1 false)
  %r0 = call i32 @sched_getaffinity(i32 0, i64 128, ptr %own)
  %r1 = call i32 @sched_getaffinity(i32 0, i64 128, ptr %mask)
  %known = icmp sge i32 %r0, 0
  br i1 %known, label %clear, label %done
clear:
  %w = lshr i64 %place, 6
  %b = and i64 %place, 63
  %word.at = getelementptr i64, ptr %mask, i64 %w
  %word = load i64, ptr %word.at
  %bit = shl i64 1, %b
  %not = xor i64 %bit, -1
  %left = and i64 %word, %not
  store i64 %left, ptr %word.at
  ; With no other processor allowed this fails, and nothing changes.
  %r2 = call i32 @sched_setaffinity(i32 0, i64 128, ptr %mask)
  %moved = icmp eq i32 %r2, 0
  br i1 %moved, label %restore, label %done
restore:
  %r3 = call i32 @sched_setaffinity(i32 0, i64 128, ptr %own)
  br label %done
done:
  ret void
}"""


def part(module: ModuleText) -> str:
    """part(job, index): the index-th of the job's contiguous ranges of iterations, piece by piece,
    then pieces that are left of the others: processors are not equally fast, and the system takes
    one away now and then.

    The counter of what has been taken of range i is in cache line i + 1 of the job.
    """
    module.helper("transect.chunk")
    module.helper("transect.part.ways")
    return """define internal void @transect.part(ptr %job, i64 %index) {
entry:
  %p4 = getelementptr i8, ptr %job, i64 32
  %caller = load i64, ptr %p4
  call void @transect.part.ways(i64 %caller, i64 %index)
  %body = load ptr, ptr %job
  %p1 = getelementptr i8, ptr %job, i64 8
  %context = load ptr, ptr %p1
  %p2 = getelementptr i8, ptr %job, i64 16
  %first = load i64, ptr %p2
  %p3 = getelementptr i8, ptr %job, i64 24
  %count = load i64, ptr %p3
  %p5 = getelementptr i8, ptr %job, i64 40
  %parts = load i64, ptr %p5
  %p6 = getelementptr i8, ptr %job, i64 48
  %piece = load i64, ptr %p6
  %each = sdiv i64 %count, %parts
  %rest = srem i64 %count, %parts
  br label %range
range:
  %turn = phi i64 [ 0, %entry ], [ %turn.next, %next ]
  %ahead = add i64 %index, %turn
  %beyond = icmp uge i64 %ahead, %parts
  %wrapped = sub i64 %ahead, %parts
  %owner = select i1 %beyond, i64 %wrapped, i64 %ahead
  %less = icmp slt i64 %owner, %rest
  %extra = select i1 %less, i64 %owner, i64 %rest
  %whole = mul i64 %each, %owner
  %offset = add i64 %whole, %extra
  %begin = add i64 %first, %offset
  %more = zext i1 %less to i64
  %size = add i64 %each, %more
  %line = add i64 %owner, 1
  %place = shl i64 %line, 6
  %counter = getelementptr i8, ptr %job, i64 %place
  br label %look
look:
  %seen = load atomic i64, ptr %counter monotonic, align 8
  %left = icmp slt i64 %seen, %size
  br i1 %left, label %take, label %next
take:
  %at = atomicrmw add ptr %counter, i64 %piece monotonic
  %got = icmp slt i64 %at, %size
  br i1 %got, label %run, label %next
run:
  %to = add i64 %at, %piece
  %full = icmp slt i64 %to, %size
  %stop = select i1 %full, i64 %to, i64 %size
  %from.here = add i64 %begin, %at
  %to.here = add i64 %begin, %stop
  call void @transect.chunk(ptr %body, ptr %context, i64 %from.here, i64 %to.here)
  br label %look
next:
  %turn.next = add i64 %turn, 1
  %again = icmp ult i64 %turn.next, %parts
  br i1 %again, label %range, label %done
done:
  ret void
}"""


def parallel_setup(module: ModuleText) -> str:
    """setup(): find libgomp, if it is in the process, and the number of threads, once.

    Threads that race write the same values.
    """
    for name, result, parameters in (
        ("dlopen", "ptr", ["ptr", "i32"]),
        ("dlsym", "ptr", ["ptr", "ptr"]),
        ("getenv", "ptr", ["ptr"]),
        ("strtol", "i64", ["ptr", "ptr", "i32"]),
        ("sched_getaffinity", "i32", ["i32", "i64", "ptr"]),
        ("llvm.ctpop.i64", "i64", ["i64"]),
    ):
        module.declare(name, result, parameters)
    names = ("omp_get_thread_num", "omp_in_parallel", "GOMP_parallel")
    module.globals.append("@transect.threads = internal global i64 0")
    module.globals.append(f"@transect.gomp = internal global [{len(names)} x ptr] zeroinitializer")
    lookups = "\n".join(
        f"  %f{i} = call ptr @dlsym(ptr %library, ptr {module.string(name)})\n"
        f"  %g{i} = getelementptr ptr, ptr @transect.gomp, i64 {i}\n"
        f"  store atomic ptr %f{i}, ptr %g{i} release, align 8"
        for i, name in enumerate(names)
    )
    return f"""define internal void @transect.parallel.setup() cold {{
entry:
  %mask = alloca [16 x i64], align 8
  %choice = call ptr @getenv(ptr {module.string("TRANSECT_OPENMP")})
  %chosen = icmp ne ptr %choice, null
  br i1 %chosen, label %pick, label %open
pick:
  %letter = load i8, ptr %choice
  %off = icmp eq i8 %letter, 48
  br i1 %off, label %count, label %open
open:
  %library = call ptr @dlopen(ptr {module.string("libgomp.so.1")}, i32 {_ONLY_IF_LOADED})
  %missing = icmp eq ptr %library, null
  br i1 %missing, label %count, label %look
look:
{lookups}
  br label %count
count:
  %text = call ptr @getenv(ptr {module.string("TRANSECT_NUM_THREADS")})
  %unset = icmp eq ptr %text, null
  br i1 %unset, label %ask, label %parse
parse:
  %wanted = call i64 @strtol(ptr %text, ptr null, i32 10)
  %sane = icmp sgt i64 %wanted, 0
  br i1 %sane, label %done, label %ask
ask:
  call void @llvm.memset.p0.i64(ptr %mask, i8 0, i64 128, i1 false)
  %ignored = call i32 @sched_getaffinity(i32 0, i64 128, ptr %mask)
  br label %sum
sum:
  %i = phi i64 [ 0, %ask ], [ %i.next, %sum ]
  %total = phi i64 [ 0, %ask ], [ %total.next, %sum ]
  %place = getelementptr i64, ptr %mask, i64 %i
  %word = load i64, ptr %place
  %ones = call i64 @llvm.ctpop.i64(i64 %word)
  %total.next = add i64 %total, %ones
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, 16
  br i1 %more, label %sum, label %counted
counted:
  %some = icmp sgt i64 %total.next, 0
  %usable = select i1 %some, i64 %total.next, i64 1
  br label %done
done:
  %threads = phi i64 [ %wanted, %parse ], [ %usable, %counted ]
  %large = icmp sgt i64 %threads, 256
  %capped = select i1 %large, i64 256, i64 %threads
  store atomic i64 %capped, ptr @transect.threads release, align 8
  ret void
}}"""


def parallel(module: ModuleText) -> str:
    """parallel(body, context, first, count, grain): run body over [first, first + count), at least
    `grain` iterations a thread; inside another parallel loop on this thread alone.

    The threads share a job: body, context, first, count, the caller's processor, the number of
    ranges, the iterations of a piece; then a cache line per range.
    """
    module.helper("transect.parallel.setup")
    module.helper("transect.part")
    module.helper("transect.pool.run")
    module.declare("llvm.memset.p0.i64", "void", ["ptr", "i8", "i64", "i1"])
    return f"""define internal void @transect.gomp.worker(ptr %job) {{
  %number = load ptr, ptr @transect.gomp
  %me = call i32 %number()
  %index = sext i32 %me to i64
  call void @transect.part(ptr %job, i64 %index)
  ret void
}}
define internal void @transect.parallel(
  ptr %body, ptr %context, i64 %first, i64 %count, i64 %grain) {{
entry:
  %known = load atomic i64, ptr @transect.threads acquire, align 8
  %ready = icmp ne i64 %known, 0
  br i1 %ready, label %decide, label %setup
setup:
  call void @transect.parallel.setup()
  br label %decide
decide:
  %threads = load atomic i64, ptr @transect.threads acquire, align 8
  %useful = sdiv i64 %count, %grain
  %fewer = icmp slt i64 %useful, %threads
  %parts = select i1 %fewer, i64 %useful, i64 %threads
  %single = icmp sle i64 %parts, 1
  br i1 %single, label %alone, label %choose
choose:
  %lines = add i64 %parts, 1
  %bytes = shl i64 %lines, 6
  %job = alloca i8, i64 %bytes, align 64
  call void @llvm.memset.p0.i64(ptr align 64 %job, i8 0, i64 %bytes, i1 false)
  store ptr %body, ptr %job
  %j1 = getelementptr i8, ptr %job, i64 8
  store ptr %context, ptr %j1
  %j2 = getelementptr i8, ptr %job, i64 16
  store i64 %first, ptr %j2
  %j3 = getelementptr i8, ptr %job, i64 24
  store i64 %count, ptr %j3
  %here = call i32 @sched_getcpu()
  %cpu = sext i32 %here to i64
  %j4 = getelementptr i8, ptr %job, i64 32
  store i64 %cpu, ptr %j4
  %j5 = getelementptr i8, ptr %job, i64 40
  store i64 %parts, ptr %j5
  %pieces = mul i64 %parts, {_PIECES}
  %small = sdiv i64 %count, %pieces
  %enough = icmp sgt i64 %small, %grain
  %piece = select i1 %enough, i64 %small, i64 %grain
  %j6 = getelementptr i8, ptr %job, i64 48
  store i64 %piece, ptr %j6
  %g2 = getelementptr ptr, ptr @transect.gomp, i64 2
  %fork = load atomic ptr, ptr %g2 acquire, align 8
  %no.gomp = icmp eq ptr %fork, null
  br i1 %no.gomp, label %pool, label %gomp
gomp:
  %g1 = getelementptr ptr, ptr @transect.gomp, i64 1
  %inside.f = load ptr, ptr %g1
  %inside = call i32 %inside.f()
  %nested = icmp ne i32 %inside, 0
  br i1 %nested, label %alone, label %team
team:
  %n = trunc i64 %parts to i32
  call void %fork(ptr @transect.gomp.worker, ptr %job, i32 %n, i32 0)
  ret void
pool:
  %ran = call i1 @transect.pool.run(ptr %job)
  br i1 %ran, label %done, label %alone
alone:
  %end = add i64 %first, %count
  call void @transect.chunk(ptr %body, ptr %context, i64 %first, i64 %end)
  br label %done
done:
  ret void
}}"""


def pool_run(module: ModuleText) -> str:
    """run(job): on the module's own threads, which wait on a futex; False if they are busy
    (a nested loop, or another caller) or cannot be started, and then nothing has run.

    The caller does not wait for workers that come late: it closes the gate when nothing is left to
    take, and leaves when those that are inside have left. Only who went through the open gate
    reads the job.
    """
    module.helper("transect.part")
    module.declare("syscall", "i64", ["i64", "..."])
    module.declare("pthread_create", "i32", ["ptr", "ptr", "ptr", "ptr"])
    module.declare("pthread_detach", "i32", ["i64"])
    module.globals.append(f"@transect.futex.number = internal constant i64 {module.futex_number}")
    futex = "@transect.futex.number"
    return f"""@transect.pool.lock = internal global i32 0
@transect.pool.generation = internal global i32 0
@transect.pool.gate = internal global i32 {_CLOSED}
@transect.pool.started = internal global i32 0
@transect.pool.job = internal global ptr null
define internal void @transect.futex.wait(ptr %word, i32 %value) {{
  %number = load i64, ptr {futex}
  %r = call i64 (i64, ...) @syscall(i64 %number, ptr %word, i32 128,
    i32 %value, ptr null, ptr null, i32 0)
  ret void
}}
define internal void @transect.futex.wake(ptr %word) {{
  %number = load i64, ptr {futex}
  %r = call i64 (i64, ...) @syscall(i64 %number, ptr %word, i32 129,
    i32 2147483647, ptr null, ptr null, i32 0)
  ret void
}}
define internal void @transect.pool.until(ptr %word, i32 %value, i1 %want) {{
entry:
  br label %spin
spin:
  %n = phi i32 [ 0, %entry ], [ %n.next, %spin.next ]
  %seen = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %seen, %value
  %good = icmp eq i1 %same, %want
  br i1 %good, label %done, label %spin.next
spin.next:
  %n.next = add i32 %n, 1
  %more = icmp ult i32 %n.next, {_SPINS}
  br i1 %more, label %spin, label %sleep
sleep:
  %now = load atomic i32, ptr %word acquire, align 4
  %same2 = icmp eq i32 %now, %value
  %good2 = icmp eq i1 %same2, %want
  br i1 %good2, label %done, label %wait
wait:
  call void @transect.futex.wait(ptr %word, i32 %now)
  br label %sleep
done:
  ret void
}}
define internal ptr @transect.pool.worker(ptr %argument) {{
entry:
  %packed = ptrtoint ptr %argument to i64
  %index = and i64 %packed, 65535
  %high = lshr i64 %packed, 32
  %start = trunc i64 %high to i32
  br label %loop
loop:
  %seen = phi i32 [ %start, %entry ], [ %now, %next ]
  call void @transect.pool.until(ptr @transect.pool.generation, i32 %seen, i1 false)
  %now = load atomic i32, ptr @transect.pool.generation acquire, align 4
  %inside = atomicrmw add ptr @transect.pool.gate, i32 1 acq_rel
  %shut = icmp uge i32 %inside, {_CLOSED}
  br i1 %shut, label %finished, label %enter
enter:
  %job = load ptr, ptr @transect.pool.job
  %parts.at = getelementptr i8, ptr %job, i64 40
  %parts = load i64, ptr %parts.at
  %mine = icmp ult i64 %index, %parts
  br i1 %mine, label %work, label %finished
work:
  call void @transect.part(ptr %job, i64 %index)
  br label %finished
finished:
  %before = atomicrmw sub ptr @transect.pool.gate, i32 1 acq_rel
  %last = icmp eq i32 %before, {_CLOSED + 1}
  br i1 %last, label %wake, label %next
wake:
  call void @transect.futex.wake(ptr @transect.pool.gate)
  br label %next
next:
  br label %loop
}}
define internal i1 @transect.pool.run(ptr %job) {{
entry:
  %thread = alloca i64
  %parts.at = getelementptr i8, ptr %job, i64 40
  %parts = load i64, ptr %parts.at
  %lock = cmpxchg ptr @transect.pool.lock, i32 0, i32 1 acquire monotonic
  %locked = extractvalue {{i32, i1}} %lock, 1
  br i1 %locked, label %grow, label %busy
busy:
  ret i1 false
grow:
  %started = load i32, ptr @transect.pool.started
  %next.index = add i32 %started, 1
  %wide = zext i32 %next.index to i64
  %enough = icmp uge i64 %wide, %parts
  br i1 %enough, label %publish, label %create
create:
  %generation = load i32, ptr @transect.pool.generation
  %g64 = zext i32 %generation to i64
  %shifted = shl i64 %g64, 32
  %both = or i64 %shifted, %wide
  %argument = inttoptr i64 %both to ptr
  %r = call i32 @pthread_create(ptr %thread, ptr null, ptr @transect.pool.worker, ptr %argument)
  %made = icmp eq i32 %r, 0
  br i1 %made, label %count, label %give.up
give.up:
  %any = icmp ugt i32 %started, 0
  br i1 %any, label %publish, label %unlock.fail
unlock.fail:
  store atomic i32 0, ptr @transect.pool.lock release, align 4
  ret i1 false
count:
  %id = load i64, ptr %thread
  %d = call i32 @pthread_detach(i64 %id)
  store i32 %next.index, ptr @transect.pool.started
  br label %grow
publish:
  store ptr %job, ptr @transect.pool.job
  %opened = atomicrmw and ptr @transect.pool.gate, i32 {_CLOSED - 1} acq_rel
  %old = atomicrmw add ptr @transect.pool.generation, i32 1 acq_rel
  call void @transect.futex.wake(ptr @transect.pool.generation)
  call void @transect.part(ptr %job, i64 0)
  %closed = atomicrmw or ptr @transect.pool.gate, i32 {_CLOSED} acq_rel
  call void @transect.pool.until(ptr @transect.pool.gate, i32 {_CLOSED}, i1 true)
  store atomic i32 0, ptr @transect.pool.lock release, align 4
  ret i1 true
}}"""


def unload(module: ModuleText) -> str:
    """The exported clean-up: frees pooled memory and cached functions, asks whether threads run."""
    lines = ["entry:"]
    if module.has_helper("transect.workspace.pool"):
        lines.append(f"  call void {module.helper('transect.workspace.drain')}()")
    for number, record in enumerate(module.packed_records):
        module.declare("TVMFFIObjectDecRef", "i32", ["ptr"])
        lines += [
            f"  %h{number} = atomicrmw xchg ptr {record}, ptr null acquire",
            f"  %n{number} = icmp eq ptr %h{number}, null",
            f"  br i1 %n{number}, label %next{number}, label %drop{number}",
            f"drop{number}:",
            f"  %d{number} = call i32 @TVMFFIObjectDecRef(ptr %h{number})",
            f"  br label %next{number}",
            f"next{number}:",
        ]
    if module.has_helper("transect.pool.run"):
        lines += [
            "  %started = load i32, ptr @transect.pool.started",
            "  %some = icmp ne i32 %started, 0",
            "  %result = zext i1 %some to i32",
            "  ret i32 %result",
        ]
    else:
        lines.append("  ret i32 0")
    return "\n".join([f"define i32 @{UNLOAD}() {{", *lines, "}"])


HELPERS = {
    "transect.workspace.pool": workspace_pool,
    "transect.workspace.take": workspace_take,
    "transect.workspace.release": workspace_release,
    "transect.workspace.drain": workspace_drain,
    "transect.chunk": chunk,
    "transect.part": part,
    "transect.part.ways": part_ways,
    "transect.parallel.setup": parallel_setup,
    "transect.parallel": parallel,
    "transect.pool.run": pool_run,
}
"""Helper name -> what writes it."""
