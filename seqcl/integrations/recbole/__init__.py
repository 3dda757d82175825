"""RecBole with the contrastive models it lacks: `import seqcl.integrations.recbole`, and `run_recbole(model="CL4Rec")` works.

Every recipe of seqcl is here as a sequential recommender of RecBole under its own name, or `Seqcl` before it where RecBole
has a model of that name. What is changed in RecBole, and in nothing else: its models are found by name; its `Config` takes our
settings and checks them; its own checkpoints load under torch 2.6 and later; its metrics that count items work
(`seqcl.integrations.recbole.mending`).

Raises:
    RecBoleUnusable: at import, where RecBole is not installed or cannot work with what is; says what to install.
"""

from seqcl.integrations.recbole_stack import bring

bring("recbole.quick_start")

from seqcl.integrations.recbole.mending import mend_config, mend_loading, mend_metrics  # noqa: E402  RecBole comes first
from seqcl.integrations.recbole.recommender import RecBoleRecommender  # noqa: E402
from seqcl.integrations.recbole.register import RECOMMENDERS, register  # noqa: E402

globals().update(RECOMMENDERS)  # `from seqcl.integrations.recbole import CL4Rec`, and what a checkpoint names
register()
mend_config()
mend_loading()
mend_metrics()

__all__ = ["RECOMMENDERS", "RecBoleRecommender", *RECOMMENDERS]
