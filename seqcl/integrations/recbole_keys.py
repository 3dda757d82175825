"""RecBole's keys and metrics, in tables: our names for them, and what there is here in place of a key that is not taken."""

from __future__ import annotations

from collections.abc import Mapping

from seqcl.errors import UserError

METRICS = {
    "recall": "recall",
    "hit": "hr",
    "ndcg": "ndcg",
    "mrr": "mrr",
    "map": "map",
    "precision": "precision",
    "itemcoverage": "coverage",
    "averagepopularity": "popularity",
    "giniindex": "gini",
}
"""Our names for RecBole's metrics; every run reports all of them."""
ELSEWHERE = {
    "epochs": "--train.epochs",
    "train_batch_size": "--train.batch_size, which counts rows of the windows chosen (--data.windows), not prefixes",
    "learning_rate": "--train.lr",
    "learner": "AdamW is the only optimizer",
    "weight_decay": "--train.weight_decay",
    "stopping_step": "--train.patience",
    "eval_step": "--train.eval_every",
    "clip_grad_norm": "--train.clip",
    "train_neg_sample_args": "--next_item.loss and --next_item.negatives",
    "loss_type": "--next_item.loss",
    "require_pow": "the losses of the recipes have no such penalty",
    "loss_decimal_place": "losses are not rounded",
    "enable_amp": "--train.precision bf16",
    "enable_scaler": "--train.precision bf16, which needs no scaling",
    "transform": "views and masks are the recipe's",
    "shuffle": "training rows are always shuffled",
    "hidden_size": "--encoder.dim",
    "embedding_size": "--encoder.dim",
    "n_layers": "--encoder.layers",
    "n_heads": "--encoder.heads",
    "hidden_dropout_prob": "--encoder.dropout",
    "attn_dropout_prob": "--encoder.attention_dropout",
    "checkpoint_dir": "--runs",
    "use_gpu": "--device",
    "gpu_id": "--device",
    "worker": "batches are made by the process that trains",
    "nproc": "torchrun --nproc-per-node N starts several processes",
    "state": "there are no levels of what is printed",
    "show_progress": "the line of progress is always shown; seqcl.train(progress=False) leaves it out",
    "reproducibility": "--seed; torch's deterministic algorithms are not switched on",
    "config_file": "give the file itself, as --recbole-config FILE",
    "config_files": "give the file itself, as --recbole-config FILE",
    "save_dataset": "prepared data are kept by themselves",
    "dataset_save_path": "prepared data are kept by themselves",
    "save_dataloaders": "loaders are made anew in every run",
    "dataloaders_save_path": "loaders are made anew in every run",
    "log_wandb": "figures are written into the run's folder",
    "wandb_project": "figures are written into the run's folder",
    "metric_decimal_place": "metrics are not rounded",
    "tail_ratio": "there is no TailPercentage",
    "val_interval": "--data.where, such as --data.where 'rating >= 3'",
    "unload_col": "say which columns are loaded, in load_col",
    "unused_col": "say which columns are loaded, in load_col",
    "additional_feat_suffix": "of RecBole's files the .inter, .user and .item are read",
    "numerical_features": "the models that read columns of users and items name them themselves",
    "discretization": "numbers of features are standardised by what training knows",
    "normalize_field": "numbers of features are standardised by what training knows",
    "preload_weight": "vectors of items and users are learned",
    "alias_of_user_id": "no other column holds ids of users",
    "alias_of_item_id": "no other column holds ids of items",
    "alias_of_entity_id": "there are no knowledge graphs",
    "alias_of_relation_id": "there are no knowledge graphs",
    "entity_kg_num_interval": "there are no knowledge graphs",
    "relation_kg_num_interval": "there are no knowledge graphs",
    "seq_len": "--data.max_len is the only length",
    "group_by": "part of eval_args",
    "threshold": "--data.min_rating",
}
"""Keys that are not taken, each with its counterpart here or the reason; a key without a value is ignored."""

MADE = (
    "RATING_FIELD",
    "LABEL_FIELD",
    "NEG_PREFIX",
    "ITEM_LIST_LENGTH_FIELD",
    "LIST_SUFFIX",
    "POSITION_FIELD",
    "HEAD_ENTITY_ID_FIELD",
    "TAIL_ENTITY_ID_FIELD",
    "RELATION_ID_FIELD",
    "ENTITY_ID_FIELD",
)
"""Names of columns that are not read here, or that RecBole makes for itself."""

LONGEST = 240
"""Letters of a message that names all refused keys with their reasons."""


def all_refused(errors: Mapping[str, tuple[UserError, str]]) -> UserError:
    """One error for all keys that are refused: with their reasons where these are short, else by name.

    Args:
        errors: for each key the error that it has alone, and its reason in a few words.
    """
    if len(errors) == 1:
        return next(iter(errors.values()))[0]
    text = f"{len(errors)} keys are refused: " + "; ".join(f"{key} ({reason})" for key, (_, reason) in errors.items())
    if len(text) <= LONGEST:
        return UserError(text)
    return UserError(f"{len(errors)} keys are refused, each with its reason if it is there alone: {', '.join(errors)}")
