"""A bank in PyTorch: its rows as a data set, and batches of real images beside them."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, default_collate

from stylegan_mix import banks as package
from stylegan_mix import datasets
from stylegan_mix.banks import BankDataset, HybridLoader, reader
from stylegan_mix.banks.dataset import _Row
from stylegan_mix.datasets.records import Part
from stylegan_mix.errors import InvalidInput, UsageFailure

CLASSES = ("ant", "bee", "cat")
Write = Callable[..., Path]


@pytest.fixture
def bank(write: Write) -> BankDataset:
    """A bank of 200 rows, of 4 x 4 grey pixels in three classes."""
    return BankDataset(write(n=200))


def real_images(count: int, split: str = "5", classes: tuple[str, ...] = CLASSES) -> Any:
    """A data set of this project, whose image i has all pixels i."""
    images = np.empty((count, 4, 4, 1), np.uint8)
    images[:] = np.arange(count).reshape(-1, 1, 1, 1)
    part = Part(images, np.arange(count) % len(classes))
    facts: dict[str, Any] = {"profile": "exp", "imbalance": 10.0, "split_seed": 0}
    return datasets.Dataset(
        "letters", classes, part, part, split * 64, "7" * 64, counts=np.bincount(part.labels),
        mean=(0.5,), std=(0.5,), flip=False, **facts,
    )  # fmt: skip


def foreign(count: int) -> TensorDataset:
    """The same images in a data set of PyTorch."""
    data = real_images(count)
    images = torch.from_numpy(data.train.images).permute(0, 3, 1, 2)
    return TensorDataset(images, torch.from_numpy(data.train.labels))


# rows


def test_a_row_is_an_image_and_shares_that_add_up(bank: BankDataset) -> None:
    opened = bank.bank
    assert (len(bank), bank.classes) == (200, CLASSES)
    for row in range(0, 200, 7):
        image, label = bank[row]
        assert (image.dtype, tuple(image.shape), label.dtype) == (
            torch.uint8,
            (1, 4, 4),
            torch.float32,
        )
        assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(np.array(opened.images[row])))
        expected = np.zeros(3, np.float32)
        np.add.at(expected, opened.pair[row], [opened.lam[row], 1 - opened.lam[row]])
        assert label.numpy() == pytest.approx(expected, abs=1e-6)
    assert any(opened.pair[:, 0] == opened.pair[:, 1]), "a row of one class is among them"
    assert opened.soft_labels().sum(axis=1) == pytest.approx(np.ones(200), abs=1e-6)
    assert np.array_equal(opened.soft_labels()[5:9], opened.soft_labels(np.arange(5, 9)))


@pytest.mark.parametrize("row", [200, -201])
def test_a_row_that_is_not_there_is_an_index_error(bank: BankDataset, row: int) -> None:
    assert torch.equal(bank[-1][0], bank[199][0])
    with pytest.raises(IndexError):
        bank[row]
    with pytest.raises(IndexError):
        bank.__getitems__([0, row])


def joined(loader: Any) -> tuple[Tensor, Tensor]:
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_a_loader_gives_the_rows_whichever_way_it_collates(
    bank: BankDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.data._utils.collate import default_collate_fn_map

    images, labels = joined(DataLoader(bank, batch_size=64))
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), bank.bank.images)
    assert np.array_equal(labels.numpy(), bank.bank.soft_labels())
    kinds = [type(one) for one in next(iter(DataLoader(bank, batch_size=64)))]
    monkeypatch.delitem(default_collate_fn_map, _Row)
    slowly = DataLoader(bank, batch_size=64)
    assert [type(one) for one in next(iter(slowly))] == kinds
    assert all(map(torch.equal, joined(slowly), (images, labels)))


def test_a_loader_takes_a_batch_as_it_was_read(
    bank: BankDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a stack of single rows, which costs more than reading them."""
    monkeypatch.setattr(torch, "stack", None)
    assert len(list(DataLoader(bank, batch_size=64, shuffle=True))) == 4


def test_parts_and_sums_of_data_sets_can_be_loaded(bank: BankDataset) -> None:
    some = list(range(0, 200, 3))
    images, _ = joined(DataLoader(Subset(bank, some), batch_size=16))
    assert torch.equal(images, bank.batch(some).images)
    double, _ = joined(DataLoader(ConcatDataset([bank, bank]), batch_size=64))
    assert len(double) == 400
    assert torch.equal(double[:200], double[200:])
    assert len(default_collate(bank.batch(some)[3:8])[0]) == 5


