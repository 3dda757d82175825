"""Find the items with the largest inner product: exactly, or approximately through faiss."""

from seqcl.retrieval.exact import ExactIndex
from seqcl.retrieval.faiss_index import KINDS, FaissIndex

__all__ = ["KINDS", "ExactIndex", "FaissIndex"]
