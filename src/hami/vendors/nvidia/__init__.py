"""NVIDIA cards: shared, exclusive or in MIG instances."""

from hami.vendors.nvidia.ask import NVIDIA, Nvidia

__all__ = ["NVIDIA", "Nvidia"]
