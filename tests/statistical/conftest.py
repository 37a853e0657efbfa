"""Statistical tests run on one thread, as the laws do: their tensors are small."""

from tests.laws.conftest import one_thread

__all__ = ["one_thread"]
