"""A stand-in for PyTorch on the simulated driver: enough of it for torch_work.py; a layer is kernels of one length.

What it shows is that the scripts beside it do what they say; no figure of it means anything.
"""

import ctypes
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

half, float32 = "half", "float32"
no_grad = MagicMock()
optim = MagicMock()
_driver = ctypes.CDLL("libcuda.so.1")
_Handle = ctypes.c_void_p
_TEXT = b".version 6.4\n.visible .entry spin(.param .u64 rounds)\n{\n}\n"


def _must(result: int) -> None:
    if result != 0:
        raise RuntimeError(f"the driver says {result}")


def _kernel() -> _Handle:
    context, module, function = _Handle(), _Handle(), _Handle()
    _must(_driver.cuInit(0))
    _must(_driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    _must(_driver.cuCtxSetCurrent(context))
    _must(_driver.cuModuleLoadData(ctypes.byref(module), _TEXT))
    _must(_driver.cuModuleGetFunction(ctypes.byref(function), module, b"spin"))
    return function


_spin = _kernel()


def _launch(count: int, ns: int) -> None:
    """A length is a block of its own shape, so its own price; but 60 and 240 us, which are products of two depths."""
    length = ctypes.c_int64(ns)
    parameters = (_Handle * 1)(ctypes.addressof(length))
    for _ in range(count):
        _must(_driver.cuLaunchKernel(_spin, 1, 1, 1, 32, 1 + ns // 1000 % 60, 1, 0, None, parameters, None))


class _Kernels:
    """Stands for a layer, a net, a matrix: so many kernels of so many ns, one after the other."""

    def __init__(self, *kernels: tuple[int, int]) -> None:
        self._kernels = kernels

    def __call__(self, *_: object) -> MagicMock:
        for count, ns in self._kernels:
            _launch(count, ns)
        return MagicMock()

    def __matmul__(self, _: object) -> MagicMock:
        return self()

    def cuda(self) -> "_Kernels":
        return self

    half = eval = cuda

    def parameters(self) -> list[object]:
        return []


nn = MagicMock()
_STEP = ((1, 60_000), (1, 240_000), (6, 5_000), (3, 60_000), (2, 240_000), (4, 6_000), (2, 60_000), (12, 20_000))
nn.TransformerEncoderLayer = lambda *_, **__: _Kernels((12, 8_000))
nn.Sequential = lambda *layers: _Kernels(*_STEP) if len(layers) == 5 else _Kernels((12, 2_000))


def manual_seed(_: int) -> None:
    """Nothing here is drawn."""


class _Tensor:
    """Stands for numbers: a product is a kernel."""

    def __matmul__(self, other: object) -> "_Tensor":
        _launch(1, 4_000)
        return self

    def __add__(self, other: object) -> "_Tensor":
        return self

    __mul__ = __getitem__ = __add__

    def transpose(self, *_: int) -> "_Tensor":
        return self

    view = reshape = transpose

    def __iter__(self) -> "Iterator[_Tensor]":
        return iter((self, self))


nn.functional.scaled_dot_product_attention = nn.functional.layer_norm = nn.functional.gelu = lambda x, *_: x


def randn(*shape: int, **_: object) -> Any:
    return _Kernels((1, 200_000)) if shape == (4096, 4096) else _Tensor()


class _Event:
    def __init__(self, **_: object) -> None:
        self.handle = _Handle()
        _must(_driver.cuEventCreate(ctypes.byref(self.handle), 0))

    def record(self) -> None:
        _must(_driver.cuEventRecord(self.handle, None))

    def query(self) -> bool:
        return bool(_driver.cuEventQuery(self.handle) == 0)

    def synchronize(self) -> None:
        _must(_driver.cuEventSynchronize(self.handle))

    def elapsed_time(self, end: "_Event") -> float:
        ms = ctypes.c_float()
        _must(_driver.cuEventElapsedTime(ctypes.byref(ms), self.handle, end.handle))
        return ms.value


class cuda:  # noqa: N801  its name there
    Event = _Event

    @staticmethod
    def empty_cache() -> None:
        """Nothing is kept here."""

    @staticmethod
    def synchronize() -> None:
        _must(_driver.cuCtxSynchronize())

    @staticmethod
    def _sleep(cycles: int) -> None:
        _launch(1, cycles // 2)
