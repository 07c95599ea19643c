"""run(config) -> Record, on a small data-set folder, for all that a configuration may say."""

import itertools
import json
import math
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inforec import data, experiment, rerank, results
from inforec.distribution import ItemDistribution
from inforec.evaluate import evaluate_clicks, evaluate_lists, evaluate_ratings, recommend
from inforec.experiment import LOSSES, ROW_LOSSES, RunConfig, run, trained
from inforec.metrics.calibration import calibration_kl
from inforec.models import REGISTRY, ClickModel, Ranker, RatingModel
from inforec.train import NonFiniteLossError
from inforec.types import Batch, Output, Query

RANKERS = sorted(name for name in REGISTRY if issubclass(REGISTRY[name], Ranker))
LEARNED = [name for name in RANKERS if not REGISTRY[name].closed_form]
CLOSED = [name for name in RANKERS if REGISTRY[name].closed_form]
RANKING_LOSSES = [loss for loss in LOSSES if loss not in ROW_LOSSES]
TRAINABLE = [
    (model, loss)
    for model in LEARNED
    for loss in LOSSES
    if loss != "own" or REGISTRY[model].own_loss
    if loss not in ROW_LOSSES or REGISTRY[model].reconstructs
]
# The terms that a model adds to every loss, as they are called in the history.
OWN_TERMS = {name: ["contrast"] for name in ("sgl", "simgcl", "xsimgcl", "directau")}
OWN_TERMS["cgi"] = ["contrast", "views"]
OWN_TERMS["multvae"] = ["rate"]
FITTED = {  # what a model needs otherwise
    "multvae": {"learning_rate": 0.002},  # layers of hundreds of units
    "dae": {"options": {"hidden": 16}},
    "cdae": {"options": {"hidden": 16}},
}


@pytest.fixture
def config(tiny_folder):
    """A run of a second: MF with 4 factors for 4 epochs."""
    return RunConfig(
        dataset=str(tiny_folder),
        model="mf",
        options={"dim": 4},
        epochs=4,
        batch_size=64,
        validate_every=2,
        learning_rate=0.05,
        negatives=5,
        k=5,
        candidates=12,
        device="cpu",
    )


def quiet(config, **arguments):
    return run(config, progress=False, **arguments)


def without_seconds(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]


# ---- every combination --------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.2, 0.0), (0.0, 0.05), (0.2, 0.05)], ids=str)
@pytest.mark.parametrize("model, loss", TRAINABLE)
def test_every_model_trains_with_every_loss_and_both_terms(config, model, loss, weights):
    alpha, beta = weights
    config = replace(config, model=model, loss=loss, **FITTED.get(model, {}))
    record = quiet(replace(config, alpha=alpha, beta=beta))
    own = set(OWN_TERMS.get(model, ()))
    expected = {loss, *own}
    expected |= ({"category_kl"} if alpha else set()) | ({"entropy"} if beta else set())
    assert len(record.history) == 4
    for entry in record.history:
        parts = entry["terms"]
        assert set(parts) == expected and all(map(math.isfinite, parts.values()))
        wanted = parts[loss] + alpha * parts.get("category_kl", 0) - beta * parts.get("entropy", 0)
        wanted += sum(parts[name] for name in own)
        assert entry["loss"] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    falls = "loss" if loss == "own" else loss
    first, *_, last = ({"loss": e["loss"], **e["terms"]} for e in record.history)
    assert last[falls] < first[falls]
    assert 0 < record.test["recall@5"] <= 1


@pytest.mark.parametrize("loss", [loss for loss in RANKING_LOSSES if loss != "own"])
@pytest.mark.parametrize("model", CLOSED)
def test_a_closed_form_runs_whatever_the_loss(config, model, loss):
    record = quiet(replace(config, model=model, options={}, loss=loss))
    assert record.cost["epochs"] == 0 and record.cost["parameters"] == 0
    assert record.history[0]["valid"]["ndcg@5"] == record.valid["ndcg@5"]
    assert 0 <= record.test["recall@5"] <= 1


@pytest.mark.parametrize("model, weight", [*itertools.product(CLOSED, ["alpha", "beta"])])
def test_a_closed_form_refuses_the_two_terms(config, model, weight):
    with pytest.raises(ValueError, match=f"{weight}=0.1.*model='{model}'.*closed form"):
        replace(config, model=model, options={}, **{weight: 0.1})


@pytest.mark.parametrize("split", ["random", "leave_one_out", "temporal"])
def test_every_split_that_the_folder_allows(config, split):
    if split == "random":
        assert quiet(replace(config, split=split)).config["split"] == split
    else:  # the folder has no time
        with pytest.raises(ValueError, match="time"):
            quiet(replace(config, split=split))


def test_the_terms_do_what_they_are_for(config):
    longer = replace(config, epochs=20, validate_every=20)
    plain, calibrated, wide = (
        quiet(longer),
        quiet(replace(longer, alpha=5.0)),
        quiet(replace(longer, beta=0.5)),
    )
    dataset = data.load(config.dataset)

    def divergence(record):
        law_UC = torch.from_numpy(record.arrays["law_UC"]).double()
        return float(calibration_kl(dataset.interest_UC, law_UC).mean())

    assert divergence(calibrated) < 0.5 * divergence(plain)
    assert wide.test["item_entropy@5"] > plain.test["item_entropy@5"]


