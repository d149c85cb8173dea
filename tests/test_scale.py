"""Recipes of small dense rivals: widths in proportion, and as many parameters as were asked for."""

import json
from pathlib import Path

import pytest
from conftest import MODELS as SHIPPED
from conftest import ROOT
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from test_baselines import TINY, options_of

from experiments.baselines.__main__ import counting, main
from experiments.baselines.scale import RETRAINING, scaled
from experiments.baselines.train import HERE, MODELS, Recipe, read_recipe, train
from grouping.errors import StudyError
from harness.corpus.corpus import Corpus
from harness.corpus.prepare import Pieces, prepare
from harness.model import load_model

#: as README.md has them
PARAMETERS = {"transformer": 4_701_440, "rnnsearch": 4_376_784, "luong": 4_595_520}
WIDTHS = ("embed-dim", "hidden-size")


@pytest.fixture(scope="module")
def count():
    return counting(ROOT / "data" / "homeassistant.en-de")


def widths(recipe: Recipe) -> dict[str, int]:
    settings = {option[0][2:]: option[1:] for option in options_of(list(recipe.arguments))}
    return {name: int(value[0]) for name, value in settings.items() if name.endswith(WIDTHS)}


def transformer_by_hand(words: int, e: int, f: int) -> int:
    """4 + 2 post-norm layers, one matrix for embeddings and prediction, its padding row apart."""
    attention, norm, feed_forward = 4 * (e * e + e), 2 * e, 2 * e * f + f + e
    encoder = attention + norm + feed_forward + norm
    return (words - 1) * e + 4 * encoder + 2 * (encoder + attention + norm)


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_recipe_has_as_many_parameters_as_its_shipped_model(count, name):
    recipe = read_recipe(HERE / f"{name}.toml")
    assert count(recipe) == PARAMETERS[name]
    again = scaled(recipe, PARAMETERS[name], count, more_updates=0)
    assert again.arguments == recipe.arguments


def test_a_small_transformer_by_hand(count):
    recipe = read_recipe(HERE / "transformer.toml")
    words = sum(1 for _ in (SHIPPED / "dict.txt").open(encoding="utf-8")) + 4
    found = scaled(recipe, 1_500_000, count)
    size = widths(found)
    e, f = size["encoder-embed-dim"], size["encoder-ffn-embed-dim"]
    assert size == {
        **dict.fromkeys(("encoder-embed-dim", "decoder-embed-dim"), e),
        **dict.fromkeys(("encoder-ffn-embed-dim", "decoder-ffn-embed-dim"), f),
    }
    assert e % 4 == 0
    assert abs(f - 2 * e) <= 4  # half a step of the embedding's, doubled
    actual = transformer_by_hand(words, e, f)
    assert found.name == f"transformer-{actual}"
    # the next larger and the next smaller embedding are not nearer
    others = [transformer_by_hand(words, e + step, 2 * (e + step)) for step in (-4, 4)]
    assert all(abs(actual - 1_500_000) <= abs(other - 1_500_000) for other in others)


@pytest.mark.parametrize("name", ["rnnsearch", "luong"])
@pytest.mark.parametrize("parameters", [500_000, 2_345_678])
def test_layers_that_meet_still_do(count, name, parameters):
    recipe = read_recipe(HERE / f"{name}.toml")
    found, before = scaled(recipe, parameters, count), widths(recipe)
    after = widths(found)
    directions = 2 if "--encoder-bidirectional" in recipe.arguments else 1
    assert after["decoder-hidden-size"] == directions * after["encoder-hidden-size"]
    assert after["decoder-out-embed-dim"] == after["decoder-embed-dim"]
    ratios = [after[key] / before[key] for key in before]
    assert max(ratios) - min(ratios) < 0.01
    assert count(found) == pytest.approx(parameters, rel=0.01)
    # nothing else has changed, but 4,600 updates have become ten epochs of 165 more
    others = [
        {option for option in options_of(list(one.arguments)) if not option[0].endswith(WIDTHS)}
        for one in (recipe, found)
    ]
    longer = {("--max-update", "6250"), ("--total-num-update", "6250")}
    assert others[1] - others[0] == longer
    assert {option[0] for option in others[0] - others[1]} == {option[0] for option in longer}
    assert (found.threads, found.autocast, found.max_update) == (1, "bfloat16", 6250)


