"""Checkpoints read and written: what they hold, and what is refused."""

import gc
import hashlib
import os
import pickle
import resource
import subprocess
import sys
import weakref
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_checkpoints
import torch
from fairseq.models.fconv import FConvModel, base_architecture
from omegaconf import OmegaConf
from tiny_models import MODELS, description, dictionary, settings, task

from grouping.errors import StudyError
from harness.files import write_atomically
from harness.model import load_model, read_checkpoint

PREPARED = Path(__file__).parents[1] / "data" / "homeassistant.en-de"


def write(path: Path, name: str = "transformer", **changes: Any) -> dict[str, Any]:
    """A checkpoint with other entries; None removes one. Returns the weights that were written."""
    content = tiny_checkpoints.content(name, tiny_checkpoints.lively(name)) | changes
    torch.save({key: entry for key, entry in content.items() if entry is not None}, path)
    return content["model"]


def weights_of(model: str) -> dict[str, torch.Tensor]:
    return dict(tiny_checkpoints.lively(model).state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_views_of_one_vector(name, tmp_path):
    module, model = tiny_checkpoints.tiny(name, tmp_path)
    parameters = dict(module.named_parameters())  # tied ones once
    assert list(model.offsets) == list(parameters)
    assert model.flat.dtype == torch.float32
    assert torch.equal(model.flat, torch.cat([part.detach().flatten() for part in parameters.values()]))
    assert model.description == description(name)
    assert model.family == settings(name)["arch"]
    model.flat.copy_(torch.arange(len(model.flat)))
    for part, start in zip(model.module.parameters(), model.offsets.values(), strict=True):
        expected = torch.arange(start, start + part.numel()).float().view(part.shape)
        assert torch.equal(part, expected)
        assert not part.requires_grad
    assert not model.module.training


@pytest.mark.parametrize("name", MODELS)
def test_saved_weights_come_back(name, tmp_path):
    _, model = tiny_checkpoints.tiny(name, tmp_path)
    model.flat[::3] = 0
    model.save(tmp_path / "saved.pt")
    again = tiny_checkpoints.load(name, tmp_path / "saved.pt")
    assert torch.equal(again.flat, model.flat)
    assert again.description == model.description
    # plain containers alone: torch's reader wants no allow-list
    content = torch.load(tmp_path / "saved.pt", weights_only=True)
    for key, part in model.module.state_dict().items():
        assert torch.equal(content["model"][key], part)
    assert content["cfg"]["model"]["arch"] == settings(name)["arch"]
    assert content["cfg"]["task"]["source_lang"] == "en"
    assert content["cfg"]["task"]["target_lang"] == "de"


@pytest.mark.parametrize("name", ["lstm tied", "transformer tied", "transformer tied decoder"])
def test_tied_tensors_stay_tied_and_are_stored_once(name, tmp_path):
    _, model = tiny_checkpoints.tiny(name, tmp_path)
    assert model.description.tied
    model.save(tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)["model"]
    for other, first in model.description.tied.items():
        assert saved[other].data_ptr() == saved[first].data_ptr()
        parameters = dict(model.module.named_parameters(remove_duplicate=False))
        assert parameters[other] is parameters[first]
    stored = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in saved.values()}
    numbers = sum(part.nbytes for key, part in saved.items() if key not in model.description.shapes)
    assert sum(stored.values()) == 4 * len(model.flat) + numbers


def test_half_precision_is_read_into_float32(tmp_path):
    half = {name: part.half() for name, part in weights_of("transformer").items()}
    write(tmp_path / "half.pt", model=half)
    model = tiny_checkpoints.load("transformer", tmp_path / "half.pt")
    for name, part in model.module.named_parameters():
        assert part.dtype == torch.float32
        assert np.array_equal(part.numpy(), half[name].numpy().astype(np.float32))


