"""Calibration of a list against Steck's definition.

Shape letters: U users, C categories.
"""

import math

import pytest
import torch

from inforec.metrics.calibration import calibration_kl


def test_follows_the_definition():
    torch.manual_seed(0)
    interest_UC = torch.rand(5, 4)
    interest_UC[0, 1] = interest_UC[1, 2] = 0.0
    interest_UC /= interest_UC.sum(1, keepdim=True)
    list_UC = torch.rand(5, 4, dtype=torch.float64)
    list_UC[0, 0] = list_UC[1, 2] = 0.0
    list_UC /= list_UC.sum(1, keepdim=True)
    wanted = []
    for p_row, q_row in zip(interest_UC.tolist(), list_UC.tolist(), strict=True):
        total = 0.0
        for p, q in zip(p_row, q_row, strict=True):
            if p > 0:
                total += p * math.log(p / (0.99 * q + 0.01 * p))
        wanted.append(total)
    assert calibration_kl(interest_UC, list_UC).tolist() == pytest.approx(wanted, rel=1e-12)


def test_a_perfectly_calibrated_list_has_zero():
    interest_UC = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]])
    ours = calibration_kl(interest_UC, interest_UC.double())
    assert ours.tolist() == pytest.approx([0.0, 0.0], abs=1e-15)


def test_a_list_without_any_of_the_interests_has_the_largest_value_log_100():
    interest_UC = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    list_UC = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    ours = calibration_kl(interest_UC, list_UC)
    assert ours.tolist() == pytest.approx([math.log(100)] * 2, rel=1e-12)
