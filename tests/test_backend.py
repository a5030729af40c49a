import ctypes
import re
import sys
import warnings
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from lime_mlx import backend, blas
from lime_mlx.errors import BackendError

load_blas = blas.load_blas.__wrapped__
loaded = pytest.mark.skipif(blas.load_blas() is None, reason="MLX brings its own BLAS here, or none is installed")


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        ("linux", ['pip install "lime-mlx[cpu]"', "lime-mlx[cuda12]", "lime-mlx[cuda13]"]),
        ("darwin", ["Apple silicon"]),
    ],
)
def test_mlx_that_cannot_be_imported_is_one_line_with_the_remedy(monkeypatch, platform, words):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(BackendError) as raised:
        backend.device_name()
    message = str(raised.value)
    assert all(word in message for word in words)
    assert "\n" not in message


def test_the_device_has_a_name_and_memory():
    assert backend.require_mlx() is mx
    assert backend.device_name()
    assert backend.memory_total() > 1 << 28
    mx.reset_peak_memory()
    mx.eval(mx.ones((256, 1024)) + 1)
    assert 1 << 20 <= backend.peak_memory() < backend.memory_total()


@pytest.mark.parametrize("key", ["memory_size", "total_memory"])
def test_memory_is_what_mlx_says_of_a_gpu(monkeypatch, key):
    monkeypatch.setattr(backend, "_device_info", lambda: {key: 36 << 30})
    assert backend.memory_total() == 36 << 30


def test_activations_are_float32_on_the_cpu_and_bfloat16_on_a_gpu(monkeypatch):
    assert backend.is_cpu() == (mx.default_device().type == mx.DeviceType.cpu)
    for cpu, dtype in ((True, mx.float32), (False, mx.bfloat16)):
        monkeypatch.setattr(backend, "is_cpu", lambda cpu=cpu: cpu)
        assert backend.compute_dtype() == dtype


@pytest.fixture
def reference(monkeypatch):
    """Linux, MLX on the CPU with its reference BLAS, and no other library."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(blas, "is_cpu", lambda: True)
    monkeypatch.setattr(blas, "_mapped", lambda name: (name, 0))
    monkeypatch.setattr(blas, "_libraries", lambda: iter(["/nowhere/libopenblas.so.0"]))
    monkeypatch.delenv("LIME_MLX_BLAS", raising=False)
    blas.load_blas.cache_clear()
    yield
    blas.load_blas.cache_clear()


def test_no_blas_warns_once_with_the_remedy(reference):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert blas.load_blas() is None
        assert blas.load_blas() is None
    (warning,) = caught
    assert "no optimised BLAS found" in str(warning.message)
    assert 'pip install "lime-mlx[cpu]"' in str(warning.message)


def test_a_library_that_does_not_serve_is_named(reference, monkeypatch):
    monkeypatch.setenv("LIME_MLX_BLAS", "/nowhere/libmine.so")
    with pytest.warns(UserWarning, match=r"LIME_MLX_BLAS=/nowhere/libmine\.so is no usable BLAS"):
        assert blas.load_blas() is None


@pytest.mark.parametrize("change", ["off", "macos", "gpu", "own blas"])
def test_silence_where_there_is_nothing_to_do(reference, monkeypatch, change):
    if change == "off":
        monkeypatch.setenv("LIME_MLX_BLAS", "off")
    elif change == "macos":
        monkeypatch.setattr(sys, "platform", "darwin")
    elif change == "gpu":
        monkeypatch.setattr(blas, "is_cpu", lambda: False)
    else:
        monkeypatch.setattr(blas, "_mapped", {"libmlx.so": ("libmlx.so", 0)}.get)
    assert blas.load_blas() is None


@loaded
def test_every_routine_that_mlx_asks_for_is_led_to_the_library():
    library = ctypes.CDLL(load_blas())
    path, base = blas._mapped("libmlx.so")
    slots = dict(blas._jump_slots(path))
    assert {name for name in slots if re.fullmatch(r"cblas_\w+|[sdcz][a-z0-9]{4,5}_", name)} == blas._ROUTINES
    for name in blas._ROUTINES:
        function = ctypes.cast(blas._find(library, name), ctypes.c_void_p)
        assert ctypes.c_void_p.from_address(base + slots[name]).value == function.value


@loaded
def test_a_library_without_the_routines_is_refused():
    path, base = blas._mapped("libmlx.so")
    assert not blas._redirect(path, base, ctypes.CDLL("libm.so.6"))


@pytest.mark.parametrize("shape", [(600, 512, 1536), (128, 128, 512), (1, 64, 40), (7, 3, 5)])
def test_products_equal_those_of_numpy(shape):
    rows, inner, columns = shape
    random = np.random.default_rng(0)
    a = random.standard_normal((2, rows, inner), np.float32)
    b = random.standard_normal((2, columns, inner), np.float32)
    product = np.array(mx.matmul(mx.array(a), mx.array(b).swapaxes(1, 2)))
    expected = a.astype(np.float64) @ b.swapaxes(1, 2).astype(np.float64)
    tolerance = 1e-5 if backend.is_cpu() else 2e-2
    np.testing.assert_allclose(product, expected, rtol=0, atol=tolerance * inner**0.5)


def test_decompositions_equal_those_of_numpy():
    a = np.random.default_rng(1).standard_normal((40, 40), np.float32)
    values = mx.linalg.svd(mx.array(a), compute_uv=False, stream=mx.cpu)
    np.testing.assert_allclose(np.array(values), np.linalg.svd(a, compute_uv=False), rtol=1e-4, atol=1e-5)
    inverse = mx.linalg.inv(mx.array(a), stream=mx.cpu)
    np.testing.assert_allclose(np.array(inverse) @ a, np.eye(40), atol=1e-3)


@pytest.mark.parametrize(
    ("environment", "cores", "threads"),
    [({}, 8, [7]), ({}, 1, [1]), ({"OPENBLAS_NUM_THREADS": "3"}, 8, []), ({"OMP_NUM_THREADS": "3"}, 8, [])],
)
def test_one_core_is_left_free_unless_the_user_says_otherwise(monkeypatch, environment, cores, threads):
    asked = []
    monkeypatch.setattr(blas.os, "environ", environment)
    monkeypatch.setattr(blas.os, "sched_getaffinity", lambda _: range(cores), raising=False)
    blas._leave_a_core(SimpleNamespace(openblas_set_num_threads=asked.append))
    assert asked == threads
