"""Small parts that several models share.

Shape letters: B rows, T places of a padded table, N items, D embedding size, H hidden units; in
click-through models F fields, V all values of all fields, P pairs of fields, X all pairs of values
of a row, W weights of cross-products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from inforec.types import PAD, Impressions

FEW = 64  # values of a field, up to which a row's share of each of them is a row of a matrix


def multi_hot(history_BT: Tensor, num_items: int) -> Tensor:
    """(B, N) float: 1 where the item is in the row's history, 0 elsewhere; -1 is padding."""
    hot_BN = torch.zeros(len(history_BT), num_items, device=history_BT.device)
    row, place = (history_BT >= 0).nonzero(as_tuple=True)
    hot_BN[row, history_BT[row, place]] = 1.0
    return hot_BN


def unit(x_BD: Tensor) -> Tensor:
    """(B, D): each row divided by its length; a row shorter than 1e-6 is divided by 1e-6.

    So a row of zeros stays zero, and the gradient is finite.
    """
    return F.normalize(x_BD, dim=-1, eps=1e-6)


def corrupted_sum(
    history_BT: Tensor, item_NH: Tensor, *, corruption: float, training: bool, unit_length: bool
) -> Tensor:
    """(B, H): x~ W, the first layer of a denoising auto-encoder on 0-1 histories x.

    In training each item of a history is hidden with probability q and the others count 1 / (1 - q)
    times: the mean of x~ is x. As x has few ones, their rows of W are summed, and no (B, N) matrix
    is made.

    Args:
        history_BT: (B, T) int64, the items of each row, padded with -1.
        item_NH: (N, H) W.
        corruption: q.
        training: whether to hide anything.
        unit_length: whether x is divided by its length first.
    """
    taken_BT = (history_BT != PAD).to(item_NH.dtype)
    share_BT = F.dropout(unit(taken_BT) if unit_length else taken_BT, corruption, training)
    left_BT = share_BT != 0  # neither padding nor hidden
    count_B = left_BT.sum(1)
    return F.embedding_bag(
        history_BT[left_BT],
        item_NH,
        count_B.cumsum(0) - count_B,
        per_sample_weights=share_BT[left_BT],
        mode="sum",
    )


def as_dot_product(hidden_BH: Tensor, output: nn.Linear) -> tuple[Tensor, Tensor]:
    """((B, H + 1), (N, H + 1)): ``output(hidden_BH)`` as dot products, the bias as a coordinate."""
    query_BX = torch.cat([hidden_BH, torch.ones_like(hidden_BH[:, :1])], dim=1)
    return query_BX, torch.cat([output.weight, output.bias[:, None]], dim=1)


