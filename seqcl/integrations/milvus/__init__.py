"""Item vectors in Milvus: `seqcl export RUN DIR --to milvus:URI` writes a collection, `MilvusIndex` asks it."""

from seqcl.integrations.milvus.index import MilvusIndex
from seqcl.integrations.milvus.target import COLLECTION, Target
from seqcl.integrations.milvus.writing import write

__all__ = ["COLLECTION", "MilvusIndex", "Target", "write"]
