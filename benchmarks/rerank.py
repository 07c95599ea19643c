"""python -m benchmarks.rerank: seconds of each reranker, on two threads, for all of MovieLens-1M.

Random scores, interests and categories of the data set's shape stand in for it: 6,034 users, 3,260
items, 300 kinds of item with one to six of 18 genres, 200 candidates for the greedy rerankers,
lists of 20.
"""

from __future__ import annotations

import torch

from benchmarks.run import seconds
from inforec import results
from inforec.rerank import decaying_attention, expected_ndcg, steck, tilt

USERS, ITEMS, KINDS, GENRES = 6_034, 3_260, 300, 18
CANDIDATES, LENGTH = 200, 20
TEMPERATURE = 0.2  # scores of standard deviation 1: a perplexity of a few tens of items


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    score_UN = torch.randn(USERS, ITEMS)
    interest_UC = torch.distributions.Dirichlet(torch.full((GENRES,), 0.3)).sample((USERS,))
    count_G = torch.randint(1, 7, (KINDS,))
    rank_GC = torch.rand(KINDS, GENRES).argsort(1).argsort(1)
    kind_GC = (rank_GC < count_G[:, None]) / count_G[:, None]
    category_NC = kind_GC[torch.randint(KINDS, (ITEMS,))]
    best = score_UN.topk(CANDIDATES, dim=1)
    candidates = best.values / TEMPERATURE, best.indices, interest_UC, category_NC
    greedy = {"k": LENGTH, "trade_off": 0.9}

    rows = [["steck", seconds(lambda: steck(*candidates, **greedy), 1)]]
    relevance = (best.values / TEMPERATURE).softmax(1), *candidates[1:]
    cost = seconds(lambda: expected_ndcg(*relevance, k=LENGTH, trade_off=0.1), 1)
    rows.append(["expected NDCG", cost])
    for overlap in ("hellinger", "triangular", "total_variation"):
        run = {**greedy, "decay": 0.9, "overlap": overlap}
        cost = seconds(lambda run=run: decaying_attention(*candidates, **run), 1)
        rows.append([f"decaying attention, {overlap}", cost])
    for alpha in (0.1, 1.0, 10.0):
        run = {"alpha": alpha, "temperature": TEMPERATURE}
        cost = seconds(lambda run=run: tilt(score_UN, interest_UC, category_NC, **run), 1)
        rows.append([f"tilt, alpha {alpha:g}", cost])
    print(f"{torch.get_num_threads()} threads\n")
    print(results.Table(["reranker", "seconds"], rows))


if __name__ == "__main__":
    main()
