"""Show by recomputation that no held-out interaction reached training, early stopping or the choice of weights."""

from seqcl.experiment.audit.auditing import audit
from seqcl.experiment.audit.verdict import Check

__all__ = ["Check", "audit"]
