"""Finding the items with the largest inner product: exactly, or approximately through faiss."""

from seqcl.retrieval.exact import ExactIndex
from seqcl.retrieval.faiss_index import FaissIndex

__all__ = ["ExactIndex", "FaissIndex"]