def test_the_loss_temperature_is_used_by_every_term(config):
    """At the start all scores are near 0, so that a high temperature makes Q_u uniform."""
    hot = quiet(replace(config, epochs=1, temperature=1e6, alpha=0.1, beta=0.1))
    terms = hot.history[0]["terms"]
    dataset = data.load(config.dataset)
    assert terms["softmax"] == pytest.approx(math.log(dataset.num_items), rel=1e-5)
    assert terms["entropy"] == pytest.approx(math.log(dataset.num_items), rel=1e-5)
    uniform_UC = dataset.category_NC.mean(0).expand(dataset.num_users, -1)
    wanted = torch.special.xlogy(dataset.interest_UC, dataset.interest_UC / uniform_UC).sum(1)
    assert terms["category_kl"] == pytest.approx(wanted.mean().item(), rel=0.05)


def test_a_fixed_perplexity_makes_the_divergence_a_soft_top_k(config):
    record = quiet(replace(config, alpha=0.5, perplexity=4.0))
    assert set(record.history[0]["terms"]) == {"softmax", "category_kl"}
    other = quiet(replace(config, alpha=0.5))
    first, second = (r.history[0]["terms"]["category_kl"] for r in (record, other))
    assert first > 2 * second  # at the start Q_u is near uniform, its soft top 4 is not


def test_pairs_carry_histories_where_the_law_goes_without_them(config):
    dataset = data.load(config.dataset)
    plain = replace(config, model="mf", loss="bpr")
    for settings, carried in (
        (plain, False),
        (replace(plain, alpha=0.5, perplexity=4.0), True),
        (replace(config, model="cdae", options={}, loss="sampled_logistic"), True),
    ):
        model = REGISTRY[settings.model](dataset.train)
        batch = next(experiment._batches(settings, model, dataset).epoch(1))
        assert (batch.history is not None) == carried