def test_a_transform_is_called_for_each_image(bank: BankDataset) -> None:
    seen: list[tuple[int, ...]] = []

    def as_float(image: Tensor) -> Tensor:
        seen.append(tuple(image.shape))
        return image.float() / 255

    changed = BankDataset(bank.folder, transform=as_float)
    images, labels = next(iter(DataLoader(changed, batch_size=32)))
    assert seen == [(1, 4, 4)] * 32
    assert torch.equal(images, bank.batch(range(32)).images.float() / 255)
    assert torch.equal(labels, bank.batch(range(32)).labels)


def test_a_bank_is_named_by_its_key_too(bank: BankDataset) -> None:
    assert BankDataset(bank.folder.name[:8]).folder == bank.folder
    with pytest.raises(InvalidInput, match="no bank 'nothing'"):
        BankDataset("nothing")


# processes


def test_it_pickles_as_its_place_and_opens_at_the_first_row(bank: BankDataset) -> None:
    data = pickle.dumps(bank)
    assert len(data) < 1000
    other = pickle.loads(data)
    assert other._opened is None
    assert torch.equal(other[3][0], bank[3][0])
    assert other._opened is not None


def test_another_bank_in_the_same_place_is_noticed(bank: BankDataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bank.folder, copy)
    data = pickle.dumps(BankDataset(copy))
    for path in (copy, *copy.iterdir()):
        path.chmod(0o755)
    shutil.rmtree(copy)
    other = pickle.loads(data)
    with pytest.raises(InvalidInput, match="MANIFEST"):
        other[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_batches_of_one_process(bank: BankDataset, method: str) -> None:
    words: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": method}
    assert all(
        map(
            torch.equal,
            joined(DataLoader(bank, batch_size=64, **words)),
            joined(DataLoader(bank, batch_size=64)),
        )
    )
    data = real_images(20)
    assert all(
        map(
            torch.equal,
            joined(HybridLoader(data, bank, batch=8, seed=3, **words)),
            joined(HybridLoader(data, bank, batch=8, seed=3)),
        )
    )


def test_the_package_names_them_without_importing_torch(repo_root: Path) -> None:
    code = "import sys, stylegan_mix.banks; print('torch' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert told.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        package.Nothing  # noqa: B018


@pytest.mark.parametrize("size", [0, 1 << 25])
def test_labels_are_the_same_whether_they_are_kept_or_composed(
    bank: BankDataset, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(reader, "_LARGEST_TABLE", size)
    rows = np.array([3, 199, 3, 0])
    opened = BankDataset(bank.folder).bank
    assert np.array_equal(opened.soft_labels(rows), opened.soft_labels()[rows])
    assert (opened._table is None) == (size == 0)


def test_a_row_of_a_batch_is_image_and_label(bank: BankDataset) -> None:
    rows = bank.__getitems__([5, 7, 9])
    image, label = rows[-1]
    assert torch.equal(image, bank[9][0])
    assert torch.equal(label, bank[9][1])
    assert (len(rows), len(rows[0]), len(list(rows))) == (3, 2, 3)
    with pytest.raises(IndexError):
        rows[3]


# hybrid batches


def numbers(images: Tensor) -> list[int]:
    """The numbers of real images, by their pixels."""
    assert bool((images == images[:, :1, :1, :1]).all())
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("make", [real_images, foreign])
@pytest.mark.parametrize(("batch", "share", "half"), [(128, 0.5, 64), (8, 0.25, 6), (2, 0.5, 1)])
def test_half_a_batch_is_real_with_hard_labels_and_half_is_of_the_bank(
    bank: BankDataset, make: Any, batch: int, share: float, half: int
) -> None:
    loader = HybridLoader(make(180), bank, batch=batch, bank_share=share)
    assert (loader.real_rows, len(loader)) == (half, -(-180 // half))
    known = {image.tobytes(): number for number, image in enumerate(bank.bank.images)}
    for images, labels in loader:
        real = numbers(images[:half])
        assert torch.equal(labels[:half].argmax(1), torch.tensor(real) % 3)
        assert bool((labels[:half].amax(1) == 1).all())
        rows = [known[one.permute(1, 2, 0).numpy().tobytes()] for one in images[half:]]
        assert torch.equal(labels[half:], bank.batch(rows).labels)
        assert labels.dtype == torch.float32
        break
    images, _ = next(iter(loader))
    assert images.shape == (batch, 1, 4, 4)


def test_an_epoch_shows_every_real_image_once_and_the_bank_in_turn(bank: BankDataset) -> None:
    loader = HybridLoader(real_images(90), bank, batch=40)
    sizes, seen, drawn = [], [], []
    for _ in range(4):
        one: list[int] = []
        for images, _labels in loader:
            sizes.append(len(images))
            real = min(20, 90 - len(one))
            one += numbers(images[:real])
            drawn += [image.numpy().tobytes() for image in images[real:]]
        assert sorted(one) == list(range(90))
        seen.append(tuple(one))
    assert sizes == [40, 40, 40, 40, 20] * 4
    assert len(set(seen)) == 4, "each epoch has an order of its own"
    known = [image.tobytes() for image in bank.bank.images]
    assert sorted(drawn[:200]) == sorted(known), "200 rows: none comes twice before all have come"
    assert len(drawn) == 360


def test_an_epoch_can_be_chosen_and_is_a_function_of_the_seed(bank: BankDataset) -> None:
    one = HybridLoader(real_images(30), bank, batch=8, seed=1)
    epochs = [joined(one)[0] for _ in range(3)]
    again = HybridLoader(real_images(30), bank, batch=8, seed=1)
    again.set_epoch(2)
    assert torch.equal(joined(again)[0], epochs[2])
    assert not torch.equal(joined(HybridLoader(real_images(30), bank, batch=8))[0], epochs[0])


def test_a_network_learns_from_the_batches_as_they_are(bank: BankDataset) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    for images, labels in HybridLoader(real_images(30), bank, batch=8):
        loss = torch.nn.functional.cross_entropy(network(images.float() / 255), labels)
        loss.backward()
    assert network[1].weight.grad is not None


class Pairs:
    """A data set of one pair, 30 times."""

    def __init__(self, image: Any, label: Any) -> None:
        self._pair = image, label

    def __len__(self) -> int:
        return 30

    def __getitem__(self, row: int) -> Any:
        return self._pair

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("read by numbers alone")


IMAGE = torch.zeros(1, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(
    "label", [2, np.int64(2), torch.tensor(2), torch.tensor([0.0, 0.25, 0.75])]
)
def test_labels_are_class_numbers_or_shares(bank: BankDataset, label: Any) -> None:
    _, labels = next(iter(HybridLoader(Pairs(IMAGE, label), bank, batch=4)))
    expected = label if isinstance(label, Tensor) and label.ndim else torch.eye(3)[2]
    assert torch.equal(labels[0], expected)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (IMAGE, 3, "is 3; expected a class number from 0 to 2"),
        (IMAGE, -1, "expected a class number"),
        (IMAGE, 1.5, "expected a class number"),
        (IMAGE, torch.ones(4), "expected a class number"),
        (IMAGE.float(), 1, r"is a tensor float32 \[1, 4, 4\], a row of the bank a tensor uint8"),
        (IMAGE[:, :3], 1, r"uint8 \[1, 3, 4\]"),
        (np.zeros((4, 4, 1), np.uint8), 1, "of type ndarray, no tensor"),
    ],
)
def test_real_images_of_another_form_are_refused_at_once(
    bank: BankDataset, image: Any, label: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        HybridLoader(Pairs(image, label), bank)


def test_a_bank_of_another_split_or_other_classes_is_refused(bank: BankDataset) -> None:
    with pytest.raises(InvalidInput, match="comes from training split 5555"):
        HybridLoader(real_images(30, split="6"), bank)
    with pytest.raises(InvalidInput, match="has the classes cat, bee, ant, the bank ant, bee, cat"):
        HybridLoader(real_images(30, classes=CLASSES[::-1]), bank)
    named = Pairs(IMAGE, 1)
    named.classes = ["ant", "bee"]  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="has the classes ant, bee, the bank"):
        HybridLoader(named, bank)
    with pytest.raises(InvalidInput, match="has no images"):
        HybridLoader(TensorDataset(IMAGE[:0], torch.zeros(0, dtype=torch.int64)), bank)


@pytest.mark.parametrize(
    ("batch", "share"), [(1, 0.5), (8, 0.0), (8, 1.0), (8, 0.01), (8, 2.0), (8, float("nan"))]
)
def test_an_impossible_batch_is_refused(bank: BankDataset, batch: int, share: float) -> None:
    with pytest.raises(UsageFailure, match="at least one real image"):
        HybridLoader(real_images(30), bank, batch=batch, bank_share=share)


def test_one_process_reads_its_batches_without_the_machinery_for_workers(
    bank: BankDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer for small images than to read them."""
    loader = HybridLoader(real_images(30), bank, batch=8)
    monkeypatch.setattr(DataLoader, "__iter__", None)
    assert len(list(loader)) == len(loader) == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_other_draws_do_not_depend_on_the_number_of_workers(
    bank: BankDataset, workers: int
) -> None:
    for own in (None, torch.Generator()):
        state = torch.default_generator if own is None else own
        state.manual_seed(5)
        list(HybridLoader(real_images(9), bank, batch=8, num_workers=workers, generator=own))
        drawn = torch.rand(1, generator=own)
        state.manual_seed(5)
        list(DataLoader(bank, batch_size=100, num_workers=workers, generator=own))
        assert torch.equal(drawn, torch.rand(1, generator=own))


# several processes


@pytest.mark.parametrize("make", [real_images, foreign])
@pytest.mark.parametrize(("count", "world", "batch"), [(96, 2, 8), (97, 3, 8), (101, 4, 6)])
def test_processes_see_together_what_one_sees_with_a_larger_batch(
    bank: BankDataset, make: Any, count: int, world: int, batch: int
) -> None:
    all_of_them = [
        HybridLoader(make(count), bank, batch=batch, seed=4, rank=rank, world_size=world)
        for rank in range(world)
    ]
    one = HybridLoader(make(count), bank, batch=world * batch, seed=4)
    half = batch // 2
    for epoch in range(3):
        batches = list(zip(*all_of_them, strict=True))
        assert len(batches) == len(all_of_them[0])
        for parts, (images, labels) in zip(batches, one, strict=False):
            if len(images) < world * batch:
                break  # the rest of an epoch is shared in its own way
            for kind, whole in enumerate((images, labels)):
                real = torch.cat([part[kind][:half] for part in parts])
                assert torch.equal(real, whole[: world * half])
                drawn = torch.cat([part[kind][half:] for part in parts])
                assert epoch or torch.equal(drawn, whole[world * half :])


@pytest.mark.parametrize(("count", "world", "batch"), [(96, 2, 8), (97, 3, 8), (101, 4, 6)])
def test_an_epoch_of_several_processes_shows_no_image_twice_and_leaves_few_out(
    bank: BankDataset, count: int, world: int, batch: int
) -> None:
    left_out = []
    for epoch in range(4):
        seen: list[int] = []
        for rank in range(world):
            loader = HybridLoader(
                real_images(count), bank, batch=batch, seed=4, rank=rank, world_size=world
            )
            loader.set_epoch(epoch)
            sizes = [len(images) for images, _ in loader]
            loader.set_epoch(epoch)
            rest = count // world
            for size, (images, _) in zip(sizes, loader, strict=True):
                real = min(loader.real_rows, rest)
                assert real < size
                seen += numbers(images[:real])
                rest -= real
        assert len(seen) == len(set(seen)) == count - count % world
        left_out.append(tuple(set(range(count)) - set(seen)))
    assert len(set(left_out)) > 1 or count % world == 0


def test_a_process_of_torch_distributed_knows_its_rows(
    bank: BankDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = HybridLoader(real_images(30), bank, batch=8, rank=1, world_size=3)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    found = HybridLoader(real_images(30), bank, batch=8)
    assert len(found) == 3
    assert all(map(torch.equal, joined(found), joined(given)))
    alone = HybridLoader(real_images(30), bank, batch=8, rank=0, world_size=1)
    assert len(alone) == 8


def test_workers_that_stay_go_on_with_the_next_epoch_of_their_process(bank: BankDataset) -> None:
    words: dict[str, Any] = {"batch": 8, "rank": 1, "world_size": 2}
    alone = HybridLoader(real_images(30), bank, **words)
    served = HybridLoader(real_images(30), bank, **words, num_workers=2, persistent_workers=True)
    for _ in range(3):
        assert all(map(torch.equal, joined(served), joined(alone)))


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (1, None), (0, 0), (0, -1)])
def test_a_process_that_is_not_among_them_is_refused(
    bank: BankDataset, rank: int, size: int | None
) -> None:
    with pytest.raises(UsageFailure, match="they are counted from 0"):
        HybridLoader(real_images(30), bank, rank=rank, world_size=size)


def test_fewer_images_than_processes_are_refused(bank: BankDataset) -> None:
    with pytest.raises(InvalidInput, match="3 real images cannot be shared by 4 processes"):
        HybridLoader(real_images(3), bank, rank=3, world_size=4)
