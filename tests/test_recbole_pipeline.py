"""Our recipes in RecBole's pipeline: found by name, told of steps and epochs, their settings checked, saved and loaded."""

from __future__ import annotations

import gc
import inspect
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqcl.encoders.spectral import spectral
from seqcl.errors import UserError
from seqcl.models import MODELS, Blend, Recommender
from tests.recbole_world import OWN_WARNINGS, alone, prepared, recbole_or_skip, settings, shop

recbole_or_skip()
pytestmark = OWN_WARNINGS
__all__ = ["alone"]  # a fixture

RECIPES = [name for name, kind in MODELS.items() if issubclass(kind, Recommender) and kind is not Blend]
OWN = {"S3Rec": {"pretrain.epochs": 1}, "ICLRec": {"objective.clusters": [3]}, "ICSRec": {"objective.clusters": [3]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shop(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _here(alone):
    """Everything below runs in a folder of its own."""


def ours(recipe):
    from seqcl.integrations.recbole import RECOMMENDERS

    return next(kind for name, kind in RECOMMENDERS.items() if name.removeprefix("Seqcl") == recipe)


def trained(recipe, data, **values):
    from recbole.trainer import Trainer

    config, train, valid, test = prepared(ours(recipe), data, **OWN.get(recipe, {}), **values)
    model = ours(recipe)(config, train.dataset).to(config["device"])
    trainer = Trainer(config, model)
    best, _ = trainer.fit(train, valid, verbose=False)
    return model, trainer, best, test


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_is_saved_and_evaluated_the_documented_way(data, recipe):
    from recbole.data.transform import construct_transform
    from recbole.utils import get_flops

    model, trainer, best, test = trained(recipe, data, epochs=2)
    assert int(model.epochs_begun) == 2 and not model.step_taken
    result = trainer.evaluate(test)
    assert 0 <= best <= 1 and set(result) >= {"recall@10", "ndcg@10", "mrr@10"}
    transform = construct_transform(test.config)
    assert (
        get_flops(model, test.dataset, torch.device("cpu"), logging.getLogger(), transform) > 0
    )  # as run_recbole asks
    assert len(trainer.train_loss_dict) == 2 and np.isfinite(list(trainer.train_loss_dict.values())).all()


@pytest.mark.parametrize("recipe", ["MoCoRec", "ICLRec", "MCLRec", "PIRLRec"])
def test_recboles_loop_gives_the_weights_that_hooks_called_by_hand_give(data, recipe):
    model, _, _, _ = trained(recipe, data, epochs=2)
    config, train, _, _ = prepared(ours(recipe), data, **OWN.get(recipe, {}), epochs=2)
    other = ours(recipe)(config, train.dataset)
    made, encoder, objective = other.recommender, other.encoder, other.objective
    optimizer = torch.optim.Adam(other.parameters(), lr=config["learning_rate"], weight_decay=0.0)
    for epoch in range(2):
        made.train()
        for place, interaction in enumerate(train):
            if place == 0:
                objective.before_epoch(encoder, loader(other), epoch=epoch, epochs=2)
            optimizer.zero_grad()
            sum(made(other.batch(interaction, targets=True)).values()).backward()
            optimizer.step()
            objective.after_step(encoder)
        made.eval()
    for name, value in made.state_dict().items():
        torch.testing.assert_close(model.recommender.state_dict()[name], value, msg=name)


def loader(model):
    from seqcl.data import Loader

    return Loader(model.windows("prefix"), batch_size=64)


def test_rows_are_those_of_our_own_prefix_windows(data):
    from seqcl.data import Loader

    config, train, *_ = prepared(ours("CL4Rec"), data)
    model = ours("CL4Rec")(config, train.dataset)
    key = lambda batch: [(int(user), row.tolist(), target.tolist()) for user, row, target in zip(batch.users, batch.items, batch.targets, strict=True)]  # noqa: E731  # fmt: skip
    theirs = sorted(row for interaction in train for row in key(wide(model.batch(interaction, targets=True))))
    mine = sorted(row for batch in Loader(model.windows("prefix"), batch_size=64) for row in key(wide(batch)))
    assert mine == theirs and len(mine) == len(train.dataset)


def wide(batch, width=6):
    pad = lambda x: torch.nn.functional.pad(x, (0, width - x.shape[1]))  # noqa: E731
    return batch._replace(items=pad(batch.items), targets=pad(batch.targets))


def test_pre_training_reads_times_and_takes_its_rows_in_the_order_of_the_seed(data, monkeypatch):
    from seqcl.integrations.recbole import recommender
    from seqcl.training import Trainer

    seeds = []

    class Watched(Trainer):
        def fit(self, model, batches, **more):
            seeds.append(batches.shuffle_seed)
            return super().fit(model, batches, **more)

    monkeypatch.setattr(recommender, "Trainer", Watched)
    for seed in (1, 2):
        model, _, _, _ = trained("TiCoSeRec", data, **{"pretrain.epochs": 1, "epochs": 1, "seed": seed})
        assert int(model.epochs_begun) == 1
    assert seeds == [1, 2]


def test_what_a_recipe_learns_from_holds_nothing_of_validation_and_test(data):
    config, train, _, _ = prepared(ours("CL4Rec"), data)
    model = ours("CL4Rec")(config, train.dataset)
    from seqcl.data import leave_one_out, load_sequences

    sequences = load_sequences(data / "shop", cache=False)
    split = leave_one_out(sequences, max_len=6, windows="prefix")
    users, items = split.train.known()
    expected = sorted(zip(sequences.user_ids[users].tolist(), sequences.item_ids[items - 1].tolist(), strict=True))
    mine, ids = model.sequences, train.dataset
    owners = np.repeat(np.arange(mine.num_users), np.diff(mine.offsets))
    found = zip(ids.id2token("user_id", owners), ids.id2token("item_id", np.array(mine.items)), strict=True)
    assert sorted((int(user), int(item)) for user, item in found) == expected


def test_a_name_that_recbole_has_keeps_its_model():
    from recbole.utils import get_model

    from seqcl.integrations.recbole import RECOMMENDERS

    assert get_model("SASRec").__module__ == "recbole.model.sequential_recommender.sasrec"
    assert get_model("SeqclSASRec") is RECOMMENDERS["SeqclSASRec"] and get_model("CL4SRec").recipe == "CL4SRec"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data):
    def weights(seed):
        return trained("CL4Rec", data, seed=seed)[0].encoder.item_embeddings()

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_a_checkpoint_goes_on_where_it_was(data, monkeypatch):
    from recbole import quick_start
    from recbole.trainer import Trainer

    whole, _, _, _ = trained("MoCoRec", data, epochs=1)
    _, trainer, _, test = trained("MoCoRec", data, epochs=1)
    config, model, _, train, valid, test = quick_start.load_data_and_model(trainer.saved_model_file)
    assert all(
        torch.equal(one, two) for one, two in zip(whole.state_dict().values(), model.state_dict().values(), strict=True)
    )
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    config["epochs"] = 2
    other = ours("MoCoRec")(config, train.dataset)
    torch.nn.init.zeros_(other.encoder.item_embeddings())
    again = Trainer(config, other)
    again.resume_checkpoint(trainer.saved_model_file)
    for name, value in other.state_dict().items():
        assert torch.equal(value, saved[name]), name
    begun, hook = [], other.objective.before_epoch
    monkeypatch.setattr(
        other.objective, "before_epoch", lambda *a, epoch, **k: (begun.append(epoch), hook(*a, epoch=epoch, **k))
    )
    again.fit(train, valid, verbose=False)
    assert again.start_epoch == 1 and begun == [1] and int(other.epochs_begun) == 2
    assert 0 <= again.evaluate(test)["ndcg@10"] <= 1


def test_torch_itself_is_as_it_was(tmp_path):
    import seqcl.integrations.recbole  # noqa: F401

    torch.save({"what": logging.getLogger("some")}, tmp_path / "object.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "object.pt")
    assert not torch.is_anomaly_enabled()


def test_scores_of_one_item_of_all_items_and_of_the_case_study_agree(data):
    from recbole.utils.case_study import full_sort_scores, full_sort_topk

    config, train, _, test = prepared(ours("CL4Rec"), data)
    model = ours("CL4Rec")(config, train.dataset).eval()
    users = test.dataset.token2id("user_id", ["3", "7"])
    scores = full_sort_scores(users, model, test)
    assert scores.shape == (2, train.dataset.item_num) and (scores[:, 0] == -torch.inf).all()
    _, best = full_sort_topk(users, model, test, k=3)
    interaction = next(iter(test))[0]
    with torch.no_grad():
        every, one = model.full_sort_predict(interaction), model.predict(interaction)
        state = model(interaction["item_id_list"], interaction["item_length"])
    torch.testing.assert_close(one, every.gather(1, interaction["item_id"][:, None])[:, 0])
    assert state.shape == (len(one), 8) and best.shape == (2, 3)


def test_sampled_evaluation_ranks_the_target_among_the_drawn_items(data):
    from recbole.utils import init_seed

    modes = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni5"}
    model, trainer, _, test = trained("CL4Rec", data, eval_args=modes, topk=[1, 2], valid_metric="MRR@2")
    init_seed(5, True)
    found = trainer.evaluate(test)
    init_seed(5, True)  # the same items are drawn again
    ranks = []
    for interaction, row, _, targets in test:
        with torch.no_grad():
            queries, table = model.recommender.queries(model.batch(interaction)), model.recommender.vectors()
        scores = (queries * table[interaction["item_id"] - 1]).sum(1)
        for number, target in enumerate(targets):
            drawn = dict(
                zip(interaction["item_id"][row == number].tolist(), scores[row == number].tolist(), strict=True)
            )
            ranks.append(1 + sum(score > drawn[int(target)] for score in drawn.values()))
    assert len(ranks) == 60 and 1 < np.mean(ranks) < 6
    expected = {f"recall@{k}": np.mean([rank <= k for rank in ranks]) for k in (1, 2)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_hyper_tuning_tries_our_settings(data):
    from recbole.quick_start import objective_function

    import seqcl.integrations.recbole  # noqa: F401

    for dim in (4, 8):
        values = settings(data, model="CL4Rec", dataset="shop", **{"encoder.dim": dim})
        assert objective_function(config_dict=values)["model"] == "CL4Rec"
    gc.collect()  # it leaves its log file open


def test_hyper_tuning_of_recbole_searches_our_settings(data, alone):
    pytest.importorskip("hyperopt")
    import yaml
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    (alone / "fixed.yaml").write_text(yaml.safe_dump(settings(data, model="CL4Rec", dataset="shop")))
    (alone / "space.txt").write_text("encoder.dim choice [4,8]\n")
    search = HyperTuning(objective_function, params_file="space.txt", fixed_config_file_list=["fixed.yaml"])
    search.run()
    assert search.best_params["encoder.dim"] in (4, 8) and len(search.params2result) == 2
    gc.collect()


def test_a_model_of_recboles_serves_as_encoder_in_recboles_pipeline(data):
    chosen = {"encoder": {"name": "recbole:GRU4Rec", "hidden_size": 12}}
    model, *_ = trained("CL4Rec", data, **chosen)
    assert model.encoder.model.hidden_size == 12 and model.encoder.dim == 8


def test_item_embeddings_begin_as_they_are_told(data):
    def begun(start):
        config, train, *_ = prepared(ours("CL4Rec"), data, start=start)
        torch.manual_seed(0)
        model = ours("CL4Rec")(config, train.dataset)
        return model.encoder.item_embeddings().detach(), model.windows("prefix")

    (plain, _), (spectral_start, windows) = begun("random"), begun("spectral")
    added = F.normalize(spectral_start - plain, dim=1)[1:-1]
    torch.testing.assert_close(added, torch.from_numpy(spectral(windows, 8))[1:-1], rtol=1e-4, atol=1e-5)


def test_settings_reach_the_part_that_they_name(data):
    values = {
        "next_item": {"temperature": 0.3},
        "objective": "SupCon",
        "objective.weight": 0.7,
        "encoder": {"layers": 1, "dim": 4},
    }
    config, train, *_ = prepared(ours("CL4Rec"), data, **values)
    model = ours("CL4Rec")(config, train.dataset)
    assert model.objective.scoring.temperature == 0.3 and len(model.encoder.blocks) == 1
    contrast = model.objective.parts["contrast"]
    assert type(contrast).__name__ == "SupCon" and contrast.weight == 0.7
    assert model.encoder.dim == 8  # a dotted name goes before its section


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder.dmi": 3}, r"unknown option 'encoder.dmi': did you mean encoder\.dim"),
        ({"encoder": {"dmi": 3}}, r"did you mean encoder\.dim"),
        ({"encodr.dim": 3}, r"unknown setting of CL4Rec or RecBole 'encodr.dim': did you mean encoder\.dim"),
        ({"learning_rat": 3}, "did you mean learning_rate"),
        (
            {"hidden_size": 3},
            r"CL4Rec has no hidden_size, which is a setting of RecBole's own models: here it is encoder\.dim",
        ),
        ({"train_neg_sample_args": {"distribution": "uniform"}}, "draws its negatives itself"),
        ({"encoder.dim": "many"}, r"option encoder\.dim"),
        ({"encoder": "GRUU"}, "did you mean GRU"),
    ],
)
def test_a_mistake_in_a_setting_is_named_before_any_data_is_read(data, values, message):
    from recbole.config import Config

    with pytest.raises(UserError, match=message):
        Config(model=ours("CL4Rec"), dataset="shop", config_dict={**settings(data), **values})


@pytest.mark.parametrize(
    ("recipe", "key", "message"),
    [
        ("CL4Rec", "inner_size", r": here it is encoder\.hidden, a multiple of encoder\.dim$"),
        ("CL4Rec", "tau", r": here it is objective\.temperature$"),
        ("GRU4Rec", "n_heads", "$"),
        ("GRU4Rec", "tau", "$"),
        ("GRU4Rec", "n_layers", r": here it is encoder\.layers$"),
    ],
)
def test_a_setting_of_recboles_models_is_translated_where_the_recipe_has_it(data, recipe, key, message):
    from recbole.config import Config

    with pytest.raises(UserError, match=f"^{recipe} has no {key}, which is a setting of RecBole's own models{message}"):
        Config(model=ours(recipe), dataset="shop", config_dict={**settings(data), key: 2})


def test_keys_that_recbole_reads_but_does_not_list_are_let_pass(data):
    from recbole.config import Config

    config = Config(model=ours("CL4Rec"), dataset="shop", config_dict={**settings(data), "encoding": "utf-8", "tail_ratio": 0.2})  # fmt: skip
    assert (config["encoding"], config["tail_ratio"]) == ("utf-8", 0.2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GRU4RecCPR", {"embedding_size", "hidden_size", "num_layers", "dropout_prob"}),
        ("SINE", {"embedding_size", "layer_norm_eps", "prototype_size", "interest_size", "tau_ratio"}),
    ],
)
def test_an_encoder_of_recboles_has_the_options_that_make_its_states_alone(name, options):
    from seqcl.integrations.recbole_encoders import encoder

    assert set(inspect.signature(encoder(name)).parameters) == {"num_items", "max_len", "dim", *options}


def test_words_of_the_command_line_are_taken_checked_and_left_to_the_script(data, monkeypatch):
    from recbole.config import Config

    monkeypatch.setattr("sys.argv", ["run.py", "--encoder.dim=16", "--speed=3"])
    assert Config(model=ours("CL4Rec"), dataset="shop", config_dict=settings(data))["encoder.dim"] == 16
    monkeypatch.setattr("sys.argv", ["run.py", "--encoder.dmi=16"])
    with pytest.raises(UserError, match=r"did you mean encoder\.dim"):
        Config(model=ours("CL4Rec"), dataset="shop", config_dict=settings(data))


def test_what_a_recipe_needs_and_the_data_lack_is_said(data):
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    config, train, *_ = prepared(ours("S3Rec"), data, load_col=columns)
    with pytest.raises(UserError, match="has no table of items"):
        model = ours("S3Rec")(config, train.dataset)
        model.train().calculate_loss(next(iter(train)))


def test_a_data_set_that_is_not_split_is_refused(data):
    from recbole.data import create_dataset

    config, *_ = prepared(ours("CL4Rec"), data)
    with pytest.raises(UserError, match=r"give the model train_data\.dataset"):
        ours("CL4Rec")(config, create_dataset(config))


def test_rows_that_were_not_cut_from_one_sequence_a_user_are_refused(data):
    config, train, *_ = prepared(ours("CL4Rec"), data)
    rows = train.dataset.inter_feat
    place = int((rows["item_length"] == 3).nonzero()[0])
    rows["item_id_list"][place, 0] = rows["item_id_list"][place, 0] % 20 + 1
    with pytest.raises(UserError, match="not the prefixes of one sequence a user"):
        ours("CL4Rec")(config, train.dataset)


@pytest.mark.parametrize(
    ("recipe", "values", "message"),
    [
        ("CL4Rec", {"single_spec": False}, "CL4Rec trains in one process: nproc 1"),
        ("TwoTower", {"towers.sparse": True}, "take no sparse gradients"),
    ],
)
def test_what_recboles_loop_cannot_do_is_said(data, recipe, values, message):
    config, train, *_ = prepared(ours(recipe), data)
    config.final_config_dict.update(values)
    with pytest.raises(UserError, match=message):
        ours(recipe)(config, train.dataset)


def test_features_of_items_and_users_are_those_that_recbole_loads(data):
    config, train, *_ = prepared(ours("TwoTower"), data)
    sequences = ours("TwoTower")(config, train.dataset).sequences
    tokens = train.dataset.id2token("item_id", np.arange(1, train.dataset.item_num))
    assert list(sequences.item_features["kind"]) == [f"k{int(token) % 5}" for token in tokens]
    assert sequences.user_features is None


def test_recboles_metrics_that_count_items_work(alone):
    from recbole.trainer import Trainer

    from seqcl.integrations.recbole import MoCoRec

    values = {"metrics": ["Recall", "AveragePopularity", "TailPercentage", "ItemCoverage", "GiniIndex"], "topk": [5]}
    config, train, valid, test = prepared(MoCoRec, shop(alone), valid_metric="Recall@5", **values)
    trainer = Trainer(config, MoCoRec(config, train.dataset))
    trainer.fit(train, valid, verbose=False)
    counts = train.dataset.item_counter
    found = trainer.evaluate(test, load_best_model=False)
    assert min(counts.values()) <= found["averagepopularity@5"] <= max(counts.values())
    assert 0 < found["itemcoverage@5"] <= 1 and 0 <= found["tailpercentage@5"] <= 1


def test_all_settings_that_are_refused_are_named_at_once(alone):
    from seqcl.integrations.recbole import MoCoRec

    with pytest.raises(UserError, match=r"2 keys are refused: hidden_size \(here it is encoder.dim\); kew \(unknown\)"):
        prepared(MoCoRec, shop(alone), hidden_size=8, kew=3)


def test_rows_that_were_cut_beforehand_are_taken_where_they_are_the_prefixes_of_sequences(alone):
    _, train, *_ = prepared(ours("CL4Rec"), shop(alone))
    whole, tokens = ours("CL4Rec")(train.dataset.config, train.dataset).sequences, train.dataset.field2id_token
    folder = alone / "cut" / "shop"
    folder.mkdir(parents=True)
    rows = train.dataset.inter_feat
    users, targets = (tokens[field][rows[field].numpy()] for field in ("user_id", "item_id"))
    read = [" ".join(tokens["item_id"][row[row > 0]]) for row in rows["item_id_list"].numpy()]
    cut = [f"{user}\t{items}\t{target}\n" for user, items, target in zip(users, read, targets, strict=True)]
    for part in ("train", "valid", "test"):
        (folder / f"shop.{part}.inter").write_text(
            "user_id:token\titem_id_list:token_seq\titem_id:token\n" + "".join(cut)
        )
    values = {
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "alias_of_item_id": ["item_id_list"],
        "benchmark_filename": ["train", "valid", "test"],
    }
    model, trainer, _, test = trained("CL4Rec", alone / "cut", **values)
    assert model.sequences.times is None and 0 < trainer.evaluate(test)["recall@10"] <= 1
    own = test.dataset.field2id_token["item_id"]
    raw = lambda sequences, table: sorted(map(tuple, np.split(table[np.array(sequences.items)], sequences.offsets[1:-1])))  # noqa: E731  # fmt: skip
    assert raw(model.sequences, own) == raw(whole, tokens["item_id"])


def test_without_times_only_what_needs_them_is_refused(data):
    config, train, *_ = prepared(ours("CL4Rec"), data, unused_col={"inter": ["timestamp"]})
    assert ours("CL4Rec")(config, train.dataset).sequences.times is None
    config, train, *_ = prepared(ours("TiCoSeRec"), data, unused_col={"inter": ["timestamp"]})
    with pytest.raises(UserError, match="need the times of the items"):
        ours("TiCoSeRec")(config, train.dataset)
