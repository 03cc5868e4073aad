"""The probe: the one small classifier of this package, trained on the long-tailed training part.

The probe classifies samples (label accuracy). Its features are the default space of distances. The
same network, trained on samples alone, gives the classification accuracy score. It is no Inception
network, so distances in its features are named by the probe and its hash, and never FID.
`N` images, `K` classes, `C` channels, `R` pixels, `D` feature width.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stylegan_mix import arrays, checkpoint, rng, store
from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.errors import InvalidInput, fitting
from stylegan_mix.fields import LIST, TEXT, WHOLE, check_types
from stylegan_mix.metrics.scores import class_accuracy, class_mean
from stylegan_mix.session import Session
from stylegan_mix.training.batches import RealImages

__all__ = [
    "KIND",
    "Answers",
    "Probe",
    "Schedule",
    "SmallNet",
    "answers",
    "ensure_probe",
    "find_probe",
    "outputs",
    "probe_key",
    "schedule_for",
    "train_classifier",
]

KIND = "probe"
WIDTH = 64
"""D, the width of the features: small, so that a covariance needs few images."""

_ALGORITHM = {"network": 1, "training": 1}
_STEM, _MIDDLE = 24, 48
_BATCH = 256


class SmallNet(nn.Module):
    """A small classifier: images [N,C,R,R] in -1 to 1 -> (features [N,D], logits [N,K]).

    Convolutions with batch normalisation; the size is halved, at least once, until it is at most
    8 pixels; features are the mean over positions.
    """

    def __init__(self, *, resolution: int, channels: int, classes: int) -> None:
        super().__init__()
        halvings = max(1, math.ceil(math.log2(resolution / 8)))
        # A large image is halved at once: at full size the network would spend most of its time.
        first = 2 if resolution >= 64 else 1
        stages = [_convolution(channels, _STEM, stride=first)]
        width = _STEM
        for left in reversed(range(halvings - (first - 1))):
            wider = WIDTH if left == 0 else _MIDDLE
            stages += [_convolution(width, wider, stride=2), _convolution(wider, wider, stride=1)]
            width = wider
        self.body = nn.Sequential(*stages)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes features and logits; see the class."""
        features = self.body(images).mean(dim=(2, 3))
        return features, self.head(features)


