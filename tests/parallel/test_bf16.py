"""bfloat16 products in float32: the same numbers as an exact product rounded once, and gradients to match."""

from __future__ import annotations

import timeit

import pytest
import torch
import torch.nn.functional as F

from hybridflow.parallel import bf16

PRODUCTS = {"matmul": torch.matmul, "linear": lambda a, b: F.linear(a, b.t())}


@pytest.mark.parametrize("name", PRODUCTS)
def test_rounded_once(name: str) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(7, 300).bfloat16(), torch.randn(300, 5).bfloat16()
    exact = a.double() @ b.double()
    found = bf16.widened(PRODUCTS[name])(a, b)
    assert found.dtype is torch.bfloat16
    # Half a unit in the last of bfloat16's 8 binary places, and float32's own rounding.
    assert ((found.double() - exact).abs() <= exact.abs() * 2.0**-8 + 1e-4).all()


def test_gradients_flow_in_bfloat16() -> None:
    torch.manual_seed(0)
    a = torch.randn(4, 8).bfloat16().requires_grad_()
    b = torch.randn(8, 3).bfloat16().requires_grad_()
    bf16.widened(torch.matmul)(a, b).sum().backward()
    assert a.grad is not None and a.grad.dtype is torch.bfloat16
    assert torch.equal(a.grad, b.detach().float().sum(1).bfloat16().expand(4, 8))


def test_other_formats_are_left_alone() -> None:
    a, b = torch.randn(3, 4), torch.randn(4, 2)
    assert torch.equal(bf16.widened(torch.matmul)(a, b), a @ b)


@pytest.mark.skipif(not bf16.needed(), reason="this CPU has bfloat16 instructions")
@pytest.mark.parametrize("name", [f"{owner.__name__}.{name}" for owner, name in bf16.PRODUCTS])
def test_torchs_own_products_are_still_slow(name: str) -> None:
    """When this fails, take `bf16` out: 8 times as long when it was written."""
    owner, own = next((o, n) for o, n in bf16.PRODUCTS if f"{o.__name__}.{n}" == name)
    product = getattr(owner, own)
    product = getattr(product, "__wrapped__", product)  # another test may have applied it to this process
    a, b = torch.randn(256, 256).bfloat16(), torch.randn(256, 256).bfloat16()
    wide = bf16.widened(product)
    theirs, ours = (min(timeit.repeat(lambda f=f: f(a, b), number=1, repeat=7)) for f in (product, wide))
    assert theirs > 2 * ours


def test_a_second_apply_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in bf16.PRODUCTS:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    bf16.apply()
    once = [getattr(owner, name) for owner, name in bf16.PRODUCTS]
    bf16.apply()
    assert [getattr(owner, name) for owner, name in bf16.PRODUCTS] == once
