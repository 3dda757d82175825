"""SimCLR v2 (Chen et al., NeurIPS 2020, arXiv 2006.10029) over the views of CL4SRec."""

from __future__ import annotations

from seqcl.models.base import Contrastive
from seqcl.models.pretraining import ContrastFirst
from seqcl.objectives import TwoViews
from seqcl.parts import part


class SimCLRv2Rec(Contrastive):
    """Contrast alone with a head of three layers, then next item beside it, from a layer of the head on if asked (Chen et al. 2020, arXiv 2006.10029).

    Its third step, distillation, is `seqcl distill`.

    Differs from the paper: a state goes through the layers that are kept, and their output is compared with the item
    embeddings, which are the paper's new linear layer and are read by the encoder too. The contrastive term goes on
    beside the next item, unless pretrain.contrast is false, as in the paper. The head has no batch norm, which would
    count padding once it is kept. All training rows are fine-tuned on, for which the paper keeps no layer of the head, as here;
    it keeps one (`pretrain.keep` 1) where a hundredth or a tenth is labelled. Negatives are of the batch, without the paper's queue of a slow
    copy's keys; the temperature is 0.2 instead of 0.1.
    """

    pretrain = part(ContrastFirst, epochs=10)
    objective = part(TwoViews, head="mlp3", temperature=0.2)