def test_an_epoch_of_retraining_is_as_many_updates_as_fairseq_makes_batches():
    data = str(ROOT / "data" / "homeassistant.en-de" / "bin")
    config = TranslationConfig(data=data, source_lang="en", target_lang="de", dataset_impl=None)
    task = TranslationTask.setup_task(config)
    task.load_dataset("train")
    batches = task.get_batch_iterator(task.dataset("train"), max_tokens=2000, required_batch_size_multiple=1)
    assert 10 * len(batches.next_epoch_itr()) == RETRAINING


def test_a_recipe_without_a_falling_learning_rate_is_longer_all_the_same():
    words = ("--arch", "lstm", *("--encoder-hidden-size", "64", "--decoder-hidden-size", "64"))
    recipe = Recipe("x", 1, "", (*words, "--max-update", "5"), 5)
    found = scaled(recipe, 100, lambda recipe: 100, more_updates=7)
    assert (found.arguments[-2:], found.max_update) == (("--max-update", "12"), 12)


def test_a_smaller_model_may_have_another_dropout(count):
    recipe = read_recipe(HERE / "luong.toml")
    same, other = (scaled(recipe, 1_000_000, count, dropout=dropout) for dropout in (0.25, 0.1))
    assert same == scaled(recipe, 1_000_000, count)
    assert other.name == f"{same.name}-dropout0.1"
    found = [(a, b) for a, b in zip(same.arguments, other.arguments, strict=True) if a != b]
    assert found == [("0.25", "0.1")]
    assert other.arguments[other.arguments.index("0.1") - 1] == "--dropout"


def test_what_cannot_be_had(count, capsys):
    recipe = read_recipe(HERE / "luong.toml")
    for parameters in (10, PARAMETERS["luong"] + 1):
        with pytest.raises(
            StudyError, match=f"^parameters {parameters} is not possible: luong has 4,595,520, "
        ):
            scaled(recipe, parameters, count)
    with pytest.raises(StudyError, match="^architecture fconv cannot be scaled: known are transformer, lstm"):
        scaled(Recipe("x", 1, "", ("--arch", "fconv"), 5), 1000, count)
    with pytest.raises(SystemExit):
        main(["--parameters", "1000000"])
    assert "--parameters: name one --model" in capsys.readouterr().err
    for wrong in (["--parameters", "1000000", "--more-updates", "-1"], ["--more-updates", "5"]):
        with pytest.raises(SystemExit):
            main(["--model", "luong", *wrong])
        assert "--more-updates: give a whole number of at least 0" in capsys.readouterr().err
    for wrong in (["--parameters", "1000000", "--dropout", "1"], ["--dropout", "0.1"]):
        with pytest.raises(SystemExit):
            main(["--model", "luong", *wrong])
        assert "--dropout: give a fraction from 0 to below 1, and --parameters" in capsys.readouterr().err
    assert main(["--model", "luong", "--parameters", "9", "--corpus", str(ROOT / "none")]) == 2
    assert "none is no corpus folder" in capsys.readouterr().err


def test_it_is_trained_into_a_folder_of_its_own(tmp_path):
    text = {split: [("a house", "ein Haus"), ("a door", "eine Tür")] * 2 for split in SPLITS}
    pieces = Pieces(SHIPPED / "bpe.model", SHIPPED / "dict.txt")
    prepare(text, tmp_path / "corpus", "en", "de", pieces=pieces)
    (tmp_path / "tiny.toml").write_text(TINY.replace("max-update = 6", "max-update = 1"))
    count = counting(tmp_path / "corpus")
    recipe = scaled(read_recipe(tmp_path / "tiny.toml"), 100_000, count, more_updates=1)
    (folder,) = train([recipe], tmp_path / "corpus", tmp_path / "out", seed=2, jobs=1)
    corpus = Corpus.open(tmp_path / "corpus")
    model = load_model(folder / "checkpoint_best.pt", corpus.source_dictionary, corpus.target_dictionary)
    padding = model.module.encoder.embed_tokens.embedding_dim
    assert folder == Path(tmp_path / "out" / f"tiny-{model.flat.numel() - padding}.seed2")
    assert model.flat.numel() == pytest.approx(100_000, rel=0.05)
    assert json.loads((folder / "done.json").read_text())["updates"] == 2
    assert "num_updates 2 " in (folder / "train.log").read_text()


SPLITS = ("train", "valid", "search", "confirm", "test")