def test_content_hash_is_of_the_weights_alone(tmp_path):
    _, model = tiny_checkpoints.tiny("lstm tied", tmp_path)
    # sha256 of all weights as little-endian float32, tied ones once
    expected = hashlib.sha256(model.flat.numpy().astype("<f4").tobytes()).hexdigest()
    assert model.content_hash == expected
    model.save(tmp_path / "again.pt")
    assert tiny_checkpoints.load("lstm tied", tmp_path / "again.pt").content_hash == expected
    write(tmp_path / "other.pt", "lstm tied", extra_state={"epoch": 7})
    assert tiny_checkpoints.load("lstm tied", tmp_path / "other.pt").content_hash == expected
    model.flat[0] += 1
    model.save(tmp_path / "again.pt")
    assert tiny_checkpoints.load("lstm tied", tmp_path / "again.pt").content_hash != expected


@pytest.mark.parametrize("name", ["lstm bidirectional", "transformer pre-norm"])
@pytest.mark.parametrize(
    "form",
    [
        lambda said: {"cfg": {"model": Namespace(**said)}},
        lambda said: {"cfg": {"model": said, "task": None}},
        lambda said: {"cfg": {"model": {"_name": said.pop("arch"), **said}}},
        lambda said: {"cfg": OmegaConf.create({"model": said, "task": {"source_lang": "en"}})},
        lambda said: {"cfg": None, "args": Namespace(**said)},
    ],
    ids=["namespace", "dictionary", "name", "omegaconf", "args"],
)
def test_settings_of_every_version_of_fairseq(name, form, tmp_path):
    said = form(settings(name))
    weights = write(tmp_path / "old.pt", name, **said)
    model = tiny_checkpoints.load(name, tmp_path / "old.pt")
    for key, part in model.module.named_parameters():
        assert torch.equal(part, weights[key])
    model.save(tmp_path / "new.pt")
    assert tiny_checkpoints.load(name, tmp_path / "new.pt").content_hash == model.content_hash


@pytest.mark.parametrize("name", ["lstm bidirectional", "transformer tied"])
def test_what_was_read_is_let_go_at_once(name, monkeypatch, tmp_path):
    """Not at the next garbage collection: the weights read would stay in memory beside the model's."""
    read = []

    def reading(*arguments: Any) -> dict[str, Any]:
        state = read_checkpoint(*arguments)
        state["last_optimizer_state"] = {"exp_avg": torch.zeros(3)}
        tensors = [*state["model"].values(), *state["last_optimizer_state"].values()]
        read.extend(weakref.ref(tensor) for tensor in tensors)
        return state

    monkeypatch.setattr("harness.model.read_checkpoint", reading)
    gc.disable()
    try:
        model = tiny_checkpoints.tiny(name, tmp_path)[1]
        alive = [tensor for tensor in read if tensor() is not None]
    finally:
        gc.enable()
    assert len(read) > len(model.offsets)
    assert not alive


def test_paths_of_this_machine_are_not_passed_on(tmp_path):
    paths = {"data": "/home/me/bin", "save_dir": "/home/me/out", "tensorboard_logdir": "/home/me/log"}
    paths["encoder_embed_path"] = "/home/me/vectors.txt"
    write(tmp_path / "tiny.pt", cfg={"model": Namespace(**settings("transformer"), **paths)})
    tiny_checkpoints.load("transformer", tmp_path / "tiny.pt").save(tmp_path / "saved.pt")
    assert "/home/me" in str(read_checkpoint(tmp_path / "tiny.pt"))
    assert "/home/me" not in str(read_checkpoint(tmp_path / "saved.pt"))