def start_dense(model: nn.Module) -> None:
    """Start every matrix by Xavier's uniform law and every vector near 0, as Mult-VAE's code."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.001, a=-0.002, b=0.002)


def take_rows(table_VD: Tensor, index: Tensor) -> Tensor:
    """``table_VD[index]``, for many rows of a small table.

    On a CPU the gradient of F.embedding, which sums row by row, takes four times as long as that of
    index_select; on CUDA that of index_select has no fixed order of summation.
    """
    if table_VD.is_cuda:
        return F.embedding(index, table_VD)
    return table_VD.index_select(0, index.flatten()).view(*index.shape, -1)


class FieldEmbedding(nn.Module):
    """A vector for each value of each field: fields -> (B, F, D).

    A row's several values of one field count as their mean; of none, as zeros. What training never
    saw (number 0) starts as zeros and gets no gradient from training rows: it says nothing.

    Args:
        train: the training impressions, for the fields and their sizes.
        dim: D.
        std: of the initial values.

    Attributes:
        names: the F fields in the order of the output, those with several values last.
        sizes: how many values each of them has.
    """

    def __init__(self, train: Impressions, dim: int, std: float = 0.01):
        super().__init__()
        self.names = sorted(train.fields, key=lambda name: train.fields[name].ndim)
        self.sizes = [train.sizes[name] for name in self.names]
        self.num_single = sum(tensor.ndim == 1 for tensor in train.fields.values())
        first_F = torch.tensor([0, *self.sizes]).cumsum(0)[:-1]
        self.register_buffer("first_F", first_F, persistent=False)
        self.value_VD = nn.Parameter(torch.randn(sum(self.sizes), dim) * std)
        with torch.no_grad():
            self.value_VD[first_F] = 0.0

    def forward(self, fields: Mapping[str, Tensor]) -> Tensor:
        return self.at(self.where(fields))

    def where(self, fields: Mapping[str, Tensor]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """What to read, the same for every table of these fields, so that two tables share it.

        Returns:
            The (F', B) places of the fields with one value, and for each of the others the (B, T)
            numbers of its values and the shares of the row's mean that they have; (B, V) shares of
            all its values instead if they are few.
        """
        single, several = self.names[: self.num_single], self.names[self.num_single :]
        index_FB = torch.stack([fields[name] for name in single])
        index_FB += self.first_F[: len(single), None]
        sizes = self.sizes[self.num_single :]
        return index_FB, [self._shares(fields[n], s) for n, s in zip(several, sizes, strict=True)]

    def at(self, where: tuple[Tensor, list[tuple[Tensor, Tensor]]]) -> Tensor:
        """(B, F, D): the vectors at the places that :meth:`where` found.

        In memory field by field, in which order sums over fields are several times as fast.
        """
        index_FB, shares = where
        parts = [take_rows(self.value_VD, index_FB)]
        for number, (index_BT, share) in enumerate(shares, start=self.num_single):
            parts.append(self._mean(index_BT, share, number)[None])
        return torch.cat(parts).transpose(0, 1)

    def of(self, name: str, index: Tensor) -> Tensor:
        """The vectors of these values of one field, one each; zeros for -1."""
        place = index.clamp(min=0) + self.first_F[self.names.index(name)]
        return take_rows(self.value_VD, place) * (index != PAD)[..., None]

    def places(self, fields: Mapping[str, Tensor]) -> Tensor:
        """(X,) the rows of the table that these fields read, one for each value of each row."""
        read = [(fields[name], first) for name, first in zip(self.names, self.first_F, strict=True)]
        return torch.cat([index[index != PAD] + first for index, first in read])

    def _shares(self, index_BT: Tensor, size: int) -> tuple[Tensor, Tensor]:
        there_BT = (index_BT != PAD).to(self.value_VD.dtype)
        share_BT = there_BT / there_BT.sum(1, keepdim=True).clamp(min=1)
        index_BT = index_BT.clamp(min=0)
        if size > FEW:
            return index_BT, share_BT
        share_BV = share_BT.new_zeros(len(index_BT), size)
        return index_BT, share_BV.scatter_add_(1, index_BT, share_BT)

    def _mean(self, index_BT: Tensor, share: Tensor, number: int) -> Tensor:
        size, first = self.sizes[number], sum(self.sizes[:number])
        if size <= FEW:  # a matrix product, many times faster than to look up each value
            return share @ self.value_VD[first : first + size]
        return (take_rows(self.value_VD, index_BT + first) * share[..., None]).sum(1)


class LinearTerm(nn.Module):
    """The first-order term: fields -> (B,) a bias and one weight for each value, summed."""

    def __init__(self, train: Impressions):
        super().__init__()
        self.weight = FieldEmbedding(train, 1, std=0.0)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, fields: Mapping[str, Tensor]) -> Tensor:
        return self.at(self.weight.where(fields))

    def at(self, where: tuple[Tensor, list[tuple[Tensor, Tensor]]]) -> Tensor:
        """(B,): the same from what ``FieldEmbedding.where`` found."""
        return self.bias + self.weight.at(where).sum((1, 2))


class CrossProducts(nn.Module):
    """One weight for each pair of values of two fields that are there together: fields -> (B,).

    The weights of a row's pairs of fields are summed; where a field has several values, its pairs
    count as their mean. A pair with a value that training never saw counts 0.

    Args:
        train: the training impressions, for the sizes of the fields.
        pairs: the names of the P pairs of fields.
        buckets: how many weights all pairs share, by a hash of the pair; 0 gives each its own.
    """

    def __init__(self, train: Impressions, pairs: Sequence[tuple[str, str]], buckets: int = 0):
        super().__init__()
        self.pairs, self.sizes, self.buckets = list(pairs), dict(train.sizes), buckets
        sizes = [train.sizes[a] * train.sizes[b] for a, b in self.pairs]
        self.first = [sum(sizes[:number]) for number in range(len(sizes))]
        self.weight_W1 = nn.Parameter(torch.zeros(buckets or sum(sizes), 1))

    def forward(self, fields: Mapping[str, Tensor]) -> Tensor:
        columns = {name: x if x.ndim == 2 else x[:, None] for name, x in fields.items()}
        places, shares = [], []
        for first, (a, b) in zip(self.first, self.pairs, strict=True):
            a_BT, b_BT = columns[a][:, :, None], columns[b][:, None, :]
            there_BT = ((a_BT != PAD) & (b_BT != PAD)).flatten(1)
            known_BT = ((a_BT > 0) & (b_BT > 0)).flatten(1)
            key_BT = (first + a_BT * self.sizes[b] + b_BT).flatten(1)
            places.append(self.place(key_BT) * known_BT)
            shares.append(known_BT / there_BT.sum(1, keepdim=True).clamp(min=1))
        # One look-up for all pairs: each has a gradient as large as the table.
        weight_BX = take_rows(self.weight_W1, torch.cat(places, 1))[..., 0]
        return (weight_BX * torch.cat(shares, 1)).sum(1)

    def place(self, key: Tensor) -> Tensor:
        """Where the weight of a pair lies: its own place, or the bucket of its hash."""
        if not self.buckets:
            return key
        # Knuth's multiplicative hash with 2**64 / golden ratio: the middle bits are well mixed.
        return ((key * -7046029254386353131) >> 32 & 0x7FFFFFFF) % self.buckets


def interaction(vector_BFD: Tensor) -> Tensor:
    """(B, D): the sum over pairs f < g of the products of coordinates, in O(F D) steps.

        sum over f < g of e_f * e_g = ((sum over f of e_f)^2 - sum over f of e_f^2) / 2

    Rendle (2010), lemma 3.1; its sum over D is the second-order term of a factorisation machine.
    """
    return _Interaction.apply(vector_BFD)


class _Interaction(torch.autograd.Function):
    """The gradient of e_f is the sum of the others, in less time than autograd takes."""

    @staticmethod
    def forward(ctx, vector_BFD: Tensor) -> Tensor:
        sum_BD = vector_BFD.sum(1)
        ctx.save_for_backward(vector_BFD, sum_BD)
        return (sum_BD.square() - vector_BFD.square().sum(1)) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BD: Tensor) -> Tensor:
        vector_BFD, sum_BD = ctx.saved_tensors
        total_BD = sum_BD * grad_BD
        return torch.addcmul(total_BD[:, None], vector_BFD, grad_BD[:, None], value=-1)


def mlp(
    inputs: int,
    hidden: int,
    layers: int,
    dropout: float,
    activation: Callable[[], nn.Module] = lambda: nn.ReLU(inplace=True),
) -> nn.Sequential:
    """``layers`` of ``hidden`` units with dropout behind each, then one linear output."""
    sizes = [inputs, *[hidden] * layers]
    parts = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), activation(), nn.Dropout(dropout)]
    return nn.Sequential(*parts, nn.Linear(sizes[-1], 1))
