"""Products with a bfloat16 output layer, as a GPU forms them, against float64.

What is GPU only is one multiplication of bfloat16 matrices into float32. Its contract, exact products that are added in
float32, is carried out here by float32 products of the same numbers; that torch knows it, by tensors without contents.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from hybridflow.engines.megatron import output_products
from hybridflow.engines.megatron.output_products import Mixed, Wide, halves
from hybridflow.parallel import platform as hardware
from hybridflow.parallel.platform import Platform

TOKENS, VOCAB, HIDDEN = 7, 33, 64


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def checked(left: Tensor, right: Tensor) -> Tensor:
        assert left.dtype == right.dtype == torch.bfloat16
        return left.float() @ right.float()

    monkeypatch.setattr(output_products, "product", checked)
    monkeypatch.setattr(output_products, "add_product", lambda total, left, right: total.add_(checked(left, right)))


@pytest.fixture
def tensors() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A weight and hidden states of a bfloat16 model, the latter as float32, and gradients of logits."""
    generator = torch.Generator().manual_seed(0)
    weight, hidden = (torch.randn(n, HIDDEN, generator=generator).bfloat16() for n in (VOCAB, TOKENS))
    yield weight, hidden.float(), torch.randn(TOKENS, VOCAB, generator=generator) * 1e-4


def test_logits_are_those_of_float32(on_a_cpu: None, tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    weight, hidden, _ = tensors
    assert torch.equal(Mixed(weight).logits(hidden), Wide(weight).logits(hidden))


def test_gradients_keep_16_bits(on_a_cpu: None, tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    """bfloat16 alone would keep 8."""
    weight, hidden, grad = tensors
    of_hidden, of_weight = torch.empty(TOKENS, HIDDEN), torch.zeros(VOCAB, HIDDEN)
    Mixed(weight).to_hidden(grad, of_hidden)
    Mixed(weight).add_to_weight(of_weight, grad, hidden)
    for found, left, right in ((of_hidden, grad, weight), (of_weight, grad.t(), hidden)):
        expected, size = left.double() @ right.double(), left.double().abs() @ right.double().abs()
        rounded = left.bfloat16().double() @ right.double()
        assert ((found - expected).abs() / size).max() < 2**-16
        assert ((rounded - expected).abs() / size).max() > 2**-12


def test_two_halves_are_the_number() -> None:
    values = torch.cat([torch.randn(10_000), torch.tensor([0.0, -0.0, 1e-30, 3e38, -1.0])])
    first, second = (half.double() for half in halves(values))
    assert ((first + second - values.double()).abs() <= values.double().abs() * 2**-17).all()


def test_torch_has_these_products() -> None:
    """For GPUs; of the sum in place it can be asked without a device only."""
    with FakeTensorMode():
        left, right = (torch.empty(n, m, dtype=torch.bfloat16, device="cuda") for n, m in ((3, 4), (4, 5)))
        found = output_products.product(left, right)
        assert (found.dtype, found.device.type, tuple(found.shape)) == (torch.float32, "cuda", (3, 5))
    left, right = (torch.empty(n, m, dtype=torch.bfloat16, device="meta") for n, m in ((3, 4), (4, 5)))
    output_products.add_product(torch.empty(3, 5, device="meta"), left, right)
    with pytest.raises(RuntimeError, match=r"bf16|dtype|type|float"):
        output_products.add_product(torch.empty(3, 5, device="meta", dtype=torch.float64), left, right)


@pytest.mark.parametrize(
    ("dtype", "name", "expected"),
    [(torch.bfloat16, "cuda", Mixed), (torch.bfloat16, "cpu", Wide), (torch.float32, "cuda", Wide)],
)
def test_which_it_is(dtype: torch.dtype, name: str, expected: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_products, "platform", lambda: Platform(name, "gloo", name == "cpu"))
    assert type(output_products.products(torch.ones(2, 2, dtype=dtype))) is expected
    assert hardware.platform().mixed_products is torch.cuda.is_available()
