"""Conformance checks for parts of your own: call one in a test of yours; it raises AssertionError with the rule that is broken.

    from seqcl.testing import check_view

    def test_my_view():
        check_view(MyView(rate=0.3))

Our own parts pass the same checks. None of them needs pytest.
"""

from seqcl.testing.encoders import check_encoder
from seqcl.testing.losses import check_loss
from seqcl.testing.metrics import check_metric
from seqcl.testing.models import check_model
from seqcl.testing.objectives import check_objective
from seqcl.testing.views import check_view

__all__ = ["check_encoder", "check_loss", "check_metric", "check_model", "check_objective", "check_view"]
