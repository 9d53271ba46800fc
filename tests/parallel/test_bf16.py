"""bfloat16 products in float32: the same numbers as an exact product rounded once, and gradients to match."""

from __future__ import annotations

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


def test_attention_is_rounded_once_under_a_mask() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 9, 8).bfloat16() for _ in range(3))
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    found = bf16.widened(F.scaled_dot_product_attention)(query, key, value, attn_mask=mask)
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), attn_mask=mask)
    assert found.dtype is torch.bfloat16
    assert ((found.double() - exact).abs() <= exact.abs() * 2.0**-8 + 1e-4).all()


def test_needed_where_a_cpu_has_no_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    can = torch.cpu.get_capabilities()
    for found, wanted in (({"avx512_bf16": False, "amx_bf16": False}, True), ({"avx512_bf16": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: can | {"architecture": "x86_64"} | found)
        assert bf16.needed() is wanted


def test_other_formats_are_left_alone() -> None:
    a, b = torch.randn(3, 4), torch.randn(4, 2)
    assert torch.equal(bf16.widened(torch.matmul)(a, b), a @ b)


def test_it_is_for_the_torch_it_was_measured_with() -> None:
    """Another may be fast by itself: time a product with and without `widened`, and take `bf16` out if it is."""
    assert torch.__version__.startswith("2.13.")


def test_a_second_apply_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in bf16.PRODUCTS:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    bf16.apply()
    once = [getattr(owner, name) for owner, name in bf16.PRODUCTS]
    bf16.apply()
    assert [getattr(owner, name) for owner, name in bf16.PRODUCTS] == once
