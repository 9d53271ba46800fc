"""Tensors that give their device memory back and wait in host memory.

It is the storage that is emptied, so every tensor that looks into it, whatever holds that tensor, is whole again once
the storage has been filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class Parked:
    """Storages that are empty until `restore`.

    Args:
        tensors: in whose storages; those on the host, such as an optimiser's count of steps, may be among them.
        keep: whether their values are needed again; if not, they are undefined afterwards.
    """

    def __init__(self, tensors: Iterable[Tensor], *, keep: bool = True) -> None:
        self._waiting: list[tuple[torch.UntypedStorage, int, Tensor | None]] = []
        for storage in _storages(tensors).values():
            size = storage.nbytes()
            self._waiting.append((storage, size, _on_host(storage) if keep else None))
            storage.resize_(0)

    @property
    def nbytes(self) -> int:
        """What was given back, in bytes."""
        return sum(size for _, size, _ in self._waiting)

    def restore(self) -> None:
        """Take memory again and fill it."""
        for storage, size, values in self._waiting:
            storage.resize_(size)
            if values is not None:
                _bytes(storage).copy_(values)
        self._waiting.clear()


def without(tensors: Iterable[Tensor], others: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors that share no storage with the others."""
    taken = _storages(others)
    return (tensor for tensor in tensors if tensor.untyped_storage()._cdata not in taken)


def _storages(tensors: Iterable[Tensor]) -> dict[int, torch.UntypedStorage]:
    found = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage for storage in found if storage.nbytes()}


def _on_host(storage: torch.UntypedStorage) -> Tensor:
    on_device = _bytes(storage)
    host = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=on_device.is_cuda)
    return host.copy_(on_device)


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
