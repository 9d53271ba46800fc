"""Tensors that give their device memory back and wait in host memory.

It is the storage that is emptied, so every tensor that looks into it, whatever holds that tensor, is whole again once
the storage has been filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

MIN_PIECE = 2**20  # bytes; what is less is one piece


class Offload:
    """Storages that are empty until `restore`.

    Args:
        tensors: in whose storages; those on the host, such as an optimizer's count of steps, may be among them.
        keep: whether their values are needed again; if not, they are undefined afterwards.
    """

    def __init__(self, tensors: Iterable[Tensor], *, keep: bool = True) -> None:
        self._waiting: list[tuple[torch.UntypedStorage, int, list[Tensor]]] = []
        for storage in _storages(tensors).values():
            size = storage.nbytes()
            self._waiting.append((storage, size, _on_host(storage) if keep else []))
            storage.resize_(0)

    @property
    def nbytes(self) -> int:
        """Bytes that were given back."""
        return sum(size for _, size, _ in self._waiting)

    def restore(self) -> None:
        """Take memory again and fill it."""
        for storage, size, pieces in self._waiting:
            storage.resize_(size)
            if pieces:
                for place, piece in zip(_bytes(storage).split(list(map(len, pieces))), pieces, strict=True):
                    place.copy_(piece)
        self._waiting.clear()


def without(tensors: Iterable[Tensor], others: Iterable[Tensor]) -> Iterator[Tensor]:
    """Select the tensors that share no storage with the others."""
    taken = _storages(others)
    return (tensor for tensor in tensors if tensor.untyped_storage()._cdata not in taken)


def _storages(tensors: Iterable[Tensor]) -> dict[int, torch.UntypedStorage]:
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage for storage in storages if storage.nbytes()}


def _on_host(storage: torch.UntypedStorage) -> list[Tensor]:
    """Copy a storage's bytes to host memory, in pieces one after the other."""
    on_device = _bytes(storage)
    places = on_device.split(list(piece_sizes(len(on_device))))
    return [torch.empty_like(place, device="cpu", pin_memory=place.is_cuda).copy_(place) for place in places]


def piece_sizes(size: int) -> Iterator[int]:
    """Yield the powers of two, and a rest of less than `MIN_PIECE`, that make up a size.

    torch rounds a block of pinned memory up to a power of two: 33 GB in one block would take 64 GB of the host's.
    """
    while size >= MIN_PIECE:
        piece = 1 << (size.bit_length() - 1)
        yield piece
        size -= piece
    if size:
        yield size


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
