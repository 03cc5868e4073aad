"""The memory of class means: updates, matched ranges, and transfer to a second head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainer.losses.memory import matched, moved, nearness, transfer

N, K, D = 7, 4, 3
EVERY = torch.ones(N, dtype=torch.bool)


def tensors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_a_memory_moves_toward_the_mean_of_unit_features_of_its_class() -> None:
    memory, features = tensors(K, D), tensors(N, D)
    label = torch.tensor([0, 0, 0, 2, 2, 3, 3])
    found = moved(memory, features, label, EVERY, torch.full((K,), 0.1).double())
    for index in (0, 2, 3):
        own = features[label == index]
        mean = (own / own.norm(dim=1, keepdim=True)).mean(0)
        torch.testing.assert_close(found[index], 0.9 * memory[index] + 0.1 * mean)
    assert torch.equal(found[1], memory[1])


def test_at_rate_one_a_class_takes_its_mean_and_at_rate_zero_nothing() -> None:
    memory, features, label = tensors(K, D), tensors(N, D), torch.arange(N) % K
    rate = torch.tensor([1.0, 0.0, 1.0, 0.0]).double()
    found = moved(memory, features, label, EVERY, rate)
    torch.testing.assert_close(found[0], F.normalize(features[[0, 4]], dim=1).mean(0))
    assert torch.equal(found[[1, 3]], memory[[1, 3]])


def test_rows_that_are_not_taken_do_not_count() -> None:
    memory, features, label = tensors(K, D), tensors(N, D), torch.arange(N) % K
    taken, rate = torch.arange(N) < 3, torch.full((K,), 0.3).double()
    found = moved(memory, features, label, taken, rate)
    torch.testing.assert_close(found, moved(memory, features[:3], label[:3], EVERY[:3], rate))
    assert torch.equal(found[3], memory[3])


def test_nearness_is_the_cosine() -> None:
    features, memory = tensors(N, D), tensors(K, D)
    expected = F.cosine_similarity(features[:, None], memory[None], dim=2)
    torch.testing.assert_close(nearness(features, memory), expected)


def test_matched_scores_have_the_range_and_their_own_order() -> None:
    scores, logits = tensors(N, K), 5 * tensors(N, K)
    found = matched(scores, logits)
    torch.testing.assert_close(found.amin(1), logits.amin(1))
    torch.testing.assert_close(found.amax(1), logits.amax(1))
    assert torch.equal(found.argsort(1), scores.argsort(1))


def test_matched_scores_are_those_of_the_published_log() -> None:
    """A line of the source's `logits_knn.txt`, to the digits printed there."""
    scores = torch.tensor([[0.7470, 0.6428, 0.5531]])
    logits = torch.tensor([[12.4480, 9.0, 1.1152]])
    expected = torch.tensor([[12.4480, 6.3534, 1.1152]])
    torch.testing.assert_close(matched(scores, logits), expected, rtol=0, atol=0.006)


def test_equal_scores_give_finite_ones() -> None:
    found = matched(torch.full((2, K), 0.5), torch.randn(2, K))
    assert found.isfinite().all()


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels, and a memory that is right in the first three rows alone."""
    label = torch.arange(N) % K
    said = torch.where(torch.arange(N) < 3, label, (label + 1) % K)
    noise = torch.rand(N, K, dtype=torch.float64)
    return tensors(N, K), label, noise + 2 * F.one_hot(said, K)


def test_rows_that_the_memory_gets_wrong_have_plain_cross_entropy() -> None:
    logits, label, taught = rows()
    found = transfer(logits, label, taught, label_weight=0.2, temperature=1.0)
    plain = F.cross_entropy(logits, label, reduction="none")
    torch.testing.assert_close(found[3:], plain[3:])
    assert not torch.isclose(found[:3], plain[:3]).any()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_rows_that_the_memory_gets_right_mix_label_and_memory(temperature: float) -> None:
    logits, label, taught = rows()
    found = transfer(logits, label, taught, label_weight=0.2, temperature=temperature)[:3]
    q, p = (taught[:3] / temperature).softmax(1), (logits[:3] / temperature).softmax(1)
    kl = (q * (q / p).log()).sum(1)
    plain = F.cross_entropy(logits[:3], label[:3], reduction="none")
    torch.testing.assert_close(found, 0.2 * plain + 0.8 * kl)


def test_label_weight_one_is_cross_entropy() -> None:
    logits, label, taught = rows()
    found = transfer(logits, label, taught, label_weight=1.0, temperature=1.0)
    torch.testing.assert_close(found, F.cross_entropy(logits, label, reduction="none"))


@pytest.mark.parametrize("right", [0, N])
def test_batches_that_are_all_right_or_all_wrong_are_finite(right: int) -> None:
    """The published means over an empty group of rows are not a number."""
    label = torch.arange(N) % K
    taught = F.one_hot(label if right else (label + 1) % K, K).double()
    assert (
        transfer(tensors(N, K), label, taught, label_weight=0.2, temperature=1.0).isfinite().all()
    )


def test_gradients_are_those_of_finite_differences() -> None:
    logits, label, taught = rows()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: transfer(z, label, taught, label_weight=0.2, temperature=2.0), (logits,)
    )
