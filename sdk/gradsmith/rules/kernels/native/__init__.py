"""The LSTM, the hyper and the mlp rule as vectorised C++ on the CPU, compiled for the machine on first use.

Choices are read from the environment once, when a kernel is asked for:

GRADSMITH_NATIVE: auto (default), off, or one of avx512, avx2, portable to go no higher than that
GRADSMITH_KERNELS: a folder of kernels compiled beforehand (`python -m gradsmith.rules.kernels.native`)
GRADSMITH_CACHE_DIR: where kernels compiled here are kept; default: the user's cache folder
CXX: the C++ compiler; default: the first of c++, g++, clang++ on PATH
"""

from gradsmith.rules.kernels.native.build import BuildSettings, prebuild
from gradsmith.rules.kernels.native.check import check_compiler
from gradsmith.rules.kernels.native.choose import native_kernel, tensor_kernel
from gradsmith.rules.kernels.native.kernel import NativeKernel
from gradsmith.rules.kernels.native.tape import Tape
from gradsmith.rules.kernels.native.targets import TARGETS, Target
from gradsmith.rules.kernels.native.tensor_kernel import TensorKernel
from gradsmith.rules.kernels.sizes import Sizes

__all__ = [
    "TARGETS",
    "BuildSettings",
    "NativeKernel",
    "Sizes",
    "Tape",
    "Target",
    "TensorKernel",
    "check_compiler",
    "native_kernel",
    "prebuild",
    "tensor_kernel",
]
