"""Wrong lines, one at a time: does a test see each of them?

    python tests/mutations.py [NAME ...]

Each mutation changes one line of the package: a sign, a factor, a temperature, a mean. It is made
in a copy of the repository, where the tests of that part then have to fail. Prints what became of
each and exits with 1 if one was not caught. With names, only the files that hold one of them.

`test_mutations.py` sees to it that every line to be changed is still there, once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Mutation(NamedTuple):
    """``old`` becomes ``new`` in one line of ``lib/inforec/FILE``; ``what`` says it in words."""

    file: str
    old: str
    new: str
    what: str


TESTS = {  # the tests that answer for a file
    "losses.py": "test_losses.py test_symbolic.py",
    "regularizers.py": "test_regularizers.py test_symbolic.py",
    "distribution.py": "test_distribution.py test_symbolic.py",
    "streaming.py": "test_streaming.py test_distribution.py",
    "rerank.py": "test_rerank.py test_tilt.py",
    "symbolic.py": "test_symbolic.py",
    **dict.fromkeys(
        ["layers.py", *(f"models/context/{name}.py" for name in ("ffm", "din", "bst"))],
        "models/test_context.py",
    ),
}

MUTATIONS = [
    # ---- losses -----------------------------------------------------------------------------
    Mutation(
        "losses.py",
        "F.softplus(negative_BK - positive_B[:, None])",
        "F.softplus(positive_B[:, None] - negative_BK)",
        "BPR prefers the negative",
    ),
    Mutation(
        "losses.py",
        ".sum() / (item != PAD).sum()",
        ".sum() / len(item)",
        "the softmax loss is a mean over users, not over pairs",
    ),
    Mutation(
        "losses.py",
        "(prediction_B - rating_B).square().mean()",
        "(prediction_B - rating_B).square().sum()",
        "the squared error of ratings is a sum",
    ),
    Mutation(
        "losses.py",
        "scaled_BK = logits_BK / temperature",
        "scaled_BK = logits_BK",
        "the sampled softmax forgets the temperature",
    ),
    Mutation(
        "losses.py",
        "scaled_BK[:, 1:] - log_count_BK",
        "scaled_BK[:, 1:] + log_count_BK",
        "the log-q correction has the wrong sign",
    ),
    Mutation(
        "losses.py",
        "log_q_BK[:, 1:] + math.log(num_draws)",
        "log_q_BK[:, 1:]",
        "the log-q correction forgets the number of draws",
    ),
    Mutation(
        "losses.py",
        "query_BD = query_BD / temperature",
        "query_BD = query_BD * temperature",
        "InfoNCE multiplies by the temperature",
    ),
    Mutation(
        "losses.py",
        "(lse_B.mean() + other_B.mean()) / 2 - positive",
        "(lse_B.mean() + lse_B.mean()) / 2 - positive",
        "two-sided InfoNCE looks from one side",
    ),
    Mutation(
        "losses.py",
        "F.relu(margin - distance_BB)",
        "F.relu(distance_BB - margin)",
        "the margin loss pulls negatives in",
    ),
    Mutation(
        "losses.py",
        "(query_BD @ key_BD.T - 1) / sigma**2",
        "(query_BD @ key_BD.T - 1) / (2 * sigma**2)",
        "f-MICL's kernel is too wide by a factor of two",
    ),
    Mutation(
        "losses.py",
        "lambda log_u: 2 * torch.expm1(log_u)",
        "lambda log_u: torch.expm1(log_u)",
        "f-MICL: the chi2 similarity lacks its factor",
    ),
    Mutation(
        "losses.py",
        "max(1, num_rows * (num_rows - 1))",
        "max(1, num_rows * num_rows)",
        "the mean over negatives counts the diagonal",
    ),
    Mutation(
        "losses.py",
        "(squares - 2 * taken_E.sum())",
        "(squares - taken_E.sum())",
        "the square loss forgets half of the mixed term",
    ),
    Mutation(
        "losses.py",
        "softplus_sum(query_BD, item_ND).sum() - taken_E.sum()",
        "softplus_sum(query_BD, item_ND).sum() + taken_E.sum()",
        "the logistic loss pushes taken items down",
    ),
    # ---- regularisers -----------------------------------------------------------------------
    Mutation(
        "regularizers.py",
        "(torch.special.xlogy(p_BC, p_BC) - p_BC * safe_BC.log())",
        "(torch.special.xlogy(p_BC, p_BC) + p_BC * safe_BC.log())",
        "KL adds the cross term",
    ),
    Mutation(
        "regularizers.py",
        "kl(interest_BC, (1 - smoothing) * law_BC + smoothing * interest_BC)",
        "kl((1 - smoothing) * law_BC + smoothing * interest_BC, interest_BC)",
        "the category KL runs the other way",
    ),
    Mutation(
        "regularizers.py",
        "(1 - smoothing) * law_BC + smoothing * interest_BC",
        "law_BC + smoothing * interest_BC",
        "the smoothed law sums to more than 1",
    ),
    Mutation(
        "regularizers.py",
        "torch.special.xlogy(weight_BT, weight_BT) - weight_BT * log_prob_BT",
        "-weight_BT * log_prob_BT",
        "the item KL forgets the entropy of P",
    ),
    Mutation(
        "regularizers.py",
        "return -(law_BC * safe_BC.log()).sum(1)",
        "return (law_BC * safe_BC.log()).sum(1)",
        "the category entropy has the wrong sign",
    ),
    Mutation(
        "regularizers.py",
        "((own_first_B - cross_first_B) + (own_second_B - cross_second_B)) / 2",
        "((own_first_B - cross_first_B) - (own_second_B - cross_second_B)) / 2",
        "the bidirectional KL takes the difference of its directions",
    ),
    Mutation(
        "regularizers.py",
        "torch.expm1(log_variance_BD) - log_variance_BD",
        "torch.expm1(log_variance_BD) + log_variance_BD",
        "the Gaussian rate has the wrong sign at the log-variance",
    ),
    Mutation(
        "regularizers.py",
        "log_kernel_BB = 2 * t * (x_BD @ x_BD.T - 1)",
        "log_kernel_BB = t * (x_BD @ x_BD.T - 1)",
        "uniformity's kernel is too wide",
    ),
    # ---- the law ----------------------------------------------------------------------------
    Mutation(
        "distribution.py",
        "scaled_BN = self._logits_BN / self._temperature_column()",
        "scaled_BN = self._logits_BN * self._temperature_column()",
        "the dense law multiplies by the temperature",
    ),
    Mutation(
        "distribution.py",
        "return self._query_BD / self._temperature_column()",
        "return self._query_BD",
        "the streaming law forgets the temperature",
    ),
    Mutation(
        "distribution.py",
        'self._cache["entropy"] = -(prob_BN * log_prob_BN).sum(1)',
        'self._cache["entropy"] = (prob_BN * log_prob_BN).sum(1)',
        "the dense entropy has the wrong sign",
    ),
    Mutation(
        "distribution.py",
        "log_prob_E = score_E - self._statistics()[0][row_E]",
        "log_prob_E = score_E + self._statistics()[0][row_E]",
        "the log-probability adds the log-sum-exp",
    ),
    Mutation(
        "distribution.py",
        "(middle_B - (entropy_B - goal) / slope_B).exp()",
        "(middle_B + (entropy_B - goal) / slope_B).exp()",
        "the Newton step of at_perplexity goes the wrong way",
    ),
    Mutation(
        "distribution.py",
        "return self.entropy().exp()",
        "return 2 ** self.entropy()",
        "perplexity takes nats for bits",
    ),
    # ---- one pass over the catalogue --------------------------------------------------------
    Mutation(
        "streaming.py",
        "scale_B * (shifted_B + drop_B * sum_B)",
        "scale_B * (shifted_B - drop_B * sum_B)",
        "a block's shift has the wrong sign",
    ),
    Mutation(
        "streaming.py",
        "entropy_B = sum_B.log() - shifted_B / sum_B",
        "entropy_B = sum_B.log() - shifted_B",
        "the streamed entropy is not divided by the mass",
    ),
    Mutation(
        "streaming.py",
        "constant_B -= g_entropy_B * entropy_B",
        "constant_B += g_entropy_B * entropy_B",
        "backward: the entropy's mean has the wrong sign",
    ),
    Mutation(
        "streaming.py",
        "constant_B -= _row_dot(g_mean_BC, mean_BC)",
        "constant_B -= 0 * _row_dot(g_mean_BC, mean_BC)",
        "backward: the mean of the values is not taken off",
    ),
    # ---- rerankers --------------------------------------------------------------------------
    Mutation(
        "rerank.py",
        "range(1, k + 1),",
        "[k] * k,",
        "steck smooths a short list like a long one",
    ),
    Mutation(
        "rerank.py",
        "at_BM, below_BM = discount_K[above_BM], discount_K[(above_BM + 1).clamp(max=k)]",
        "at_BM, below_BM = discount_K[above_BM], discount_K[above_BM]",
        "expected NDCG: nobody moves down",
    ),
    Mutation(
        "rerank.py",
        "discount_K = 1 / rank_K.log2()",
        "discount_K = 1 / rank_K",
        "expected NDCG has another discount",
    ),
    Mutation(
        "rerank.py",
        "SMOOTHING / (1 - SMOOTHING) * interest_BC, 1.0)",
        "SMOOTHING * interest_BC, 1.0)",
        "the greedy prior lacks its factor",
    ),
    Mutation(
        "rerank.py",
        "value_BM + trade_off * overlap(law_BC, mass_BCM)",
        "value_BM - trade_off * overlap(law_BC, mass_BCM)",
        "the greedy search runs from the interests",
    ),
    Mutation(
        "rerank.py",
        "(2 * interest_BC[:, None] @ mass_BCM.div_(sum_BCM))[:, 0]",
        "(interest_BC[:, None] @ mass_BCM.div_(sum_BCM))[:, 0]",
        "the triangular overlap lacks its factor",
    ),
    Mutation(
        "rerank.py",
        "weight_K = float(decay) ** torch.arange(k, dtype=torch.float64)",
        "weight_K = float(decay) ** torch.arange(1, k + 1, dtype=torch.float64).sqrt()",
        "attention decays by another law",
    ),
    Mutation(
        "rerank.py",
        "excess_RC = dual.multiplier(at_RC) * (prob_RG @ self.kind_GC) - dual.goal_RC",
        "excess_RC = dual.multiplier(at_RC) * (prob_RG @ self.kind_GC) + dual.goal_RC",
        "the dual's gradient has the wrong sign at alpha p",
    ),
    Mutation(
        "rerank.py",
        "scaled_RN = score_RN.double() / temperature_R[:, None]",
        "scaled_RN = score_RN.double()",
        "the tilt's masses forget the temperature",
    ),
    Mutation(
        "rerank.py",
        "multiplier_BC = solved_BC * step_BC.exp().to(distribution.dtype)",
        "multiplier_BC = solved_BC * (-step_BC).exp().to(distribution.dtype)",
        "the layer's Newton step goes the wrong way",
    ),
    Mutation(
        "rerank.py",
        "covariance_RCC = moment_RCC - law_RC[:, :, None] * law_RC[:, None]",
        "covariance_RCC = moment_RCC",
        "the layer's Hessian holds moments about 0",
    ),
    # ---- SymPy forms ------------------------------------------------------------------------
    Mutation(
        "symbolic.py",
        "return sp.log(sum(sp.exp(s / temperature) for s in score))",
        "return sp.log(sum(sp.exp(s * temperature) for s in score))",
        "log-sum-exp multiplies by the temperature",
    ),
    Mutation(
        "symbolic.py",
        "return -sum(q * sp.log(q) for q in law)",
        "return sum(q * sp.log(q) for q in law)",
        "entropy has the wrong sign",
    ),
    Mutation(
        "symbolic.py",
        "sum(a * (sp.log(a) - sp.log(b))",
        "sum(b * (sp.log(a) - sp.log(b))",
        "KL averages over the other law",
    ),
    Mutation(
        "symbolic.py",
        "return log_sum_exp(score, temperature) - score[positive] / temperature",
        "return log_sum_exp(score, temperature) - score[positive]",
        "the softmax loss forgets a temperature",
    ),
    Mutation(
        "symbolic.py",
        "sp.exp(score[negative] - score[positive])",
        "sp.exp(score[positive] - score[negative])",
        "BPR prefers the negative",
    ),
    Mutation(
        "symbolic.py",
        "sp.exp(-squared_distance(query.row(b), key.row(c)) / (2 * sigma**2))",
        "sp.exp(-squared_distance(query.row(b), key.row(c)) / sigma**2)",
        "f-MICL's kernel is too narrow",
    ),
    Mutation(
        "symbolic.py",
        "return sum((m**2 + sp.exp(v) - 1 - v) / 2 for m, v in pairs)",
        "return sum((m**2 + sp.exp(v) - 1 + v) / 2 for m, v in pairs)",
        "the Gaussian rate has the wrong sign at the log-variance",
    ),
    Mutation(
        "symbolic.py",
        "return sum(q * (v - mean) ** order for",
        "return sum(q * (v + mean) ** order for",
        "a central moment is not about the mean",
    ),
    Mutation(
        "symbolic.py",
        "square = weight.applyfunc(lambda a: a**2)",
        "square = weight",
        "the effective categories lack a square",
    ),
    Mutation(
        "symbolic.py",
        "return kl(list(joint), [a * b for a in rows for b in columns])",
        "return kl(list(joint), [a + b for a in rows for b in columns])",
        "mutual information against a sum of the marginals",
    ),
    Mutation(
        "symbolic.py",
        "return sp.log(1 + sum(sp.exp(sp.expand(d / temperature)) for d in gap))",
        "return sp.log(sum(sp.exp(sp.expand(d / temperature)) for d in gap))",
        "the softmax of gaps forgets the positive",
    ),
    Mutation(
        "symbolic.py",
        "(law[i] if i == j else 0) - law[i] * law[j]",
        "(law[i] if i == j else 0) + law[i] * law[j]",
        "the covariance has the wrong sign",
    ),
    Mutation(
        "symbolic.py",
        "return sp.ImmutableMatrix(covariance(law) - inside) / temperature**2",
        "return sp.ImmutableMatrix(covariance(law) - inside) / temperature",
        "the Hessian of the category KL forgets a temperature",
    ),
    Mutation(
        "symbolic.py",
        "diagonal = law[i] * (1 + excess[i]) if i == j else 0",
        "diagonal = law[i] * excess[i] if i == j else 0",
        "the Hessian of the entropy lacks a one",
    ),
    # ---- click-through models ---------------------------------------------------------------
    Mutation(
        "layers.py",
        "(sum_BD.square() - vector_BFD.square().sum(1)) / 2",
        "(sum_BD.square() - vector_BFD.square().sum(1))",
        "a factorisation machine counts each pair twice",
    ),
    Mutation(
        "layers.py",
        "share @ self.value_VD[first : first + size]",
        "share @ self.value_VD[:size]",
        "the mean of a field's values reads another field's",
    ),
    Mutation(
        "layers.py",
        "take_rows(self.value_VD, place) * (index != PAD)[..., None]",
        "take_rows(self.value_VD, place)",
        "a history's padding has a vector",
    ),
    Mutation(
        "models/context/ffm.py",
        "vector_BFFD.transpose(1, 2).clone(",
        "vector_BFFD.clone(",
        "FFM multiplies vectors that are meant for two other fields",
    ),
    Mutation(
        "models/context/din.py",
        "key_BTD - query_BTD, key_BTD * query_BTD",
        "key_BTD - query_BTD, key_BTD",
        "the activation unit of DIN does not see the product",
    ),
    Mutation(
        "models/context/bst.py",
        "self.back_SD.expand_as(item_BSD)",
        "self.back_SD.flip(0).expand_as(item_BSD)",
        "BST counts places from the wrong end",
    ),
    Mutation(
        "models/context/bst.py",
        "attn_mask=there_BS[:, None, None, :]",
        "attn_mask=None",
        "BST attends to padding",
    ),
]


def source(mutation: Mutation) -> Path:
    return Path("lib", "inforec", mutation.file)


def caught(mutation: Mutation, copy: Path) -> bool:
    """Whether the tests of the file fail once the line in the copy is wrong."""
    path = copy / source(mutation)
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace(mutation.old, mutation.new), encoding="utf-8")
    failed = tests_fail(mutation.file, copy)
    path.write_text(sound, encoding="utf-8")
    return failed


def tests_fail(file: str, copy: Path) -> bool:
    """Whether one of the tests that answer for the file fails in the copy."""
    tests = [f"tests/{name}" for name in TESTS[file].split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy / "lib")}
    answer = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    # 1: tests failed. Anything else but 0 means that they did not run.
    assert answer.returncode in (0, 1), answer.stdout + answer.stderr
    return answer.returncode == 1


def main(names: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not names or any(name in m.file for name in names)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        skipped = shutil.ignore_patterns(".git", ".venv", "_build", "_run", "results", "*.egg-info")
        shutil.copytree(ROOT, copy, ignore=skipped)
        for file in dict.fromkeys(m.file for m in chosen):
            assert not tests_fail(file, copy), f"{file}: its tests fail without any mutation"
        for mutation in chosen:
            found = caught(mutation, copy)
            survivors += not found
            print(f"{'caught  ' if found else 'SURVIVED'}  {mutation.file:16s} {mutation.what}")
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    raise SystemExit(main(sys.argv[1:]))
