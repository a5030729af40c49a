"""A fast BLAS for MLX's CPU backend on Linux, whose own is the slow reference BLAS."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lime_mlx.backend import is_cpu

# What MLX's CPU backend asks of BLAS and LAPACK.
_ROUTINES = frozenset(
    "cblas_sgemm cblas_dgemm cblas_cgemm "
    "sgeev_ dgeev_ cgeev_ sgesdd_ dgesdd_ cgesdd_ ssyevd_ dsyevd_ cheevd_ sgeqrf_ dgeqrf_ sorgqr_ dorgqr_ "
    "sgetrf_ dgetrf_ sgetri_ dgetri_ spotrf_ dpotrf_ strtri_ dtrtri_".split()
)
_SYSTEM_LIBRARIES = ("libopenblas.so.0", "libmkl_rt.so.3", "libmkl_rt.so.2")
_PREFIXES = ("scipy_", "")
_RELA = 4


@cache
def load_blas() -> str | None:
    """Give MLX's CPU backend on Linux an optimised BLAS; return its path, None where there is nothing to do.

    The CPU wheel of MLX brings the reference BLAS, some thirty times slower (docs/blas.md). Its calls are led
    to the first of these that loads: `$LIME_MLX_BLAS` (a path, or `off`), the `scipy-openblas32` wheel, a
    library of the system. Only MLX is touched, and it may have been imported before. OpenBLAS gets all cores
    but one unless `OPENBLAS_NUM_THREADS` or `OMP_NUM_THREADS` is set: its threads wait for each other, and
    stall when another program holds a core. Warns once, with the remedy, when no library loads.
    """
    choice = os.environ.get("LIME_MLX_BLAS")
    if choice == "off" or sys.platform != "linux" or not is_cpu():
        return None
    mlx = _mapped("libmlx.so")
    if not (mlx and _mapped("libblas-")):
        return None
    for path in [choice] if choice else _libraries():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        if _redirect(*mlx, library):
            _leave_a_core(library)
            return path
    problem = f"LIME_MLX_BLAS={choice} is no usable BLAS" if choice else "no optimised BLAS found"
    warnings.warn(f'{problem}, MLX will be slow on this CPU: pip install "lime-mlx[cpu]"', stacklevel=2)
    return None


def _libraries() -> Iterator[str]:
    wheel = find_spec("scipy_openblas32")
    if wheel is not None and wheel.origin is not None:
        yield str(Path(wheel.origin).with_name("lib") / "libscipy_openblas.so")
    yield from _SYSTEM_LIBRARIES


def _mapped(name: str) -> tuple[str, int] | None:
    """Path and base address of the loaded shared library whose file name starts with `name`."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, offset, _, _, *path = line.split(maxsplit=5)
        if path and Path(path[0]).name.startswith(name) and int(offset, 16) == 0:
            return path[0], int(addresses.split("-")[0], 16)
    return None


def _redirect(path: str, base: int, library: ctypes.CDLL) -> bool:
    """Make the library at `path`, mapped at `base`, call those `_ROUTINES` that it imports in `library`."""
    slots: dict[int, ctypes._FuncPointer] = {}
    for name, offset in _jump_slots(path):
        if name in _ROUTINES:
            if (function := _find(library, name)) is None:
                return False
            slots[base + offset] = function
    if not slots:
        return False
    libc = ctypes.CDLL(None)
    for slot, function in slots.items():
        page = ctypes.c_void_p(slot - slot % mmap.PAGESIZE)
        if libc.mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE):
            return False
        ctypes.c_void_p.from_address(slot).value = ctypes.cast(function, ctypes.c_void_p).value
    return True


def _find(library: ctypes.CDLL, name: str) -> ctypes._FuncPointer | None:
    for prefix in _PREFIXES:
        if hasattr(library, prefix + name):
            function: ctypes._FuncPointer = getattr(library, prefix + name)
            return function
    return None


def _jump_slots(path: str) -> Iterator[tuple[str, int]]:
    """(name, offset) of each function that an ELF library imports: its address is kept at base + offset."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as elf:
        (table,) = struct.unpack_from("<Q", elf, 40)
        size, count = struct.unpack_from("<HH", elf, 58)
        sections = [struct.unpack_from("<IIQQQQIIQQ", elf, table + i * size) for i in range(count)]
        for _, kind, _, _, start, length, link, applies_to, _, _ in sections:
            if kind != _RELA or not applies_to:
                continue
            symbols, strings = sections[link][4], sections[sections[link][6]][4]
            for offset, info, _ in struct.iter_unpack("<QQq", elf[start : start + length]):
                (name,) = struct.unpack_from("<I", elf, symbols + 24 * (info >> 32))
                yield elf[strings + name : elf.find(b"\0", strings + name)].decode(), offset


def _leave_a_core(library: ctypes.CDLL) -> None:
    set_threads = _find(library, "openblas_set_num_threads")
    if set_threads and not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys():
        set_threads(max(1, len(os.sched_getaffinity(0)) - 1))