def test_the_soft_top_k_is_the_law_of_what_may_be_shown_measured_as_lists_are(config):
    settings = replace(config, alpha=0.5, perplexity=4.0)
    dataset = data.load(config.dataset)
    user_B = torch.tensor([3, 11])
    history_BT = dataset.train.history_UT[user_B]
    torch.manual_seed(0)
    logits_BN = torch.randn(2, dataset.num_items)
    output = Output(distribution=ItemDistribution.from_logits(logits_BN))
    term = experiment._regularizers(settings, dataset)["category_kl"]
    law = ItemDistribution.from_logits(logits_BN, exclude_BT=history_BT).at_perplexity(4.0)
    wanted_B = calibration_kl(dataset.interest_UC[user_B], law.mean(dataset.category_NC).double())
    got_B = term.function(output, Batch(user_B, history_BT))
    torch.testing.assert_close(got_B.double(), wanted_B, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision, error", [("64-true", 1e-4), ("bf16-mixed", 2e-2)])
@pytest.mark.parametrize("model, loss", TRAINABLE)
def test_other_precisions_train_alike(config, model, loss, precision, error):
    if model in ("cdae", "cgi", "dae", "multvae", "simgcl", "xsimgcl"):
        error = 0.1  # their noise is drawn in the precision of the run, and so differs
    elif model == "directau":
        error = max(error, 1e-3) * 3  # a difference of terms of one size
    config = replace(config, model=model, loss=loss, **FITTED.get(model, {}))
    settings = replace(config, alpha=0.1, beta=0.1, epochs=1)
    single, other = quiet(settings), quiet(replace(settings, precision=precision))
    for name, value in single.history[0]["terms"].items():
        tiny = 1e-4 if (model, name) == ("multvae", "rate") else 0.0  # it grows from near nothing
        assert other.history[0]["terms"][name] == pytest.approx(value, rel=error, abs=tiny)


# ---- the record ---------------------------------------------------------------------------------


def test_the_record_holds_what_it_promises(config, tmp_path):
    record = quiet(replace(config, alpha=0.1), results=tmp_path / "study")
    dataset = data.load(config.dataset)
    assert record.config == replace(config, alpha=0.1).to_dict()
    assert set(record.config) == set(RunConfig.__dataclass_fields__)
    assert record.config["options"] == {"dim": 4, "cosine": False}
    assert record.study == "study" and not record.found
    assert set(record.cost) == {
        *("seconds", "seconds_per_epoch", "seconds_evaluation"),
        *("peak_memory_mib", "parameters", "epochs"),
    }
    assert record.cost["parameters"] == 4 * (dataset.num_users + dataset.num_items)
    assert record.cost["epochs"] == 4 and all(v > 0 for v in record.cost.values())
    assert record.provenance["data"] == dataset.fingerprint
    assert record.provenance["seed"] == config.seed
    top_UK = record.top
    assert top_UK.shape == (dataset.num_users, 5)
    assert record.test == evaluate_lists(torch.from_numpy(top_UK), dataset, (5,), "test")
    law_UC = record.arrays["law_UC"]
    assert law_UC.shape == dataset.interest_UC.shape
    assert law_UC.sum(1) == pytest.approx(np.ones(len(law_UC)), rel=1e-5)
    stored = json.loads((tmp_path / "study" / f"{record.run_id}.json").read_text())
    assert stored["test"] == record.test and stored["config"] == record.config
    # The chosen epoch is the best validated one.
    values = [e["valid"]["ndcg@5"] for e in record.history if "valid" in e]
    assert record.valid["ndcg@5"] == max(values)


def test_an_equal_run_is_found_not_repeated(config, tmp_path):
    epochs = []
    made = quiet(config, results=tmp_path, callbacks=[epochs.append])
    again = quiet(replace(config), results=str(tmp_path), callbacks=[epochs.append])
    assert len(epochs) == 4 and again.found and not made.found
    assert (again.test, again.valid, again.history) == (made.test, made.valid, made.history)
    assert np.array_equal(again.top, made.top)
    other = quiet(replace(config, seed=1), results=tmp_path)
    assert not other.found and len(results.load(tmp_path)) == 2


def test_a_run_is_repeated_when_the_data_of_the_folder_have_changed(config, tmp_path, tiny_folder):
    made = quiet(config, results=tmp_path / "study")
    table = pq.read_table(tiny_folder / "interactions.parquet")
    pq.write_table(table.slice(1), tiny_folder / "interactions.parquet")
    again = quiet(config, results=tmp_path / "study")
    assert not again.found and again.run_id == made.run_id
    assert again.provenance["data"] != made.provenance["data"]


def test_the_figures_of_the_law_are_those_of_its_definition(config, tmp_path):
    settings = replace(config, temperature=0.7)
    record = quiet(settings, results=tmp_path)
    dataset = data.load(config.dataset)
    model = REGISTRY["mf"](dataset.train, settings.model_config())
    (weights,) = tmp_path.glob("*.weights")
    saved = torch.load(weights, weights_only=True)
    model.load_state_dict(saved["model"])
    user_U = torch.arange(dataset.num_users)
    with torch.no_grad():
        log_prob_UN = (model.score(Query(user_U)) / 0.7).log_softmax(1).double()
    for name in ("train", "valid", "test"):
        part = getattr(dataset, name)
        wanted = -log_prob_UN[part.user, part.item].mean().item()
        assert record.law[f"nll_{name}"] == pytest.approx(wanted, rel=1e-5)
    entropy_U = -(log_prob_UN.exp() * log_prob_UN).sum(1)
    assert record.law["entropy"] == pytest.approx(entropy_U.mean().item(), rel=1e-5)
    q_UC, p_UC = log_prob_UN.exp() @ dataset.category_NC.double(), dataset.interest_UC.double()
    kl_U = (torch.special.xlogy(p_UC, p_UC) - torch.special.xlogy(p_UC, q_UC)).sum(1)
    assert record.law["category_kl"] == pytest.approx(kl_U.mean().item(), rel=1e-4)
    assert results.read(tmp_path / f"{record.run_id}.json").law == record.law


def test_values_of_single_users_are_kept_where_asked_for(config, tmp_path):
    lean = quiet(config, results=tmp_path)
    assert lean.users == {}
    full = quiet(config, results=tmp_path, per_user=True)
    assert set(full.users) == {"ndcg@5", "calibration_kl@5"}
    for name, value_U in full.users.items():
        assert np.nanmean(value_U) == pytest.approx(full.test[name], abs=1e-12)
    # Nothing was trained again, and nothing of the first record is lost.
    assert (full.history, full.cost, full.test) == (lean.history, lean.cost, lean.test)
    again = quiet(config, results=tmp_path, per_user=True)
    assert again.found
    for name, value_U in full.users.items():  # four decimals are stored
        np.testing.assert_allclose(again.users[name], value_U, atol=5.1e-5)


def test_a_reranked_run_takes_the_trained_weights(config, tmp_path):
    plain = quiet(config, results=tmp_path)
    epochs = []
    settings = replace(config, reranker="steck", trade_off=0.9)
    reranked = quiet(settings, results=tmp_path, callbacks=[epochs.append])
    assert epochs == [] and reranked.history == [] and not reranked.found
    assert reranked.provenance["trained"] == plain.provenance["commit"]
    alone = quiet(settings)
    assert (reranked.test, reranked.valid) == (alone.test, alone.valid)
    # Weights of other data are not taken.
    (weights,) = tmp_path.glob("*.weights")
    saved = torch.load(weights, weights_only=True)
    torch.save({**saved, "key": "another"}, weights)
    quiet(replace(settings, trade_off=0.8), results=tmp_path, callbacks=[epochs.append])
    assert len(epochs) == 4


def test_two_equal_runs_agree_in_every_number(config):
    first = quiet(replace(config, alpha=0.1, beta=0.05, model="lightgcn"))
    torch.rand(7)
    second = quiet(replace(config, alpha=0.1, beta=0.05, model="lightgcn"))
    assert (first.valid, first.test) == (second.valid, second.test)
    assert without_seconds(first.history) == without_seconds(second.history)
    assert np.array_equal(first.top, second.top)
    third = quiet(replace(config, alpha=0.1, beta=0.05, model="lightgcn", seed=1))
    assert third.history[0]["loss"] != first.history[0]["loss"]


def test_the_seed_of_the_run_does_not_draw_the_split(config):
    first, second = quiet(config), quiet(replace(config, seed=5))
    assert first.provenance["data"] == second.provenance["data"]
    assert quiet(replace(config, split_seed=1)).provenance["data"] != first.provenance["data"]


def test_without_a_results_folder_nothing_is_written(config, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setenv("INFOREC_RESULTS", str(empty))
    before = sorted(tmp_path.rglob("*"))
    record = quiet(config)
    assert sorted(tmp_path.rglob("*")) == before
    assert record.study == "" and record.top.shape[1] == 5


def test_a_run_that_fails_leaves_no_record(config, tmp_path):
    with pytest.raises(NonFiniteLossError, match="category_kl"):
        quiet(replace(config, learning_rate=1e30, alpha=0.1), results=tmp_path)
    assert [path for path in tmp_path.iterdir() if path.suffix in (".json", ".npz")] == []


def test_the_checkpoint_of_another_configuration_is_not_continued(config, tmp_path):
    def stop(entry):
        if entry["epoch"] == 3:
            raise KeyboardInterrupt

    study = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        quiet(config, results=study, callbacks=[stop])
    other = replace(config, learning_rate=0.01)
    (left,) = study.iterdir()
    assert left.name == f"{results.run_id(config.training().to_dict())}.ckpt"
    left.rename(study / f"{results.run_id(other.training().to_dict())}.ckpt")
    record = quiet(other, results=study)
    assert without_seconds(record.history) == without_seconds(quiet(other).history)


def test_a_run_stopped_between_its_weights_and_its_record_keeps_its_history(
    config, tmp_path, monkeypatch
):
    study = tmp_path / "study"

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(results, "write", stop)
        quiet(config, results=study)
    assert [path.suffix for path in study.iterdir()] == [".weights"]
    seen = []
    record = run(config, results=study, callbacks=[seen.append], progress=False)
    assert seen == [] and record.provenance["trained"] == results.commit()
    assert without_seconds(record.history) == without_seconds(quiet(config).history)


def test_the_checkpoint_goes_only_after_the_weights_are_there(config, tmp_path, monkeypatch):
    study, save = tmp_path / "study", results.save_tensors

    def full(state, path):
        if path.suffix == ".weights":
            raise OSError(28, "No space left on device", str(path))
        save(state, path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(results, "save_tensors", full)
        quiet(config, results=study)
    assert [path.suffix for path in study.iterdir()] == [".ckpt"]
    seen = []
    record = run(config, results=study, callbacks=[seen.append], progress=False)
    assert seen == [] and record.test == quiet(config).test
    assert sorted(path.suffix for path in study.iterdir()) == [".json", ".npz", ".weights"]
    # What a second process left that was killed after the first had ended:
    left = study / f"{results.run_id(config.training().to_dict())}.ckpt"
    left.touch()
    assert quiet(config, results=study).found and not left.exists()


def test_damaged_weights_are_named(config, tmp_path):
    record = quiet(config, results=tmp_path)
    (weights,) = tmp_path.glob("*.weights")
    raw = weights.read_bytes()
    weights.write_bytes(raw[:700] + bytes([raw[700] ^ 16]) + raw[701:])
    (tmp_path / f"{record.run_id}.json").unlink()
    with pytest.raises(ValueError, match=r"\.weights is not a readable checkpoint: delete it"):
        quiet(config, results=tmp_path)


def test_a_training_that_does_not_fit_in_memory_says_what_to_lower(config, monkeypatch):
    def fit(*arguments, **options):
        torch.empty(2**50)

    monkeypatch.setattr(experiment, "fit", fit)
    with pytest.raises(ValueError, match=rf"batch_size={config.batch_size}: out of memory in"):
        quiet(config)


def test_lists_are_reranked_in_smaller_blocks_where_memory_is_short(config, monkeypatch):
    config = replace(config, reranker="steck", candidates=10)
    whole = quiet(config).top
    steck = experiment.rerank.steck

    def short_of_memory(score_BM, *arguments, **options):
        return steck(score_BM, *arguments, **options) if len(score_BM) < 9 else torch.empty(2**50)

    monkeypatch.setattr(experiment.rerank, "steck", short_of_memory)
    with pytest.warns(RuntimeWarning, match="out of memory with a block of 24 rows: .* with 6"):
        lists = quiet(config).top
    assert np.array_equal(lists, whole)


# ---- the trained model --------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mf", "ease"])
def test_the_trained_model_gives_the_lists_of_its_run(config, tmp_path, model):
    config = replace(config, model=model, options={})
    record = quiet(config, results=tmp_path)
    again, dataset = experiment.trained(config, tmp_path)
    assert not again.training
    assert np.array_equal(recommend(again, dataset, 5, "test").cpu().numpy(), record.top)


def test_a_model_without_weights_is_not_made_up(config, tmp_path):
    with pytest.raises(ValueError, match=r"results='.*': expected the weights of this run"):
        experiment.trained(config, tmp_path)
    quiet(config, results=tmp_path)
    with pytest.raises(ValueError, match="expected the weights"):
        experiment.trained(replace(config, seed=9), tmp_path)


# ---- reranking ----------------------------------------------------------------------------------


def test_the_reranker_with_trade_off_zero_changes_nothing(config):
    plain = quiet(config)
    reranked = quiet(replace(config, reranker="steck", trade_off=0.0))
    assert reranked.test == plain.test and np.array_equal(reranked.top, plain.top)


def test_the_reranker_calibrates_and_keeps_to_its_candidates(config):
    plain = quiet(replace(config, k=12))
    reranked = quiet(replace(config, reranker="steck", trade_off=0.95))
    assert reranked.test["calibration_kl@5"] < quiet(config).test["calibration_kl@5"]
    for chosen, allowed in zip(reranked.top.tolist(), plain.top.tolist(), strict=True):
        assert set(chosen) <= set(allowed) and len(set(chosen)) == 5


DECISIONS = {
    "steck": {"trade_off": 0.9},
    "expected_ndcg": {"trade_off": 0.5},
    "decaying_attention": {"trade_off": 0.9},
    "tilt": {"tilt_alpha": 20.0},
    "tilt_steck": {"tilt_alpha": 20.0, "trade_off": 0.9},
}


# The scores of EASE are no logits: as a law they are nearly flat, and only a perplexity helps.
@pytest.mark.parametrize("model, perplexity", [("mf", None), ("mf", 6.0), ("ease", 6.0)])
@pytest.mark.parametrize("reranker", DECISIONS)
def test_every_reranker_calibrates(config, model, reranker, perplexity):
    plain = replace(config, model=model, options={})
    settings = {"reranker": reranker, "rerank_perplexity": perplexity, **DECISIONS[reranker]}
    record = quiet(replace(plain, **settings))
    assert record.test["calibration_kl@5"] < 0.9 * quiet(plain).test["calibration_kl@5"]
    assert record.top.shape[1] == 5 and (record.top >= 0).all()


@pytest.mark.parametrize("tilt_alpha", [0.0, 2.0])
def test_relevance_is_a_share_of_the_expected_ndcg(config, tmp_path, tilt_alpha):
    """The lists are those of the search with p(i | u) E[held-out items] / ideal DCG, by hand."""
    settings = replace(
        config, reranker="expected_ndcg", trade_off=0.3, tilt_alpha=tilt_alpha, candidates=15
    )
    record = quiet(settings, results=tmp_path)
    dataset = data.load(config.dataset)
    (weights,) = tmp_path.glob("*.weights")
    model = REGISTRY["mf"](dataset.train, settings.model_config())
    model.load_state_dict(torch.load(weights, weights_only=True)["model"])
    rate = len(dataset.valid) / len(dataset.train)
    shares = set()
    for user in range(dataset.num_users):
        history = dataset.train.history_UT[user]
        taken = {int(i) for part in (history, dataset.valid.history_UT[user]) for i in part}
        score_N = model.score(Query(torch.tensor([user]), history[None]))[0].detach()
        score_N[[i for i in taken if i >= 0]] = -math.inf
        score_N /= settings.temperature
        interest_BC = dataset.interest_UC[user][None]
        if tilt_alpha:
            score_N = rerank.tilt(
                score_N[None], interest_BC, dataset.category_NC, alpha=tilt_alpha, temperature=1.0
            ).score_BN[0]
        held = max(1.0, rate * int((history >= 0).sum()))
        ideal = sum(1 / math.log2(1 + place) for place in range(1, min(5, round(held)) + 1))
        shares.add(held / ideal)
        best_M = score_N.topk(15).indices
        chosen = rerank.expected_ndcg(
            score_N.softmax(0)[best_M][None] * held / ideal, best_M[None], interest_BC,
            dataset.category_NC, k=5, trade_off=0.3,
        )[0]  # fmt: skip
        assert record.top[user].tolist() == chosen.tolist()
    assert len(shares) > 1


def test_a_user_is_expected_to_have_at_least_one_item_held_out():
    """Half an item cannot be found; 30 of them fill the list of 5 and more."""
    train = type("Train", (list,), {"user_counts": torch.tensor([4, 30, 300])})([None] * 1000)
    share_U = experiment._share_of_ndcg(SimpleNamespace(train=train, valid=[None] * 100), 5)
    three, five = (sum(1 / math.log2(1 + j) for j in range(1, n + 1)) for n in (3, 5))
    assert share_U.tolist() == pytest.approx([1.0, 3 / three, 30 / five])


def test_the_tilt_at_a_perplexity_is_that_of_the_soft_top_k(config, tmp_path):
    """The lists are those of a dual solved for one user at a time, from stored weights."""
    settings = replace(config, reranker="tilt", tilt_alpha=2.0, rerank_perplexity=6.0)
    record = quiet(settings, results=tmp_path)
    dataset = data.load(config.dataset)
    (weights,) = tmp_path.glob("*.weights")
    model = REGISTRY["mf"](dataset.train, settings.model_config())
    model.load_state_dict(torch.load(weights, weights_only=True)["model"])
    for user in range(dataset.num_users):
        with torch.no_grad():
            score_N = model.score(Query(torch.tensor([user])))[0].double()
        taken = [*dataset.train.history_UT[user].tolist(), *dataset.valid.history_UT[user].tolist()]
        taken_BT = torch.tensor([taken])
        law = ItemDistribution.from_logits(score_N[None], exclude_BT=taken_BT)
        tilt = rerank.tilt(
            score_N[None] / law.at_perplexity(6.0).temperature,
            dataset.interest_UC[user][None].double(),
            dataset.category_NC.double(),
            alpha=2.0,
            temperature=1.0,
            exclude_BT=taken_BT,
        )
        assert record.top[user].tolist() == tilt.top(5)[0].tolist()


def test_the_layer_carries_the_calibration(config):
    """What is learned may be further from P_u, because the layer makes up for it."""
    longer = replace(config, epochs=30, validate_every=30)
    plain, layered = quiet(longer), quiet(replace(longer, layer_alpha=3.0))
    assert layered.law["category_kl"] > plain.law["category_kl"]
    assert layered.history[-1]["terms"]["softmax"] < layered.history[0]["terms"]["softmax"]


def test_more_candidates_than_a_user_has_left_is_an_error(config):
    with pytest.raises(ValueError, match=r"candidates=30: user index .* has only .* items left"):
        quiet(replace(config, reranker="steck", trade_off=0.5, candidates=30))


# ---- the configuration --------------------------------------------------------------------------

BAD = [
    ("dataset", ""),
    ("dataset", 3),
    ("dataset", "ml-100"),
    ("split", "randon"),
    ("min_rating", math.nan),
    ("min_rating", "4"),
    ("min_interactions", 0),
    ("min_interactions", 2.5),
    ("split_seed", -1),
    ("model", "lightgnc"),
    ("options", {"dims": 4}),
    ("options", {"dim": 0}),
    ("options", [4]),
    ("loss", "hinge"),
    ("alpha", -0.1),
    ("alpha", math.inf),
    ("alpha", "0.2"),
    ("beta", -0.1),
    ("beta", math.nan),
    ("temperature", 0.0),
    ("temperature", -1.0),
    ("perplexity", 1.0),
    ("perplexity", math.nan),
    ("layer_alpha", -0.1),
    ("negatives", 0),
    ("epochs", -1),
    ("epochs", 2.5),
    ("batch_size", 0),
    ("learning_rate", 0.0),
    ("weight_decay", -1e-4),
    ("validate_every", 0),
    ("patience", 0),
    ("reranker", "stek"),
    ("trade_off", -0.1),
    ("trade_off", 1.1),
    ("tilt_alpha", -0.1),
    ("decay", -0.1),
    ("rerank_perplexity", 1.0),
    ("candidates", 0),
    ("k", 0),
    ("k", True),
    ("seed", -1),
    ("device", "gpu"),
    ("precision", "half"),
]


SAID = {  # where the message does not simply begin with the field
    "ml-100": "unknown data set 'ml-100'; the nearest are: ml-100k",
    "{'dims': 4}": "options of 'mf'='dims': expected one of dim",
    "{'dim': 0}": "dim=0: expected a whole number at least 1",
}


@pytest.mark.parametrize("name, value", BAD, ids=[f"{n}={v!r}" for n, v in BAD])
def test_a_bad_value_is_named(config, name, value):
    with pytest.raises(ValueError) as caught:
        replace(config, **{name: value})
    assert str(caught.value).startswith(SAID.get(str(value), f"{name}={value!r}: expected "))


def test_every_field_has_a_bad_value_in_this_list():
    assert {name for name, _ in BAD} == set(RunConfig.__dataclass_fields__)


def test_values_that_exclude_each_other(config):
    with pytest.raises(ValueError, match=r"beta=0\.1 with perplexity=5"):
        replace(config, beta=0.1, perplexity=5)
    with pytest.raises(ValueError, match=r"perplexity=5 with alpha=0: expected alpha above 0"):
        replace(config, perplexity=5)
    with pytest.raises(ValueError, match=r"loss='own' with model='mf': expected another loss"):
        replace(config, loss="own")
    with pytest.raises(ValueError, match=r"loss='mse' with model='mf': .* one of dae, cdae, mult"):
        replace(config, loss="mse")
    with pytest.raises(ValueError, match=r"layer_alpha=0\.5 with loss='bpr'"):
        replace(config, layer_alpha=0.5, loss="bpr")
    with pytest.raises(ValueError, match=r"tilt_alpha=0\.0: expected a finite number above 0"):
        replace(config, reranker="tilt")
    for name, value in {"trade_off": 0.5, "tilt_alpha": 0.5, "rerank_perplexity": 5.0}.items():
        with pytest.raises(ValueError, match=f"{name}={value} with reranker='none': expected"):
            replace(config, **{name: value})
    with pytest.raises(ValueError, match=r"tilt_alpha=0\.5 with reranker='steck'"):
        replace(config, reranker="steck", tilt_alpha=0.5)
    with pytest.raises(ValueError, match=r"candidates=4 with k=5: expected at least k"):
        replace(config, reranker="steck", candidates=4)
    assert replace(config, candidates=4).candidates == 4  # nothing is reranked
    with pytest.raises(ValueError, match=r"trade_off=0\.5 with reranker='none'"):
        replace(config, trade_off=0.5)
    with pytest.raises(ValueError, match="'popularity' has no options"):
        replace(config, model="popularity", options={"dim": 4})


def test_an_unknown_field_is_an_error_and_fields_are_frozen(config):
    with pytest.raises(TypeError, match="alhpa"):
        RunConfig(alhpa=0.2)
    with pytest.raises(FrozenInstanceError):
        config.alpha = 0.2


CHANGES = {
    "split": "given",
    "min_rating": 3.0,
    "min_interactions": 6,
    "split_seed": 1,
    "model": "lightgcn",
    "options": {"dim": 5},
    "loss": "bpr",
    "alpha": 0.1,
    "beta": 0.1,
    "temperature": 0.3,
    "perplexity": 5.0,
    "layer_alpha": 0.1,
    "negatives": 6,
    "epochs": 5,
    "batch_size": 65,
    "learning_rate": 0.04,
    "weight_decay": 0.3,
    "validate_every": 3,
    "patience": 6,
    "reranker": "steck",
    "decay": 0.5,
    "candidates": 13,
    "k": 6,
    "seed": 1,
    "device": "auto",
    "precision": "64-true",
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_field_changes_the_run_id(config, name):
    config = replace(config, alpha=0.5)
    changed = replace(config, **{name: CHANGES[name]})
    assert results.run_id(changed.to_dict()) != results.run_id(config.to_dict())


def test_the_list_of_changes_names_every_field():
    others = {"dataset", "trade_off", "tilt_alpha", "rerank_perplexity"}
    assert set(CHANGES) | others == set(RunConfig.__dataclass_fields__)


def test_data_set_and_reranking_change_the_run_id_too(config, tmp_path):
    other = replace(config, dataset=str(tmp_path))
    reranked = replace(config, reranker="tilt_steck", tilt_alpha=1.0, trade_off=0.5)
    further = {"trade_off": 0.6, "tilt_alpha": 2.0, "rerank_perplexity": 9.0}
    names = [other, config, reranked]
    names += [replace(reranked, **{name: value}) for name, value in further.items()]
    assert len({results.run_id(each.to_dict()) for each in names}) == 6


def test_equal_settings_have_equal_names_however_they_are_written(config):
    name = results.run_id(config.to_dict())
    assert results.run_id(replace(config, options={"dim": 4}).to_dict()) == name
    whole = replace(config, alpha=1.0, temperature=2.0, min_rating=4.0, perplexity=3.0)
    same = replace(config, alpha=1, temperature=2, min_rating=4, perplexity=3)
    assert results.run_id(whole.to_dict()) == results.run_id(same.to_dict())
    # Options left out are those of the model's own defaults.
    lean = replace(config, model="ease", options={})
    default = REGISTRY["ease"].Config().l2
    for value in (default, int(default)):
        full = replace(config, model="ease", options={"l2": value})
        assert results.run_id(lean.to_dict()) == results.run_id(full.to_dict())


def test_a_configuration_comes_back_from_a_record(config, tmp_path):
    options = {"dim": 4, "cosine": False}
    settings = replace(config, epochs=0, alpha=0.5, perplexity=4.0, options=options)
    record = quiet(settings, results=tmp_path)
    back = RunConfig(**results.read(tmp_path / f"{record.run_id}.json").config)
    assert back == settings and results.run_id(back.to_dict()) == record.run_id


def test_the_default_configuration_is_valid_and_of_the_embedded_data_set():
    default = RunConfig()
    assert (default.dataset, default.model, default.loss) == ("ml-100k", "lightgcn", "softmax")
    assert (default.alpha, default.beta, default.k) == (0.0, 0.0, 20)


def test_progress_can_be_silenced(config, capfd):
    quiet(replace(config, epochs=1))
    assert capfd.readouterr() == ("", "")
    run(replace(config, epochs=1))
    assert "training" in capfd.readouterr().err


def test_cuda_is_refused_where_there_is_none(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cuda'"):
        quiet(replace(config, device="cuda"))
    assert experiment.choose_device("auto").type == "cpu"


# ---- click-through ------------------------------------------------------------------------------

CLICK_MODELS = sorted(name for name in REGISTRY if issubclass(REGISTRY[name], ClickModel))


@pytest.fixture
def clicks(tmp_path):
    """A run of a second on labelled rows: a factorisation machine for 6 epochs."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    row = range(600)
    columns = {
        "user": [i % 20 for i in row],
        "item": [(7 * i + i // 20) % 15 for i in row],
        "position": [i // 20 for i in row],
        "tags": [[i % 4] * (i % 3 > 0) for i in row],
        "label": [int((i % 20 + (7 * i + i // 20) % 15) % 2) for i in row],
    }
    pq.write_table(pa.table(columns), folder / "impressions.parquet")
    return RunConfig(
        dataset=str(folder),
        model="fm",
        options={"dim": 4},
        loss="logistic",
        epochs=6,
        batch_size=64,
        validate_every=2,
        learning_rate=0.01,
        device="cpu",
    )


@pytest.mark.parametrize("split", ["random", "time_ordered"])
@pytest.mark.parametrize("model", CLICK_MODELS)
def test_every_click_through_model_trains_and_is_recorded(clicks, model, split, tmp_path):
    settings = replace(clicks, model=model, options={}, split=split)
    record = quiet(settings, results=tmp_path / "study")
    assert set(record.test) == set(record.valid) == {"auc", "gauc", "logloss", "ece"}
    assert all(map(math.isfinite, record.test.values())) and record.law == {}
    assert [set(entry["terms"]) for entry in record.history] == [{"logistic"}] * 6
    assert record.history[-1]["loss"] < record.history[0]["loss"]
    best = max(e["valid"]["auc"] for e in record.history if "valid" in e)
    assert record.valid["auc"] == best
    # The record alone brings it all back, and the weights beside it the model.
    back = results.read(tmp_path / "study" / f"{record.run_id}.json")
    again = RunConfig(**back.config)
    assert back.test == record.test and results.run_id(again.to_dict()) == record.run_id
    found = quiet(settings, results=tmp_path / "study")
    assert found.found and found.test == record.test
    trained_model, dataset = trained(settings, tmp_path / "study")
    metrics, logit_E = evaluate_clicks(trained_model, dataset.test)
    assert metrics == record.test
    assert logit_E.tolist() == record.arrays["logit_E"].tolist()
    assert dataset.test.label.tolist() == record.arrays["label_E"].tolist()
    with pytest.raises(ValueError, match="makes no lists"):
        _ = record.top


def test_the_same_seed_gives_the_same_click_model(clicks):
    first, again = quiet(clicks), quiet(clicks)
    assert without_seconds(first.history) == without_seconds(again.history)
    assert first.test == again.test != quiet(replace(clicks, seed=1)).test


@pytest.mark.parametrize("weights", [{"alpha": 0.1}, {"beta": 0.1}], ids=str)
@pytest.mark.parametrize("model", CLICK_MODELS)
def test_terms_on_a_law_of_one_column_are_refused(clicks, model, weights):
    """A softmax over one column is the constant 1: the terms would silently do nothing."""
    ((name, value),) = weights.items()
    message = rf"{name}={value}.*model='{model}'.*one column.*no entropy.*ClickModel.law"
    with pytest.raises(ValueError, match=message):
        replace(clicks, model=model, options={}, **weights)


def test_the_entropy_of_one_column_is_zero_whatever_the_logit():
    logit_B1 = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    entropy_B = ItemDistribution.from_logits(logit_B1).entropy()
    assert not entropy_B.any()
    assert not torch.autograd.grad(entropy_B.sum(), logit_B1)[0].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "softmax"}, "loss='softmax' with model='fm': expected 'logistic'"),
        ({"split": "temporal"}, r"split \(for model='fm'\)='temporal': expected one of random"),
        ({"dataset": "ml-1m"}, r"dataset \(for model='fm'\)='ml-1m'.*did you mean 'ml-1m-ctr'"),
        ({"temperature": 0.3}, "temperature=0.3 with model='fm': expected the default 0.5"),
        ({"min_rating": 3.0}, "min_rating=3.0 with model='fm': expected the default 4.0"),
        ({"reranker": "steck"}, "reranker='steck' with model='fm': expected the default 'none'"),
        ({"layer_alpha": 0.1}, "layer_alpha=0.1 with model='fm'"),
        ({"k": 5}, "k=5 with model='fm'"),
        ({"model": "mf"}, "loss='logistic' with model='mf': expected a model that reconstructs"),
        (
            {"model": "mf", "loss": "bpr", "dataset": "ml-1m-ctr"},
            "dataset='ml-1m-ctr' with model='mf': expected a click-through model",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_with_labelled_rows_is_named(clicks, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(clicks, **changes)


def test_single_users_have_no_click_metrics(clicks):
    with pytest.raises(ValueError, match="per_user=True with model='fm': expected False"):
        quiet(clicks, per_user=True)


# ---- ratings ------------------------------------------------------------------------------------

RATING_MODELS = sorted(name for name in REGISTRY if issubclass(REGISTRY[name], RatingModel))


@pytest.fixture
def rated(tmp_path):
    """A run of a second on ratings: BiasedMF for 6 epochs."""
    folder = tmp_path / "rated"
    folder.mkdir()
    pairs = [(u, i) for u in range(30) for i in range(20) if (3 * u + 5 * i) % 7 < 4]
    columns = {
        "user": [u for u, _ in pairs],
        "item": [i for _, i in pairs],
        "rating": [1.0 + (u % 3 + i % 4) % 5 for u, i in pairs],
    }
    pq.write_table(pa.table(columns), folder / "interactions.parquet")
    return RunConfig(
        dataset=str(folder),
        model="biasedmf",
        options={"dim": 4},
        loss="mse",
        epochs=6,
        batch_size=64,
        weight_decay=0.0,
        validate_every=2,
        learning_rate=0.01,
        device="cpu",
    )


@pytest.mark.parametrize("model", RATING_MODELS)
def test_every_rating_model_trains_and_is_recorded(rated, model, tmp_path):
    settings = replace(rated, model=model, options={})
    record = quiet(settings, results=tmp_path / "study")
    assert set(record.test) == set(record.valid) == {"rmse", "mae"} and record.law == {}
    assert [set(entry["terms"]) for entry in record.history] == [{"mse", "penalty"}] * 6
    assert record.history[-1]["loss"] < record.history[0]["loss"]
    best = min(e["valid"]["rmse"] for e in record.history if "valid" in e)
    assert record.valid["rmse"] == best  # the lowest
    back = results.read(tmp_path / "study" / f"{record.run_id}.json")
    again = RunConfig(**back.config)
    assert back.test == record.test and results.run_id(again.to_dict()) == record.run_id
    found = quiet(settings, results=tmp_path / "study")
    assert found.found and found.test == record.test
    trained_model, dataset = trained(settings, tmp_path / "study")
    metrics, rating_E = evaluate_ratings(trained_model, dataset.test)
    assert metrics == record.test
    assert rating_E.tolist() == record.arrays["rating_E"].tolist()
    other = quiet(replace(settings, split_seed=1))
    assert other.provenance["data"] != record.provenance["data"]


@pytest.mark.parametrize("weights", [{"alpha": 0.1}, {"beta": 0.1}], ids=str)
@pytest.mark.parametrize("model", RATING_MODELS)
def test_terms_on_a_law_of_ratings_are_refused(rated, model, weights):
    ((name, value),) = weights.items()
    message = rf"{name}={value}.*model='{model}'.*Gaussian.*Q_u would be the softmax.*ranking model"
    with pytest.raises(ValueError, match=message):
        replace(rated, model=model, options={}, **weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "softmax"}, "loss='softmax' with model='biasedmf': expected 'mse'"),
        ({"split": "temporal"}, r"split \(for model='biasedmf'\)='temporal': expected one of"),
        ({"dataset": "ml-1m-ctr"}, "dataset='ml-1m-ctr'.*expected a click-through model"),
        ({"min_rating": 3.0}, "min_rating=3.0 with model='biasedmf': expected the default 4.0"),
        ({"reranker": "steck"}, "reranker='steck' with model='biasedmf'"),
        ({"k": 5}, "k=5 with model='biasedmf'.*predicted by itself"),
        ({"model": "mf"}, "loss='mse' with model='mf': expected a model that reconstructs"),
    ],
    ids=str,
)
def test_what_does_not_go_with_ratings_is_named(rated, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(rated, **changes)


def test_single_users_have_no_rating_metrics(rated):
    with pytest.raises(ValueError, match="per_user=True with model='biasedmf': expected False"):
        quiet(rated, per_user=True)
