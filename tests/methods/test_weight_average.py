"""Averages of weights: the official values, both ends, Fisher weights, whole numbers, half precision, errors."""

import pytest
import torch

from vlmcourse.methods.weight_average import merge


def s(n, d, a, b):
    i, j = torch.arange(1, n + 1, dtype=torch.float64)[:, None], torch.arange(1, d + 1, dtype=torch.float64)
    return torch.sin(a * i * j + b * i)


THETA0, THETA1 = {"w": s(2, 2, 0.37, 0.11)}, {"w": s(2, 2, 0.5, 0.1)}
F0, F1 = {"w": torch.tensor([[1.0, 0], [2, 3]])}, {"w": torch.tensor([[3.0, 1], [0, 3]])}


def test_values_of_the_official_code():
    plain = torch.tensor([0.492638, 0.793258, 0.853046, 0.936714], dtype=torch.float64)
    fisher = torch.tensor([0.519640, 0.891207, 0.819192, 0.936714], dtype=torch.float64)
    torch.testing.assert_close(merge(THETA0, THETA1, 0.3)["w"].flatten(), plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(merge(THETA0, THETA1, 0.3, F0, F1)["w"].flatten(), fisher, atol=1e-6, rtol=0)


def test_the_ends_are_exact_and_the_path_is_straight():
    assert torch.equal(merge(THETA0, THETA1, 0)["w"], THETA0["w"])
    assert torch.equal(merge(THETA0, THETA1, 1)["w"], THETA1["w"])
    torch.testing.assert_close(merge(THETA0, THETA1, 0.5)["w"], (THETA0["w"] + THETA1["w"]) / 2)


def test_equal_fishers_give_the_plain_average_and_missing_entries_count_as_one():
    plain, ones = merge(THETA0, THETA1, 0.3)["w"], {"w": torch.ones(2, 2)}
    for fishers in ((ones, ones), ({}, {}), ({}, ones), ({"w": 7 * ones["w"]}, {"w": 7 * ones["w"]})):
        torch.testing.assert_close(merge(THETA0, THETA1, 0.3, *fishers)["w"], plain)


def test_an_entry_that_mattered_to_one_model_keeps_its_value_there():
    strong, zero = {"w": torch.full((2, 2), 1e3)}, {"w": torch.zeros(2, 2)}
    torch.testing.assert_close(merge(THETA0, THETA1, 0.9, strong, zero)["w"], THETA0["w"], atol=1e-6, rtol=0)
    torch.testing.assert_close(merge(THETA0, THETA1, 0.3, zero, zero)["w"], merge(THETA0, THETA1, 0.3)["w"])


def test_whole_numbers_stay_whole_and_half_precision_is_averaged_in_float32():
    counter = merge({"n": torch.tensor(3)}, {"n": torch.tensor(8)}, 0.5)["n"]
    assert counter.dtype == torch.long and counter == 8
    a, b = torch.tensor([60000.0]).half(), torch.tensor([60000.0]).half()
    fishers = {"w": torch.tensor([2.0])}, {"w": torch.tensor([2.0])}
    mean = merge({"w": a}, {"w": b}, 0.5, *fishers)["w"]  # products overflow in half precision
    assert mean.dtype == torch.float16 and torch.equal(mean, a)


def test_wrong_arguments_are_named():
    for alpha in (-0.1, 1.1, "0.5", True, float("nan")):
        with pytest.raises(ValueError, match="alpha="):
            merge(THETA0, THETA1, alpha)
    with pytest.raises(ValueError, match=r"different entries: \['v', 'w'\]"):
        merge(THETA0, {"v": THETA1["w"]}, 0.5)
    with pytest.raises(ValueError, match="both, or neither"):
        merge(THETA0, THETA1, 0.5, F0)
