"""The cosine distance of features: its values, its blindness to lengths, its gradient."""

from __future__ import annotations

import torch

from trainer.losses.features import agreement, cosine_distance, side_by_side


def test_parallel_orthogonal_and_opposite_features() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    teacher = torch.tensor([[5.0, 0.0], [1.0, 0.0], [4.0, 0.0]])
    torch.testing.assert_close(cosine_distance(student, teacher), torch.tensor([0.0, 1.0, 2.0]))


def test_lengths_do_not_matter() -> None:
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    length = torch.rand(6, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(
        cosine_distance(length * student, teacher), cosine_distance(student, 3 * teacher)
    )


def test_gradients_are_those_of_finite_differences() -> None:
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: cosine_distance(f, teacher), (student,))


def test_the_distance_to_several_teachers_is_the_mean_of_the_distances_to_each() -> None:
    """For a student that says the same length to each: cos of the whole is the mean of cosines."""
    parts, teachers = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    own = side_by_side(list(parts))
    assert own.shape == (6, 15)
    found = cosine_distance(own, side_by_side([3 * teachers[0], teachers[1], 0.1 * teachers[2]]))
    each = [cosine_distance(f, t) for f, t in zip(parts, teachers, strict=True)]
    torch.testing.assert_close(found, torch.stack(each).mean(0))


def test_two_views_that_predict_each_other_by_hand() -> None:
    """Predictions that are right for one view, and at right angles to the other."""
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    found = agreement((first, second), (3 * second, 2 * second))
    torch.testing.assert_close(found, torch.tensor([(0.0 + 1.0) / 2]))


def test_a_projection_that_is_predicted_has_no_gradient() -> None:
    tensors = [torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    agreement((tensors[0], tensors[1]), (tensors[2], tensors[3])).sum().backward()
    assert [one.grad is not None for one in tensors] == [False, False, True, True]
