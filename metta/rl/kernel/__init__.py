"""A compiled version of the slow parts of training: tokens, the default policy, and the gradient of its loss.

Read `metta.rl.policy`, `metta.rl.tokens` and `metta.rl.ppo` first: they are the same mathematics in PyTorch, tests
compare this package with them, and they are used where it cannot be (on a GPU, for other policies, without a compiler).

`kernel.c` is plain C, which is compiled when it is first used, takes about a second, and is then cached (`build`). The
alternatives, measured for this file in 2026:

- A C++ extension of torch compiles 20 to 40 s against torch's headers and needs ninja in addition to a compiler.
- Numba needs no compiler, but adds 190 MB, an import of half a second in every process that trains, and a limit on
  NumPy's version; and its loops do not keep a block of a matrix product in registers, which makes C as fast as BLAS.
- A wheel must be built for every platform, and cannot use the instructions of the CPU that it is installed on.

On a machine with Python and pip but no compiler, ``pip install ziglang`` installs one, which `build` finds.
``METTA_KERNEL=off`` uses PyTorch even if the kernel is available.
"""
