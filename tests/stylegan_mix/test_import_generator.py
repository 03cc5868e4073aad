"""Generators of other projects draw the same images here, and are what their card says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stylegan_mix import datasets
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.errors import InvalidInput
from stylegan_mix.generators import store as generator_store
from stylegan_mix.interop import foreign, nvlabs, rosinality
from stylegan_mix.networks import Generator

Run = Callable[..., tuple[int, str, str]]


class Golden:
    """A golden file: settings, state of the generator, inputs and outputs."""

    def __init__(self, path: Path) -> None:
        archive = np.load(path)
        self.meta = json.loads(bytes(archive["meta"]))
        self.state = {k[2:]: archive[k] for k in archive.files if k.startswith("G/")}
        self.io = {k[3:]: torch.from_numpy(archive[k]) for k in archive.files if k[:3] == "io/"}
        self.label = self.io["c"] if self.meta["c_dim"] else None

    @torch.no_grad()
    def check(self, network: Generator, *, truncated: bool = True) -> None:
        """Images within 1e-4 of the largest magnitude."""
        z = self.io["z"]
        pairs = [
            (network(z, self.label, noise="const"), "img"),
            (network(z, self.label, noise="none"), "img_nonoise"),
        ]
        if truncated:
            pairs.append((network(z, self.label, noise="const", truncation=0.7), "img_psi07"))
        for found, name in pairs:
            expected: Tensor = self.io[name]
            assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), name


@pytest.fixture(params=["network_cond32", "network_uncond16"])
def golden(request: pytest.FixtureRequest, shared_data: Path) -> Golden:
    return Golden(shared_data / "golden" / f"{request.param}.npz")


@pytest.fixture
def conditional(shared_data: Path) -> Golden:
    return Golden(shared_data / "golden" / "network_cond32.npz")


@pytest.fixture
def unconditional(shared_data: Path) -> Golden:
    return Golden(shared_data / "golden" / "network_uncond16.npz")


@pytest.fixture
def run(home: Path, run: Run) -> Run:
    """`run("import-generator", file, ...)` runs the command, in a store of its own."""
    return run


# --------------------------------------------------------------------- the same images

DIGITS = {
    "c_dim": 10,
    "resolution": 8,
    "img_channels": 1,
    "G": {
        "z_dim": 6,
        "w_dim": 8,
        "mapping_kwargs": {"num_layers": 3},
        "synthesis_kwargs": {"channel_base": 64, "channel_max": 12, "conv_clamp": 256},
    },
}


def published(meta: dict[str, Any], seed: int = 0) -> tuple[Generator, dict[str, np.ndarray]]:
    """A random network of these settings, and its state as it would be published."""
    torch.manual_seed(seed)
    network = Generator(**nvlabs.generator_settings(meta)).eval()
    own = network.state_dict()
    for name in own:
        if name.endswith(("noise_strength", "w_avg", "bias")):
            own[name].copy_(0.3 * torch.randn_like(own[name]))
    state = {
        name: (own[name] if name in own else network.get_buffer(name)).numpy()
        for name in nvlabs.published_names(network)
    }
    return network, state


def opened(path: Path) -> foreign.Foreign:
    return foreign.open_generator(foreign.read_bytes(path)[0], path)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_network_pickle_gives_the_golden_images_and_runs_nothing(
    golden: Golden, flat: bool, protocol: int, files: Any, tmp_path: Path
) -> None:
    path = files.network_pickle(
        tmp_path / "x.pkl", golden.state, golden.meta, flat=flat, protocol=protocol
    )
    found = opened(path)
    assert found.kind == "stylegan2-ada"
    assert found.left == ("D", "G", "augment_pipe", "training_set_kwargs")
    golden.check(found.network())
    assert not Path(files.CANARY).exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_the_port_gives_the_golden_images(
    unconditional: Golden, legacy: bool, files: Any, tmp_path: Path
) -> None:
    content = files.port_content(files.port_state(unconditional.state))
    found = opened(files.port_file(tmp_path / "x.pt", content, legacy=legacy))
    assert found.left == ("ada_aug_p", "args", "d", "d_optim", "g", "g_optim")
    unconditional.check(found.network(), truncated=False)
    average = torch.from_numpy(unconditional.state["mapping.w_avg"])
    content["latent_avg"] = average
    found = opened(files.port_file(tmp_path / "y.pt", content, legacy=legacy))
    unconditional.check(found.network())


@torch.no_grad()
def test_the_mean_of_w_is_computed_where_the_port_has_none(
    unconditional: Golden, files: Any, tmp_path: Path
) -> None:
    content = {"g_ema": files.port_state(unconditional.state)}
    network = opened(files.port_file(tmp_path / "x.pt", content)).network()
    w = network.mapping(torch.randn(50_000, network.z_dim), None)
    near = 6 * w.std(dim=0) / 10_000**0.5
    assert ((network.mapping.w_avg - w.mean(dim=0)).abs() < near).all()


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
@pytest.mark.parametrize("layers", [1, 8])
@torch.no_grad()
def test_sizes_follow_from_settings(
    architecture: str, layers: int, files: Any, tmp_path: Path
) -> None:
    meta = json.loads(json.dumps(DIGITS))
    meta.update(resolution=64, img_channels=4, c_dim=3)
    meta["G"]["mapping_kwargs"]["num_layers"] = layers
    meta["G"]["synthesis_kwargs"].update(architecture=architecture, conv_clamp=None)
    network, state = published(meta)
    found = opened(files.network_pickle(tmp_path / "x.pkl", state, meta)).network()
    z, label = torch.randn(2, 6), torch.tensor([0, 2])
    torch.testing.assert_close(found(z, label, noise="const"), network(z, label, noise="const"))
    assert found(z, label).shape == (2, 4, 64, 64)


@pytest.mark.parametrize(
    ("channels", "rule"),
    [
        ({4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256}, (32768, 512)),
        ({4: 24, 8: 24}, (192, 24)),
        ({4: 7, 8: 5, 16: 2}, (40, 7)),
        ({4: 64, 8: 32, 16: 16}, (256, 64)),
    ],
)
def test_a_channel_rule_is_found(channels: dict[int, int], rule: tuple[int, int]) -> None:
    assert rosinality._channel_rule(channels) == rule


@pytest.mark.parametrize("channels", [{4: 8, 8: 16}, {4: 16, 8: 4, 16: 8}, {4: 7, 8: 4, 16: 3}])
def test_channels_without_a_rule_are_refused(channels: dict[int, int]) -> None:
    with pytest.raises(InvalidInput, match="follow no rule"):
        rosinality._channel_rule(channels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_read(
    dtype: torch.dtype, unconditional: Golden, files: Any, tmp_path: Path
) -> None:
    state = {name: one.to(dtype) for name, one in files.port_state(unconditional.state).items()}
    found = opened(files.port_file(tmp_path / "x.pt", {"g_ema": state}))
    for name, one in state.items():
        np.testing.assert_array_equal(found.arrays[name], one.double().numpy())
    found.network()


def test_views_of_one_storage_are_read(unconditional: Golden, files: Any, tmp_path: Path) -> None:
    state = files.port_state(unconditional.state)
    name = "style.3.weight"
    both = torch.stack([torch.zeros_like(state[name]), state[name]], dim=2)
    state[name] = both[:, :, 1]
    assert not state[name].is_contiguous()
    content = {"g_ema": state, "latent_avg": torch.from_numpy(unconditional.state["mapping.w_avg"])}
    unconditional.check(opened(files.port_file(tmp_path / "x.pt", content)).network())


def _renamed(state: dict[str, Any]) -> None:
    state["conv1.conv.extra"] = state.pop("conv1.conv.weight")


def _filtered(state: dict[str, Any]) -> None:
    state["convs.0.conv.blur.kernel"] = torch.ones(4, 4) / 4


def _misshapen(state: dict[str, Any]) -> None:
    state["convs.1.activate.bias"] = torch.ones(3)


def _endless(state: dict[str, Any]) -> None:
    state["style.1.bias"] = state["style.1.bias"] * float("nan")


def _empty(state: dict[str, Any]) -> None:
    del state["style.1.weight"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_renamed, "missing conv1.conv.weight; unexpected conv1.conv.extra"),
        (_filtered, "convs.0.conv.blur.kernel is not the filter"),
        (_misshapen, r"convs.1.activate.bias has shape \[3\] instead of \[16\]"),
        (_endless, "mapping.fc0.bias is not made of finite"),
        (_empty, "no StyleGAN2 generator of the port: 'style.1.weight'"),
    ],
)
def test_what_does_not_fit_is_named_in_the_words_of_the_port(
    change: Callable[..., None], why: str, unconditional: Golden, files: Any, tmp_path: Path
) -> None:
    state = files.port_state(unconditional.state)
    change(state)
    path = files.port_file(tmp_path / "x.pt", {"g_ema": state})
    with pytest.raises(InvalidInput, match=why):
        opened(path).network()


def test_a_stylegan3_generator_is_refused_by_name(
    conditional: Golden, files: Any, tmp_path: Path
) -> None:
    state = {**conditional.state, "synthesis.input.weight": np.ones((2, 2), np.float32)}
    path = files.network_pickle(tmp_path / "x.pkl", state, conditional.meta)
    with pytest.raises(InvalidInput, match="StyleGAN3 generator"):
        opened(path)


# --------------------------------------------------------------------- in the store


@pytest.fixture
def digits_file(files: Any, tmp_path: Path) -> Path:
    """A conditional network of 8x8 grey images of ten classes."""
    return files.network_pickle(tmp_path / "digits.pkl", published(DIGITS)[1], DIGITS)


def imported(run: Run, *words: object) -> generator_store.Published:
    code, out, err = run("import-generator", *words, "--json")
    assert code == 0, err
    return generator_store.load(json.loads(out)["generator"])


def test_an_imported_generator_is_what_its_card_says(
    digits_file: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run("import-generator", digits_file, "--dataset", "digits_lt")
    assert code == 0, err
    (one,) = generator_store.find()
    data = datasets.load("digits_lt")
    assert f"generator {one.hash[:12]} imported" in out
    for text in (
        "8x8x1, 10 classes, skip, 3 mapping layers, z 6, w 8",
        "left in the file: D, G, augment_pipe, training_set_kwargs",
        f"trained on: digits_lt (imbalance 20, split {data.split_id[:12]}), declared by the user",
        f"--generator {one.hash[:12]}",
    ):
        assert text in err
    assert one.card["split_id"] == data.split_id
    assert one.imported is not None
    assert one.imported["sha256"] == foreign.read_bytes(digits_file)[1]
    card = (one.folder / "GENERATOR_CARD.md").read_text()
    for text in (one.imported["sha256"], "declared by the user", "`training_set_kwargs`", "| 0 |"):
        assert text in card
    assert str(digits_file.parent) not in card
    with Image.open(one.folder / "grid.png") as picture:
        assert picture.height > 10 * 40


@torch.no_grad()
def test_the_network_in_the_store_is_the_one_of_the_file(digits_file: Path, run: Run) -> None:
    network, _ = published(DIGITS)
    found = generator_store.network(imported(run, digits_file, "--dataset", "digits_lt"))
    z, label = torch.randn(3, 6), torch.tensor([0, 5, 9])
    for options in ({"truncation": 1.0}, {"truncation": 0.5}):
        expected = network(z, label, noise="const", **options)
        torch.testing.assert_close(found(z, label, noise="const", **options), expected)
    assert generator_store.network(imported(run, digits_file, "--dataset", "digits_lt")).synthesis
    clamps = {one.clamp for one in found.modules() if hasattr(one, "clamp")}
    assert 256 in clamps


def test_golden_images_come_out_of_the_store(
    conditional: Golden, files: Any, run: Run, tmp_path: Path
) -> None:
    for part in ("train", "test"):
        for name in range(10):
            folder = tmp_path / "ten" / part / str(name)
            folder.mkdir(parents=True)
            for number in range(2):
                pixels = np.full((32, 32, 3), 20 * name + number + 5 * (part == "test"), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    assert run("dataset", "prepare", "ten", "--from", tmp_path / "ten")[0] == 0
    path = files.network_pickle(tmp_path / "x.pkl", conditional.state, conditional.meta)
    one = imported(run, path, "--dataset", "ten")
    conditional.check(generator_store.network(one))
    code, out, err = run(
        *("generate", "--generator", one.hash[:8], "--n", "70", "--dataset", "ten", "--json")
    )
    assert code == 0, err
    assert open_bank(Path(json.loads(out)["folder"])).images.shape == (70, 32, 32, 3)


def test_the_same_file_again_is_the_same_generator_at_once(
    digits_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("import-generator", digits_file, "--dataset", "digits_lt")
    first = generator_store.load(json.loads(run(*words, "--json")[1])["generator"])
    stamp = (first.folder / "grid.png").stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(foreign.Foreign, "network", lambda _: 1 / 0)
        code, out, _ = run(*words)
    assert (code, f"generator {first.hash[:12]} exists" in out) == (0, True)
    assert (first.folder / "grid.png").stat().st_mtime_ns == stamp
    other = respelled(digits_file)
    assert imported(run, other, "--dataset", "digits_lt").hash == first.hash
    assert len(generator_store.find()) == 1


def respelled(path: Path) -> Path:
    """Another file with the same weights."""
    content = bytearray(path.read_bytes())
    content[content.index(b"/data/x.zip") + 6] = ord("y")
    other = path.with_name("other.pkl")
    other.write_bytes(content)
    return other


def test_weights_have_one_declaration(digits_file: Path, run: Run) -> None:
    one = imported(run, digits_file, "--dataset", "digits_lt")
    for path in (digits_file, respelled(digits_file)):
        code, out, err = run(
            "import-generator", path, "--dataset", "digits_lt", "--profile", "natural"
        )
        assert (code, out) == (2, "")
        assert f"in the store as generator {one.hash[:12]}, of digits_lt" in err
        assert str(one.folder) in err
    assert generator_store.find() == [one]


def test_a_dry_run_checks_everything_and_writes_nothing(
    digits_file: Path, run: Run, home: Path
) -> None:
    words = ("import-generator", digits_file, "--dataset", "digits_lt", "--dry-run")
    code, out, _ = run(*words, "--json")
    facts = json.loads(out)
    assert (code, facts["state"], facts["network"]["conv_clamp"]) == (0, "absent", 256)
    assert run(*words)[1] == "would import it: everything in it fits\n"
    assert not home.exists()


# --------------------------------------------------------------------- the leak guard


def test_a_conditional_generator_needs_the_word_of_whoever_imports_it(
    digits_file: Path, run: Run, home: Path
) -> None:
    code, out, err = run("import-generator", digits_file)
    assert (code, out) == (2, "")
    assert "does not say which data set" in err
    assert "--dataset NAME" in err
    for words in (("--imbalance", "5"), ("--split-seed", "5")):
        code, _, err = run("import-generator", digits_file, *words)
        assert (code, "say which draw of a --dataset: name it" in err) == (2, True)
    assert not home.exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"c_dim": 9}, "draws 9 classes, digits_lt has 10"),
        ({"resolution": 16}, "draws 16 pixels a side, digits_lt has 8"),
        ({"img_channels": 3}, "draws 3 channels, digits_lt has 1"),
    ],
)
def test_a_generator_of_other_classes_or_sizes_is_not_of_that_data_set(
    change: dict[str, Any], why: str, files: Any, run: Run, home: Path, tmp_path: Path
) -> None:
    meta = {**DIGITS, **change}
    path = files.network_pickle(tmp_path / "x.pkl", published(meta)[1], meta)
    code, out, err = run("import-generator", path, "--dataset", "digits_lt")
    assert (code, out) == (3, "")
    assert why in err
    assert not home.exists()


def test_an_imported_generator_is_taken_by_name_only(digits_file: Path, run: Run) -> None:
    one = imported(run, digits_file, "--dataset", "digits_lt")
    data = datasets.load("digits_lt")
    assert generator_store.find(split_id=data.split_id) == []
    code, _, err = run("generate", "--dataset", "digits_lt", "--n", "10", "--no-train")
    assert code == 3
    assert f"--generator {one.hash[:12]}" in err
    code, _, err = run("generate", "--dataset", "digits_lt", "--dry-run")
    assert (code, f"--generator {one.hash[:12]}" in err) == (0, True)
    from stylegan_mix.training.plan import finished, plan_training

    plan = plan_training(data, preset=None, kimg=None, seed=0, device="cpu", command="")
    assert finished(plan) == []


def test_its_banks_say_that_their_split_is_declared(digits_file: Path, run: Run) -> None:
    one = imported(run, digits_file, "--dataset", "digits_lt")
    code, out, err = run("generate", "--generator", one.hash[:12], "--n", "100", "--json")
    assert code == 0, err
    assert "trained on this split is declared by the user" in err
    folder = Path(json.loads(out)["folder"])
    bank = open_bank(folder)
    bank.require_split(datasets.load("digits_lt").split_id)
    with pytest.raises(InvalidInput, match="comes from training split"):
        bank.require_split(datasets.load("digits_lt", imbalance=2).split_id)
    assert bank.facts["generator_imported"] == one.imported
    card = (folder / "BANK_CARD.md").read_text()
    assert card.count("`, declared by the user |") == 2
    assert "declared\n  by the user: nothing here could check it" in card
    assert (folder / "preview.png").stat().st_size > 1000
    assert run("bank", "verify", folder)[0] == 0
    # The command on the card asks for the same bank.
    words = bank.facts["command"].split()[1:]
    assert json.loads(run(*words, "--json")[1])["key"] == bank.key
    wrong = ("generate", "--generator", one.hash[:12], "--imbalance", "2")
    assert run(*wrong)[0] == 3


def test_an_unconditional_generator_is_kept_and_writes_no_bank(
    unconditional: Golden, files: Any, run: Run, tmp_path: Path, home: Path
) -> None:
    content = files.port_content(files.port_state(unconditional.state))
    path = files.port_file(tmp_path / "x.pt", content)
    code, _, err = run("import-generator", path)
    assert (code, "unconditional" in err, "trained on: not said" in err) == (0, True, True)
    (one,) = generator_store.find()
    assert one.card["split_id"] is None
    assert one.card["classes"] == []
    unconditional.check(generator_store.network(one), truncated=False)
    assert "no bank" in (one.folder / "GENERATOR_CARD.md").read_text()
    assert (one.folder / "grid.png").stat().st_size > 1000
    code, out, err = run("generate", "--generator", one.hash[:12], "--n", "10")
    assert (code, out) == (3, "")
    assert "unconditional" in err
    assert "train or import a class-conditional one" in err.replace("\n", " ")
    code, out, _ = run("import-generator", path, "--json")
    assert json.loads(out)["state"] == "exists"


def test_an_absent_file_or_a_folder_is_error_3(
    run: Run, home: Path, tmp_path: Path, digits_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "LARGEST_FILE", 1000)
    code, _, err = run("import-generator", digits_file, "--dataset", "digits_lt")
    assert (code, "more than 1,000 bytes" in err) == (3, True)
    for path, why in ((tmp_path / "no.pkl", "No such file"), (tmp_path, "is a folder")):
        code, out, err = run("import-generator", path)
        assert (code, out) == (3, "")
        assert why in err
    assert not home.exists()
