"""One run of RecBole 1.2.1, by the Python of .venv-recbole: settings in as JSON, results out.

It imports nothing of inforec. ``benchmarks.peers`` writes the rows and starts it, in a folder that
is thrown away. RecBole's own loader, model, trainer and evaluation do everything; what is added is
a clock, and the two repairs without which it does not run on this PyTorch and this SciPy.

Shape letters: U users, K list length, E rows.
"""

import json
import logging
import sys
import time

import numpy as np
import scipy.sparse
import torch
from peak import peak_memory_mib

torch_load = torch.load
torch.load = lambda *given, **named: torch_load(*given, **{**named, "weights_only": False})
scipy.sparse.dok_matrix._update = lambda self, values: self._dict.update(values)

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402


def main() -> None:
    given = json.load(sys.stdin)
    torch.set_num_threads(given["threads"])
    logging.disable(logging.CRITICAL)
    config = Config(model=given["model"], dataset="rows", config_dict=given["settings"])
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    start = time.perf_counter()
    model = get_model(config["model"])(config, train._dataset)
    built = time.perf_counter()
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    history = []

    def train_epoch(*arguments, **named):
        begun = time.perf_counter()
        loss = trained_epoch(*arguments, **named)
        history.append({"epoch": len(history) + 1, "seconds": time.perf_counter() - begun})
        return loss

    def valid_epoch(*arguments, **named):
        begun = time.perf_counter()
        score, result = validated_epoch(*arguments, **named)
        now = time.perf_counter()
        history[-1]["valid"] = {name: float(value) for name, value in result.items()}
        history[-1] |= {"seconds_validation": now - begun, "since_start": now - start}
        return score, result

    trained_epoch, trainer._train_epoch = trainer._train_epoch, train_epoch
    validated_epoch, trainer._valid_epoch = trainer._valid_epoch, valid_epoch
    trainer.fit(train, valid, saved=True, show_progress=False)
    fitted = time.perf_counter()
    tested = trainer.evaluate(test, load_best_model=True, show_progress=False)
    begun = time.perf_counter()
    trainer.evaluate(test, load_best_model=False, show_progress=False)
    evaluated = time.perf_counter()
    peak = peak_memory_mib()
    arrays = {}
    for on, part in (("valid", valid), ("test", test)):
        if given["clicks"]:
            arrays |= clicks(trainer, part, on, config["LABEL_FIELD"])
        else:
            arrays[f"{on}_top_UK"] = lists(trainer, part, dataset, given["users"], given["k"])
    np.savez(given["arrays"], **arrays)
    answer = {
        "history": history,
        "test": {name: float(value) for name, value in tested.items()},
        "seconds": fitted - start,
        "seconds_build": built - start,
        "seconds_evaluation": evaluated - begun,
        "peak_memory_mib": peak,
        "rows": len(train._dataset),
        "parameters": sum(p.numel() for p in model.parameters()),
        "settings": plain(config.final_config_dict),
        "versions": {
            "recbole": "1.2.1",
            "numpy": np.__version__,
            "torch": torch.__version__,
            "scipy": scipy.__version__,
        },
    }
    print(json.dumps(answer))


@torch.no_grad()
def lists(trainer, part, dataset, users: int, k: int) -> np.ndarray:
    """(U, K) the numbers of each user's best items as they stand in the files; -1 in no place."""
    trainer.model.eval()
    top_UK = np.full((users, k), -1)
    trainer.tot_item_num = dataset.item_num
    for batch in part:
        interaction, score_BN, _, _ = trainer._full_sort_batch_eval(batch)
        best = score_BN.topk(k, dim=1)
        user_B = dataset.id2token(dataset.uid_field, interaction[dataset.uid_field].numpy())
        item_BK = best.indices.numpy()
        item_BK = np.where(item_BK > 0, item_BK, 1)  # number 0 has no name; its score is -inf
        item_BK = dataset.id2token(dataset.iid_field, item_BK).astype(int)
        user_B = user_B.astype(int)
        top_UK[user_B] = np.where(best.values.numpy() > -np.inf, item_BK, -1)
    return top_UK


@torch.no_grad()
def clicks(trainer, part, on: str, label_field: str) -> dict[str, np.ndarray]:
    """The logits and, to prove the order of the rows, the labels: (E,) each."""
    trainer.model.eval()
    trainer.model.sigmoid = torch.nn.Identity()  # predict() is the sigmoid of the logit
    logits, labels = [], []
    for batch in part:
        interaction = batch[0]
        logits.append(trainer.model.predict(interaction).numpy())
        labels.append(interaction[label_field].numpy())
    return {f"{on}_logit_E": np.concatenate(logits), f"{on}_label_E": np.concatenate(labels)}


def plain(settings: dict) -> dict:
    """Of the whole configuration what decides a run and can be written as JSON."""
    kinds = (bool, int, float, str, list, dict, type(None))
    paths = ("data_path", "checkpoint_dir", "device")
    return {
        name: value
        for name, value in sorted(settings.items())
        if type(value) in kinds and name not in paths
    }


if __name__ == "__main__":
    main()
