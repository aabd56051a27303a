"""From lowered PrimFuncs to object code: LLVM for the host, CUDA C++ for GPUs."""
