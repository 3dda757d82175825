"""A recipe as a sequential recommender of RecBole: the same modules, in RecBole's loop."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
import yaml
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from seqcl.data import Loader
from seqcl.data.windows import training_windows
from seqcl.errors import UserError
from seqcl.integrations.recbole.log import training_sequences
from seqcl.integrations.recbole.settings import resolved
from seqcl.training import Trainer
from seqcl.types import SeqBatch


class RecBoleRecommender(SequentialRecommender):
    """A recipe over RecBole's training rows, in RecBole's training loop, with RecBole's ids.

    RecBole's trainer does not tell a model of epochs and steps, so they are read from its calls: it calls `train()` before an
    epoch; a step is over when the next batch comes, when the model is evaluated, or when it is saved.

    Args:
        config: RecBole's, with our settings in it (`encoder.dim`, or a section `encoder`).
        dataset: `train_data.dataset`, the only source of correlations, clusters, counts and rows with one target.

    Raises:
        UserError: an unknown setting, data without what the recipe needs, or several processes.
    """

    input_type = InputType.POINTWISE
    recipe: ClassVar[str]

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        name = type(self).__name__
        if not config["single_spec"]:
            raise UserError(f"{name} trains in one process: nproc 1")
        recipe, start = resolved(self.recipe, config.final_config_dict)
        values = recipe.values()
        if values.get("towers", {}).get("sparse"):
            raise UserError(f"{name}: RecBole's optimizers take no sparse gradients: towers.sparse false")
        shown = {"model": self.recipe, "start": start, **values}
        self.logger.info("%s of seqcl:\n%s", name, yaml.safe_dump(shown, sort_keys=False))
        self.TIME_SEQ = f"{config['TIME_FIELD']}{config['LIST_SUFFIX']}"
        self.settings, self.batch_size = config, config["train_batch_size"]
        self.sequences = training_sequences(dataset)
        made: Any = recipe.build(self.windows("prefix"), start=start)
        self.recommender = made
        self.register_buffer("epochs_begun", torch.zeros((), dtype=torch.int64))
        self.epoch_due, self.step_taken = False, False

    @property
    def encoder(self) -> Any:
        """The encoder of the recipe."""
        return self.recommender.encoder

    @property
    def objective(self) -> Any:
        """The objective of the recipe."""
        return self.recommender.objective

    def windows(self, kind: str) -> Any:
        """The training rows: `prefix`, as RecBole cuts them, or `sliding`."""
        ends = self.sequences.offsets[1:]
        return training_windows(self.sequences, ends, max_len=self.max_seq_length, windows=kind)

    def batch(self, interaction: Any, *, targets: bool = False) -> SeqBatch:
        """RecBole's rows, trimmed to the longest; in training with the target of each row's last position."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        width = int(lengths.max())
        items = interaction[self.ITEM_SEQ][:, :width]
        users = interaction[self.USER_ID] if self.USER_ID in interaction.columns else None
        found = SeqBatch(items, lengths, users=users)
        if self.objective.times_needed:
            found = found._replace(times=interaction[self.TIME_SEQ][:, :width].double())
        if targets:
            last = interaction[self.POS_ITEM_ID][:, None]
            found = found._replace(targets=torch.zeros_like(items).scatter(1, lengths[:, None] - 1, last))
        return found

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """The state after the newest item of each row: (B, D)."""
        return self.encoder.last(SeqBatch(item_seq[:, : int(item_seq_len.max())], item_seq_len))

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """The weighted terms of the recipe's loss, whose sum RecBole minimises."""
        self.finish_step()
        if self.epoch_due:
            self.begin_epoch()
        terms = self.recommender(self.batch(interaction, targets=True))
        self.step_taken = self.training
        return tuple(terms.values())

    def predict(self, interaction: Any) -> Tensor:
        """The score of each row's item: (B,)."""
        batch = self.batch(interaction)
        table = F.pad(self.recommender.vectors(), (0, 0, 1, 0))  # (N + 1, D)
        return (self.recommender.queries(batch) * table[interaction[self.ITEM_ID]]).sum(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """The scores of all of RecBole's items, PAD first, which scores minus infinity: (B, N + 1)."""
        scores = self.recommender.scores(self.batch(interaction))  # (B, N)
        return F.pad(scores, (1, 0), value=-torch.inf)

    def train(self, mode: bool = True) -> RecBoleRecommender:
        self.finish_step()
        self.epoch_due = mode
        return super().train(mode)

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        self.finish_step()
        return super().state_dict(*arguments, **options)

    def finish_step(self) -> None:
        """Tell the objective, once, that a step of the optimizer is done."""
        if self.step_taken:
            self.step_taken = False
            self.objective.after_step(self.encoder)

    def begin_epoch(self) -> None:
        """Let the objective prepare an epoch (clusters, correlations); before the first one, run the stage of pre-training."""
        self.epoch_due = False
        epoch, device = int(self.epochs_begun), self.epochs_begun.device
        if epoch == 0:
            self.pretrain(device)
        rows = Loader(
            self.windows("prefix"), batch_size=self.batch_size, device=device, times=self.objective.times_needed
        )
        self.objective.before_epoch(self.encoder, rows, epoch=epoch, epochs=self.settings["epochs"])
        self.epochs_begun += 1

    def pretrain(self, device: torch.device) -> None:
        """Run the stage before training, in our own loop, over whole rows."""
        stage = self.recommender.pretraining()
        if stage is None:
            return
        self.logger.info("pre-training for %d epochs", stage.epochs)
        size = stage.batch_size(self.batch_size)
        rows = Loader(
            self.windows("sliding"),
            batch_size=size,
            device=device,
            shuffle_seed=self.settings["seed"],
            bucket=False,
            times=stage.objective.times_needed,
        )
        trainer = Trainer(epochs=stage.epochs, lr=stage.lr, batch_size=size, patience=0, ema=0.0)
        trainer.fit(stage.to(device), rows, device=device, progress=False)
        super().train()
