"""bfloat16 products in float32: the same numbers as an exact product rounded once, and gradients to match."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmarks.tensor_bytes import TensorBytes
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


def test_attention_keeps_bfloat16_for_its_backward_pass() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 16, 4, 8).bfloat16().transpose(1, 2).requires_grad_() for _ in range(3))
    with (counter := TensorBytes()).phase():
        found = bf16.widened(F.scaled_dot_product_attention)(query, key, value, is_causal=True)
    factors = 3 * query.nbytes  # which are there anyway
    assert counter.now == factors + found.nbytes + 4 * 2 * 4 * 16  # and a float32 number of each row and head
    upstream = torch.randn(found.shape)
    grads = torch.autograd.grad(found, (query, key, value), upstream.bfloat16())
    wide = [x.detach().double().requires_grad_() for x in (query, key, value)]
    exact = F.scaled_dot_product_attention(*wide, is_causal=True)
    for grad, right in zip(grads, torch.autograd.grad(exact, wide, upstream.bfloat16().double()), strict=True):
        assert grad.dtype is torch.bfloat16
        assert (grad.double() - right).norm() < 0.01 * right.norm()
    del found, grads
    assert counter.now == factors


@pytest.mark.parametrize("tokens", [(6,), (2, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_kept_in_bfloat16_gives_the_same_gradients(tokens: tuple[int, ...], bias: bool) -> None:
    """Factors are: a square weight too, which the product keeps transposed, and one whose numbers have gaps."""
    torch.manual_seed(0)
    hidden = torch.randn(*tokens, 8).bfloat16().requires_grad_()
    whole = torch.randn(8, 16).bfloat16()
    for weight in (whole[:, :8].contiguous(), whole[:, :8].t(), whole[:, ::2], whole[:1, :8].expand(8, 8)):
        leaves = [leaf.detach().requires_grad_() for leaf in (hidden, weight)]
        offset = torch.randn(8).bfloat16() if bias else None
        found = bf16.widened(F.linear)(*leaves, bias=offset)
        plain = F.linear(
            *(leaf.float() for leaf in leaves), bias=offset if offset is None else offset.float()
        ).bfloat16()
        upstream = torch.randn(found.shape).bfloat16()
        for grad, same in zip(*(torch.autograd.grad(y, leaves, upstream) for y in (found, plain)), strict=True):
            assert torch.equal(grad, same)


def test_what_is_kept_must_not_be_written_to() -> None:
    a, b = torch.ones(2, 2).bfloat16().requires_grad_(), torch.ones(2, 2).bfloat16()
    found = bf16.widened(torch.matmul)(a, b)
    b.mul_(2)
    with pytest.raises(RuntimeError, match="written to in place"):
        found.sum().backward()


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