def _convolution(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


@dataclass(frozen=True)
class Schedule:
    """A schedule of Nesterov's momentum: `lr` rises linearly for a tenth, then falls to 0."""

    steps: int
    batch: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def rate(self, step: int) -> float:
        """Computes the learning rate of a step."""
        rise = max(self.steps // 10, 1)
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * (self.steps - step) / (self.steps - rise)


def schedule_for(resolution: int) -> Schedule:
    """Chooses the schedule: seconds of training for 8 pixels, minutes on one core for 32."""
    return Schedule(steps=400) if resolution <= 16 else Schedule(steps=1000, batch=128)


def train_classifier(
    part: Part,
    *,
    classes: int,
    flip: bool,
    schedule: Schedule,
    seed: int,
    device: torch.device,
    label: str,
    session: Session = Session(),
    adjusted: bool = False,
) -> SmallNet:
    """Trains a `SmallNet` on a part, with every class in it drawn equally often.

    If `adjusted`, every image is drawn equally often instead, and the log of the class prior is
    added to the logits in the loss (Menon et al. 2021, logit adjustment, equation 10): the logits
    are those of balanced classes all the same. Images are shifted by up to an eighth and, with
    `flip`, mirrored. The same arguments give the same network on the same kind of machine. `label`
    names the progress.
    """
    there, compact = np.unique(part.labels, return_inverse=True)
    power = 1.0 if adjusted else 0.0
    reals = RealImages(Part(part.images, compact), classes=len(there), power=power, device=device)
    counts = np.bincount(part.labels, minlength=classes)
    # A class without images has the prior of half an image, so that its logarithm is finite.
    prior = torch.from_numpy(np.log(np.maximum(counts, 0.5) / counts.sum())).float().to(device)
    names = torch.from_numpy(there).to(device)
    resolution, channels = int(part.images.shape[1]), int(part.images.shape[3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.torch_generator(seed, "probe.weights").initial_seed())
        network = SmallNet(resolution=resolution, channels=channels, classes=classes).to(device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=schedule.lr,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        nesterov=True,
    )
    network.train()
    progress = session.track(schedule.steps, "steps", label)
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        for step in range(schedule.steps):
            session.go_on(f"{label} stood at step {step} of {schedule.steps}")
            images, labels = reals.at(reals.rows(schedule.batch, seed=seed, index=(step,)))
            draws = rng.torch_generator(seed, "probe.augment", step)
            _, logits = network(_augmented(images, flip, draws))
            told = logits + prior if adjusted else logits
            loss = functional.cross_entropy(told, names[labels])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.param_groups[0]["lr"] = schedule.rate(step)
            optimizer.step()
            progress.update(step + 1)
    progress.close()
    return network.eval().requires_grad_(False)


def _augmented(images: Tensor, flip: bool, draws: torch.Generator) -> Tensor:
    """Shifts by up to an eighth, the border repeated, and mirrors half of [N,C,H,W] if `flip`."""
    count, _, height, width = images.shape
    most = max(height // 8, 1)
    shifts = torch.randint(0, 2 * most + 1, (2, count), generator=draws).to(images.device)
    mirrored = torch.randint(0, 2, (count,), generator=draws).bool().to(images.device)
    padded = functional.pad(images, [most] * 4, mode="replicate").permute(0, 2, 3, 1)
    rows = torch.arange(height, device=images.device) + shifts[0][:, None]
    columns = torch.arange(width, device=images.device) + shifts[1][:, None]
    if flip:
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Answers:
    """A network's answers on N images: `features` float32 [N,D] and the class int64 [N]."""

    features: np.ndarray
    said: np.ndarray


def answers(network: SmallNet, images: np.ndarray) -> Answers:
    """Runs a network on uint8 images [N,H,W,C]."""
    features, logits = outputs(network, images)
    return Answers(features, logits.argmax(axis=1).astype(np.int64))


@torch.inference_mode()
def outputs(
    network: SmallNet, images: np.ndarray, session: Session = Session()
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a network on uint8 images [N,H,W,C]: features [N,D] and logits [N,K], float32."""
    device = next(network.parameters()).device
    features = np.empty((len(images), WIDTH), np.float32)
    logits = np.empty((len(images), network.head.out_features), np.float32)
    for start in range(0, len(images), _BATCH):
        session.go_on("images were being judged")
        rows = slice(start, start + _BATCH)
        block = torch.from_numpy(np.array(images[rows])).to(device).permute(0, 3, 1, 2)
        wide, told = network(block.float().div_(127.5).sub_(1.0))
        features[rows], logits[rows] = wide.cpu().numpy(), told.cpu().numpy()
    return features, logits


# In the store


@dataclass(frozen=True)
class Probe:
    """A trained probe: the hash of its weights, its folder, and its card as plain data."""

    hash: str
    folder: Path
    card: dict[str, Any]

    def network(self, device: torch.device) -> SmallNet:
        """Loads the network to a device, checked against its hash."""
        again = f"move {self.folder} away: the same command trains it again"
        try:
            state, card = checkpoint.load(self.folder, kind=KIND)
            with fitting("its weights do not fit its card"):
                network = SmallNet(
                    resolution=card["resolution"],
                    channels=card["channels"],
                    classes=len(card["classes"]),
                )
                network.load_state_dict(state)
        except InvalidInput as error:
            raise InvalidInput(
                f"probe {self.hash[:12]} is not as it was written: {error}", remedy=again
            ) from error
        return network.to(device).eval().requires_grad_(False)


def probe_key(dataset: Dataset, seed: int) -> str:
    """Names the probe of a split before it is trained: 64 hex digits."""
    return store.digest(_spec(dataset, seed))


def _spec(dataset: Dataset, seed: int) -> dict[str, Any]:
    return {
        "kind": KIND,
        "algorithm": dict(_ALGORITHM),
        "split_id": dataset.split_id,
        "flip": bool(dataset.flip),
        "schedule": asdict(schedule_for(dataset.resolution)),
        "seed": int(seed),
    }


def find_probe(dataset: Dataset, seed: int) -> Probe | None:
    """Finds the stored probe of a split, if it has been trained."""
    key = probe_key(dataset, seed)
    for root in store.roots():
        folder = root / "probes" / key
        if folder.is_dir():
            again = f"move {folder} away: the same command trains it again"
            with fitting(f"{folder} has no card of a probe", remedy=again):
                card = arrays.read_manifest(folder, kind=KIND)["facts"]["facts"]
                check_types(card, _CARD)
            return Probe(card["hash"], folder, card)
    return None


# Fields of a card that others rely on.
_CARD = {"hash": TEXT, "classes": LIST, "resolution": WHOLE, "channels": WHOLE}


def ensure_probe(
    dataset: Dataset, seed: int, device: torch.device, session: Session = Session()
) -> Probe:
    """Finds the probe of a split, or trains it now on exactly its training part.

    The test part is used once, after training, for the accuracy on the card.
    """
    key = probe_key(dataset, seed)
    folder = store.home() / "probes" / key
    lock = folder.with_name(f".{key}.lock")
    with store.locked(lock, session=session):
        found = find_probe(dataset, seed)
        if found is None:
            network = train_classifier(
                dataset.train,
                classes=dataset.num_classes,
                flip=dataset.flip,
                schedule=schedule_for(dataset.resolution),
                seed=seed,
                device=device,
                label="probe",
                session=session,
            )
            state = network.state_dict()
            _publish(folder, state, _card(dataset, seed, network, state))
            found = find_probe(dataset, seed)
        lock.unlink(missing_ok=True)
    if found is None:
        raise InvalidInput(f"{folder} vanished while it was written")
    return found


def _card(
    dataset: Dataset, seed: int, network: SmallNet, state: Mapping[str, Tensor]
) -> dict[str, Any]:
    said = answers(network, dataset.test.images).said
    accuracy = class_accuracy(said, dataset.test.labels, dataset.num_classes)
    return {
        "hash": checkpoint.weights_sha256(state),
        "spec": _spec(dataset, seed),
        "dataset": dataset.name,
        "split_id": dataset.split_id,
        "test_id": dataset.test_id,
        "classes": list(dataset.classes),
        "resolution": dataset.resolution,
        "channels": dataset.channels,
        "width": WIDTH,
        "test_accuracy": accuracy,
        "test_accuracy_mean": class_mean(accuracy),
        "torch": str(torch.__version__),
    }


def _publish(folder: Path, state: Mapping[str, Tensor], card: dict[str, Any]) -> None:
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    checkpoint.save(temporary, state, kind=KIND, facts=card)
    text = f"""# Probe {card["hash"][:12]}

A small classifier of {card["dataset"]} (split `{card["split_id"][:12]}`), trained on exactly its
training part, each class drawn equally often. Accuracy on the test part, mean of the classes:
{100 * card["test_accuracy_mean"]:.1f} %. Weights: SHA-256 `{card["hash"]}`.

It serves metrics: names of classes, and features for distances. These are not FID.
"""
    store.write_bytes(temporary / "PROBE_CARD.md", text.encode())
    store.publish(temporary, folder)