def test_a_checkpoint_of_fairseq_train_is_read(tmp_path):
    command = [sys.executable, "-m", "fairseq_cli.train", str(PREPARED / "bin"), "--save-dir", str(tmp_path)]
    command += ["--arch", "transformer", "--encoder-layers", "1", "--decoder-layers", "1"]
    command += ["--encoder-embed-dim", "8", "--encoder-ffn-embed-dim", "8", "--encoder-attention-heads", "2"]
    command += ["--decoder-attention-heads", "2", "--share-all-embeddings", "--optimizer", "adam"]
    command += ["--lr", "0.01", "--max-tokens", "500", "--max-update", "1", "--disable-validation", "--cpu"]
    command += ["--train-subset", "valid", "--num-workers", "0", "--no-progress-bar"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = dictionary(0)
    words.add_from_file(str(PREPARED / "bin" / "dict.en.txt"))
    model = load_model(tmp_path / "checkpoint_last.pt", words, words)
    # shared embedding; per layer 4 matrices 8×8 of self-attention and as many for the source, two of the
    # feed-forward part, with their biases; two vectors for each of 2 + 3 normalisations
    matrices = 8 * 8 + 8
    assert model.flat.numel() == 8 * len(words) + (4 + 8) * matrices + 4 * matrices + 5 * 16
    with pytest.raises(StudyError, match=f"the encoder has {len(words)} embeddings"):
        load_model(tmp_path / "checkpoint_last.pt", dictionary(10), words)


def loading(path: Path, name: str = "transformer", trust: bool = False) -> str:
    """The message that refuses a checkpoint: one line."""
    with pytest.raises(StudyError) as refused:
        tiny_checkpoints.load(name, path, trust)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    assert "does not exist" in loading(tmp_path / "missing.pt")
    assert loading(tmp_path).endswith("is a folder, where a checkpoint is wanted; in it there is no .pt file")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_are_refused(zipped, tmp_path):
    path = tmp_path / "tiny.pt"
    content = tiny_checkpoints.content("transformer", tiny_checkpoints.lively("transformer"))
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in [*range(0, 40, 3), *np.linspace(40, len(whole) - 1, 60, dtype=int)]:
        path.write_bytes(whole[:size])
        message = loading(path)
        assert "damaged" in message or "truncated" in message, message
    path.write_bytes(whole)
    assert tiny_checkpoints.load("transformer", path).family == "transformer"


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused_or_read(zipped, tmp_path):
    """Whatever a changed byte makes torch say, it reaches the user as a StudyError."""
    path = tmp_path / "tiny.pt"
    content = tiny_checkpoints.content("transformer", tiny_checkpoints.lively("transformer"))
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    whole, rng = path.read_bytes(), np.random.default_rng(5)
    refused = 0
    for _ in range(150):
        changed = bytearray(whole)
        changed[rng.integers(0, 6000)] = rng.integers(0, 256)
        path.write_bytes(changed)
        try:
            tiny_checkpoints.load("transformer", path)
        except StudyError:
            refused += 1
    assert refused > 15


@pytest.mark.parametrize("junk", [b"", b"not a checkpoint", np.random.default_rng(0).bytes(5000)])
def test_other_files_are_refused(junk, tmp_path):
    (tmp_path / "junk.pt").write_bytes(junk)
    message = loading(tmp_path / "junk.pt")
    assert "damaged" in message or "truncated" in message
    assert "--trust-checkpoint" not in message


class Intruder:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_checkpoint_runs_only_if_trusted(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    write(path, extra_state={"intruder": Intruder(marker)})
    message = loading(path)
    assert "--trust-checkpoint" in message
    assert "mkdir" in message
    assert not marker.exists()
    # it would have run
    assert tiny_checkpoints.load("transformer", path, trust=True).family == "transformer"
    assert marker.exists()


def test_code_in_a_plain_pickle_does_not_run(tmp_path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(Intruder(tmp_path / "marker"), protocol))
        loading(tmp_path / "evil.pt")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, tmp_path):
    weights = weights_of("transformer")
    weights["decoder.layers.0.fc1.weight"][3, 2] = value
    write(tmp_path / "nan.pt", model=weights)
    assert "NaN or infinite weights in decoder.layers.0.fc1.weight" in loading(tmp_path / "nan.pt")


def test_another_dictionary_is_refused(tmp_path):
    write(tmp_path / "tiny.pt")
    dictionaries = task(settings("transformer"))
    source, target = dictionaries.source_dictionary, dictionaries.target_dictionary
    with pytest.raises(StudyError, match="the encoder has 10 embeddings, the corpus's dictionary 12 symb"):
        load_model(tmp_path / "tiny.pt", target, target)
    with pytest.raises(StudyError, match="the decoder has 12 embeddings, the corpus's dictionary 10 symb"):
        load_model(tmp_path / "tiny.pt", source, source)


def test_other_architectures_are_refused(tmp_path):
    """A real convolutional model."""
    said = Namespace(arch="fconv", encoder_layers="[(8, 3)]", decoder_layers="[(8, 3)]", encoder_embed_dim=8)
    said.max_source_positions = said.max_target_positions = 20
    base_architecture(said)
    module = FConvModel.build_model(said, task({}))
    write(tmp_path / "fconv.pt", model=module.state_dict(), cfg={"model": said})
    message = loading(tmp_path / "fconv.pt")
    assert "architecture 'fconv' is not supported" in message
    assert "lstm and transformer" in message
    write(tmp_path / "fconv.pt", cfg={"model": {"arch": "perceptron"}})
    assert "architecture 'perceptron' is not supported" in loading(tmp_path / "fconv.pt")


@pytest.mark.parametrize(
    ("name", "option", "complaint"),
    [
        ("transformer", {"adaptive_softmax_cutoff": "6,8"}, "without adaptive softmax"),
        ("transformer", {"scale_resids": True}, "w_resid' is not supported"),
        (
            "lstm",
            {"adaptive_softmax_cutoff": "6,8", "criterion": "adaptive_loss"},
            "without adaptive softmax",
        ),
        ("transformer", {"no_cross_attention": True, "cross_self_attention": True}, "cross-self-attention"),
    ],
)
def test_extensions_that_the_decoder_does_not_know_are_refused(name, option, complaint, tmp_path):
    build, _ = MODELS[name]
    said = {"cfg": {"model": settings(name) | option}, "model": build(**option).state_dict()}
    write(tmp_path / "tiny.pt", name, **said)
    assert complaint in loading(tmp_path / "tiny.pt", name)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": None}, "no fairseq checkpoint: it has no 'model' entry"),
        ({"model": [1, 2]}, "no fairseq checkpoint: it has no 'model' entry"),
        ({"cfg": None}, "does not say which model it holds"),
        ({"cfg": {"model": {}}}, "architecture None is not supported"),
        ({"cfg": {"model": settings("transformer 3 layers")}}, "does not fit its own description"),
        ({"cfg": {"model": settings("lstm")}}, "does not fit its own description"),
        ({"model": {"encoder.embed_tokens.weight": torch.zeros(10, 8)}}, "does not fit its own description"),
    ],
)
def test_checkpoints_that_make_no_sense_are_refused(changes, complaint, tmp_path):
    write(tmp_path / "tiny.pt", **changes)
    assert complaint in loading(tmp_path / "tiny.pt")


def test_what_is_no_dictionary_is_refused(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    assert "no fairseq checkpoint" in loading(tmp_path / "list.pt")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """Files may grow to 4 KB and no further; the checkpoint takes more."""
    _, model = tiny_checkpoints.tiny("transformer", tmp_path)
    model.save(tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    assert len(before) > 4096
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StudyError, match=r"could not write .*model\.pt.*free space"):
            model.save(tmp_path / "model.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "model.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "tiny.pt"]
    model.save(tmp_path / "model.pt")


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path, drafts = tmp_path / "file.txt", []

    def complete(draft: Path) -> None:
        draft.write_text("old")
        drafts.append(draft.stat().st_ino)

    write_atomically(path, complete)
    assert path.stat().st_ino == drafts[0]  # renamed: at no time is there a part of it under its name

    def interrupted(draft: Path) -> None:
        draft.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_into_a_missing_folder_is_refused(tmp_path):
    _, model = tiny_checkpoints.tiny("lstm", tmp_path)
    with pytest.raises(StudyError, match="could not write"):
        model.save(tmp_path / "missing" / "model.pt")
