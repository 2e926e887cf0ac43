"""What the functions of ``triton_ops`` launch, compiled without a GPU for one that need not be there."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}


@dataclass
class Launch:
    """A kernel and what it was called with; stands in for the kernel as long as launches are recorded."""

    kernel: Any
    record: list
    arguments: tuple = ()
    options: dict | None = None

    def __getitem__(self, grid: tuple[int]):
        def launch(*arguments: Any, **options: Any) -> None:
            self.record.append(Launch(self.kernel, self.record, arguments, options))

        return launch


def type_of(value: torch.Tensor | float) -> str:
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def launches(monkeypatch, module, name: str, *arguments: Any) -> list[Launch]:
    """The launches of a function of ``module``: tensors on the device ``meta`` do."""
    record: list[Launch] = []
    with monkeypatch.context() as patch:
        for key, value in list(vars(module).items()):
            if isinstance(value, triton.JITFunction):
                patch.setattr(module, key, Launch(value, record))
        getattr(module, name)(*arguments)
    return record


def compiled(launch: Launch, capability: int) -> CompiledKernel:
    """The kernel specialised as Triton would on the spot: on 1 and None, and on multiples of 16."""
    kernel, options = launch.kernel, dict(launch.options or {})
    values = dict(zip(kernel.arg_names, launch.arguments, strict=False))
    values |= {name: options.pop(name) for name in kernel.arg_names if name in options}
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value, free = values[parameter.name], parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1 and not free):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = type_of(value)
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0 and not free):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
