"""The benchmark: its arithmetic by hand, its rivals on the small corpus."""

import json
import os

import pytest
import torch
from conftest import MODELS, SENTENCES

from experiments.bench import __main__ as bench
from experiments.bench import machine, race, rows, searches, speed
from experiments.bench.context import Context, Skipped, figures
from experiments.bench.race import Contender, Setting, deal, sweep, tokens
from experiments.bench.rival_ct2 import CTranslate2, convert, why_not
from experiments.bench.roofline import Product, Rates, allowed, macs, products, ways
from experiments.bench.workers import Layout, Workers
from grouping.anatomy import ModelDescription
from grouping.errors import StudyError
from harness.cli import guarded
from harness.environment import parse_cpuinfo
from harness.records import Evaluation
from harness.sentences import search_decoding

ONE = Layout(1, 1)


def row(figure: str, value: float, **more) -> rows.Row:
    return {"id": figure, "model": "m", "rival": "r", "value": value, "low": value, "high": value, **more}


@pytest.mark.parametrize(
    ("ours", "rival", "expected"),
    [
        # 2, 4, 3
        ([10, 20, 30], [5, 5, 10], {"value": 3, "low": 2, "high": 4}),
        # 1, 2, 4, 0.5: the median of an even number lies between the middle two
        ([1, 2, 4, 1], [1, 1, 1, 2], {"value": 1.5, "low": 0.5, "high": 4}),
        ([7], [2], {"value": 3.5, "low": 3.5, "high": 3.5}),
    ],
)
def test_ratios_are_taken_pair_by_pair(ours, rival, expected):
    assert rows.ratios(ours, rival) == expected


def test_new_rows_replace_all_of_their_ids_and_no_others():
    before = [row("b", 1), row("b", 2), row("c", 3), row("a", 4)]
    assert rows.merged(before, [row("b", 5)]) == [row("a", 4), row("b", 5), row("c", 3)]
    assert rows.merged([], [row("b", 2), row("a", 1), row("b", 1)]) == [row("a", 1), row("b", 2), row("b", 1)]
    assert rows.merged([row("a", 1)], []) == [row("a", 1)]


def test_the_file_is_merged_and_stays_valid(tmp_path):
    path = tmp_path / "results" / "bench.json"
    assert rows.read(path) == []
    rows.keep(path, [row("a", 1), row("b", 2)])
    rows.keep(path, [row("b", 3)])
    assert json.loads(path.read_text()) == [row("a", 1), row("b", 3)]
    with pytest.raises(ValueError, match="not JSON compliant"):
        rows.keep(path, [row("a", float("nan"))])
    assert json.loads(path.read_text()) == [row("a", 1), row("b", 3)]
    assert [p.name for p in path.parent.iterdir()] == ["bench.json"]


@pytest.mark.parametrize("text", ["[", "{}", "[1]", '[{"model": "m"}]'])
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(StudyError, match="another"):
        rows.keep(path, [row("a", 1)])
    assert path.read_text() == text


def test_the_table_has_a_line_for_each_row():
    full = {"ours": "float32", "ours_tokens_per_s": 12345.6, "rival_tokens_per_s": 1000, "identical": 0.995}
    shown = rows.table([row("a", 12.3456, **full, ours_bleu=26.094, rival_bleu=26.1), row("roofline", 0.5)])
    head, first, second = (" ".join(line.split()) for line in shown.splitlines())
    assert head == " ".join(rows.COLUMNS)
    assert first == "a m float32 r 12.35 12.35 12.35 12,346 1,000 99.5% 26.09 26.10"
    assert second == "roofline m r 0.50 0.50 0.50"


def test_sentences_are_dealt_longest_first():
    # in the order of lengths: sentences 1, 3 (9 tokens), 4 (7), 2 (5), 0 (3)
    assert deal([3, 9, 5, 9, 7], 2) == [[1, 4, 0], [3, 2]]
    assert deal([3, 9, 5], 1) == [[1, 2, 0]]


def test_tokens_count_ends_of_sentences():
    assert tokens([[5, 6], [], [7]]) == 6


def evaluation(size: float, feasible: bool, tokens: int, computed: int) -> Evaluation:
    values = {"index": 0, "stage": "search", "knobs": [size], "how": "translated", "score": size}
    values |= {"size": size, "feasible": feasible, "tokens": tokens, "tokens_computed": computed}
    blank = dict.fromkeys(("bleu", "drop", "bound", "standard_error"))
    return Evaluation(**values, **blank, sentences=1, seconds=0.0)


def test_tokens_are_counted_until_the_size_is_reached():
    found = [evaluation(0.9, True, 10, 10), evaluation(0.6, False, 20, 5), evaluation(0.9, True, 10, 0)]
    found += [evaluation(0.7, True, 30, 30), evaluation(0.5, True, 40, 40)]
    # what is infeasible does not count as reached, what was asked for before it does
    assert searches.tokens_until(found, 0.7) == 10 + 5 + 0 + 30
    assert searches.tokens_until(found, 0.7, memory=False) == 10 + 20 + 10 + 30
    assert searches.tokens_until(found, 0.95) == 10
    assert searches.tokens_until(found, 0.4) is None


def test_what_is_told_of_the_processor():
    text = "processor\t: 0\nmodel name\t: A 9\nflags\t: fpu avx512_bf16 avx2\n\nmodel name\t: B\n"
    assert parse_cpuinfo(text) == ("A 9", ["avx2", "avx512_bf16"])
    assert parse_cpuinfo("") == ("", [])
    assert set(machine.machine(2)) == {"cpu", "cores", "flags"}
    assert machine.versions()["torch"]


def test_a_precision_counts_where_the_processor_has_it(monkeypatch):
    every = ("float32", "bfloat16", "float16", "int8")
    for units, expected in {
        "avx512_bf16": ["bfloat16"],
        "avx_vnni": ["int8"],
        "avx2": ["int8"],
        "avx512_fp16": ["float16"],
    }.items():
        monkeypatch.setattr(machine, "machine", lambda cores, units=units: {"flags": ["amx_tile", units]})
        assert [p for p in every if machine.multiplies(p)] == ["float32", *expected]


class Table:
    """In place of a runner: tokens/s from a table of (processes, rows)."""

    speeds: dict[tuple[int, int], float] = {}
    log: list[tuple[int, int]] = []
    open = 0

    def __init__(self, contender, layout, lengths):
        self.layout, self.batch = layout, {}

    def prepare(self, batch):
        self.batch = batch

    warm = race.Runner.warm

    def run(self):
        self.log.append((self.layout.processes, self.batch["rows"]))
        return self.speeds[self.log[-1]]

    def __enter__(self):
        Table.open += 1
        return self

    def __exit__(self, *error):
        Table.open -= 1


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(race, "Runner", Table)
    monkeypatch.setattr(race, "SETTLE", 0)
    monkeypatch.setattr(Table, "log", [])
    return Table


@pytest.mark.parametrize(("fast", "slow"), [(1, 2), (2, 1)])
def test_the_sweep_finds_the_fastest_setting(table, monkeypatch, fast, slow):
    # alone with the first batch the slow layout loses, so that its best batch is never tried
    speeds = {(fast, 64): 100, (slow, 64): 90, (fast, 32): 120, (fast, 128): 110, (slow, 32): 999}
    monkeypatch.setattr(Table, "speeds", speeds)
    batches = [{"rows": 64}, {"rows": 32}, {"rows": 128}]
    contender = Contender("ours", "float32", "", {}, [Layout(1, 2), Layout(2, 1)], batches)
    ticks: list[int] = []
    found = sweep(contender, [3, 2], lambda: ticks.append(1))
    assert (found.speed, found.layout, found.batch) == (120, Layout(fast, slow), {"rows": 32})
    assert len(found.tried) == len(ticks) == contender.tries == 4
    assert {"processes": slow, "threads": fast, "inner": 1, "rows": 64, "tokens_per_s": 90} in found.tried
    assert table.open == 0


def test_contenders_take_turns(table, monkeypatch):
    monkeypatch.setattr(Table, "speeds", {(1, 8): 5.0, (2, 8): 7.0})
    runners = [Table(None, Layout(count, 1), []) for count in (1, 2)]
    for runner in runners:
        runner.prepare({"rows": 8})
    assert race.race(runners, 3, lambda: None) == [[5.0] * 3, [7.0] * 3]
    assert table.log == [(1, 8), (2, 8)] * 3


ATTENTION = {f"{part}_proj.weight": (2, 2) for part in ("k", "v", "q", "out")}
FEED_FORWARD = {"fc1.weight": (3, 2), "fc1.bias": (3,), "fc2.weight": (2, 3), "final_layer_norm.weight": (2,)}
TRANSFORMER = {
    **{f"{side}.embed_tokens.weight": (5, 2) for side in ("encoder", "decoder")},
    "encoder.embed_positions.weight": (9, 2),
    **{f"{side}.layers.0.self_attn.{n}": s for side in ("encoder", "decoder") for n, s in ATTENTION.items()},
    **{f"decoder.layers.0.encoder_attn.{n}": s for n, s in ATTENTION.items()},
    **{f"{side}.layers.0.{n}": s for side in ("encoder", "decoder") for n, s in FEED_FORWARD.items()},
    "decoder.output_projection.weight": (5, 2),
}
LSTM = {
    **{f"{side}.embed_tokens.weight": (5, 3) for side in ("encoder", "decoder")},
    **{f"encoder.lstm.weight_ih_l0{way}": (8, 3) for way in ("", "_reverse")},
    **{f"encoder.lstm.weight_hh_l0{way}": (8, 2) for way in ("", "_reverse")},
    **{f"decoder.encoder_{state}_proj.weight": (2, 4) for state in ("hidden", "cell")},
    "decoder.layers.0.weight_ih": (8, 5),
    "decoder.layers.0.weight_hh": (8, 2),
    "decoder.layers.0.bias_ih": (8,),
    "decoder.attention.input_proj.weight": (4, 2),
    "decoder.attention.output_proj.weight": (2, 6),
    "decoder.fc_out.weight": (5, 2),
}


def described(shapes: dict) -> ModelDescription:
    return ModelDescription("any", shapes, {}, {}, {})


def test_products_of_a_transformer_by_hand():
    found = products(described(TRANSFORMER))
    # encoder: 4 projections of 4, 6 + 6 of feed-forward; keys and values of the decoder's look at it: 4 + 4
    assert macs(found, "source") == 16 + 12 + 8
    # self-attention 16, query and output of the other 8, feed-forward 12, projection 10
    assert macs(found, "target") == 16 + 8 + 12 + 10
    assert macs(found, "sentence") == 0
    joined = [(p.outputs, p.inputs) for p in found if p.per == "target"]
    assert sorted(joined) == [(2, 2), (2, 2), (2, 2), (2, 3), (3, 2), (5, 2), (6, 2)]
    # 10 source tokens and 5 target tokens: 2·(36·10 + 46·5) FLOP, in 1.18 s at 1000 FLOP/s
    assert allowed(found, {"source": 10, "target": 5, "sentence": 2}, 1000) == pytest.approx(5 / 1.18)


def test_products_of_an_lstm_by_hand():
    found = products(described(LSTM))
    assert macs(found, "source") == 2 * (8 * 3 + 8 * 2)
    assert macs(found, "sentence") == 2 * (2 * 4)
    # the cell reads word, feed and state at once; attention, its output, projection
    assert macs(found, "target") == 8 * 7 + 4 * 2 + 2 * 6 + 5 * 2
    assert Product(8, 7, "target") in found
    tied = {name: shape for name, shape in LSTM.items() if "fc_out" not in name}
    # the embedding is the projection, too
    assert macs(products(described(tied)), "target") == 8 * 7 + 4 * 2 + 2 * 6 + 5 * 3


@pytest.mark.parametrize("model", ["transformer", "rnnsearch"])
def test_every_weight_of_a_shipped_model_multiplies_once(studies, model):
    described = studies(model).model.description
    matrices = sum(
        shape[0] * shape[1]
        for name, shape in described.shapes.items()
        if len(shape) == 2 and "embed" not in name
    )
    assert sum(product.macs for product in products(described)) == matrices


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_every_way_to_multiply_is_tried():
    x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    # rows 0 1 2 and 3 4 5 with 0 1 2, 3 4 5, 6 7 8, 9 10 11
    products = [multiply().tolist() for multiply in ways(x, weight)]
    assert products == [[[5, 14, 23, 32], [14, 50, 86, 122]]] * 3


def test_a_measured_rate_is_that_of_a_processor():
    found = [Product(64, 32, "target"), Product(64, 32, "target"), Product(8, 8, "target")]
    for precision in ("float32", "bfloat16"):
        assert 1e6 < Rates(ONE, found, precision).measure() < 1e14


#: stands in for a program; a module of its own, because a process that imports this one loads torch
PROBE = """
import os, signal, time
from grouping.errors import StudyError

class Probe:
    def __init__(self, layout, says=None):
        if says:
            raise StudyError(says)

    def environment(self, number):
        return number, {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "KMP_BLOCKTIME")}

    def sleep(self, seconds):
        time.sleep(seconds)

    def fail(self):
        raise ValueError("a bug")

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_get_threads_of_their_own_and_tell_how_long_they_took(monkeypatch, tmp_path):
    (tmp_path / "bench_probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("KMP_BLOCKTIME", "1")
    with Workers("bench_probe:Probe", {}, Layout(2, 3)) as workers:
        assert os.environ["OMP_NUM_THREADS"] == "7"
        said = workers.call("environment", [10, 20]).answers
        assert said == [(n, {"OMP_NUM_THREADS": "3", "KMP_BLOCKTIME": None}) for n in (10, 20)]
        assert 0.3 <= workers.call("sleep", [0.1, 0.3]).seconds < 3
        with pytest.raises(RuntimeError, match="ValueError: a bug"):
            workers.call("fail")
    with pytest.raises(StudyError, match="^not so$"):
        Workers("bench_probe:Probe", {"says": "not so"}, ONE)
    with Workers("bench_probe:Probe", {}, ONE) as workers:
        for _ in range(2):
            with pytest.raises(StudyError, match="was killed"):
                workers.call("die")


def searched(study, beam: int) -> list[list[int]]:
    """Our hypotheses of the search set."""
    return study.translator.translate(study.corpus.source_tokens("search"), search_decoding(beam)).hypotheses


@pytest.mark.parametrize("beam", [1, 5])
@pytest.mark.parametrize("model", ["transformer", "rnnsearch"])
def test_fairseq_says_what_we_say(studies, small, tmp_path, model, beam):
    from experiments.bench.rival_fairseq import FairseqGenerate

    study = studies(model)
    study.model.save(tmp_path / "model.pt")
    rival = FairseqGenerate(ONE, tmp_path / "model.pt", small, "search", beam, "float32")
    expected = searched(study, beam)
    assert len({tuple(words) for words in expected}) > SENTENCES["search"] / 2
    for numbers, batch in ((range(20), {"max_tokens": 60}), ([7, 3, 11], {"batch_size": 2})):
        rival.prepare(numbers, batch)
        assert len(rival.samples) > 1
        rival.translate()
        assert rival.hypotheses() == [expected[i] for i in numbers]


def test_ctranslate2_says_what_we_say(studies, small, tmp_path):
    pytest.importorskip("ctranslate2")
    study = studies("transformer")
    convert(study.model, study.corpus, tmp_path / "ct2")
    expected = searched(study, 1)
    for layout in (ONE, Layout(1, 1, inner=2)):
        rival = CTranslate2(layout, tmp_path / "ct2", small, "search", 1, "float32")
        for numbers in (range(20), [7, 3, 11]):
            rival.prepare(numbers, {"max_batch_size": 40})
            rival.translate()
            assert rival.hypotheses() == [expected[i] for i in numbers]


def test_a_missing_rival_is_told(monkeypatch, tmp_path, small):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why_not("float32") == "CTranslate2 is not installed: pip install ctranslate2"
    context = Context(MODELS, small, tmp_path, pairs=1, cores=1)
    with pytest.raises(Skipped, match="not installed"):
        figures.get("ct2_int8")(context)
    with pytest.raises(Skipped, match="no model 'none'"):
        context.checkpoint("none")


@pytest.fixture
def quick(monkeypatch, small, tmp_path) -> list[str]:
    """Options of a benchmark on one core, without its sweeps: they load every program twice."""
    monkeypatch.setattr(bench, "confine", lambda cores: 1)
    monkeypatch.setattr(speed, "OUR_PRECISIONS", ("float32",))

    def first(context: Context, contender: Contender, bar: object) -> Setting:
        return Setting(1.0, contender.layouts[0], contender.batches[0], [])

    monkeypatch.setattr(Context, "fastest", first)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "rnnsearch.pt").symlink_to(MODELS / "rnnsearch.pt")
    options = {"corpus": small, "models": tmp_path / "models", "out": tmp_path / "bench.json"}
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


@pytest.mark.long
def test_the_command_prints_a_table_and_keeps_other_results(quick, tmp_path, capsys):
    kept = [row("other", 1), row("greedy_rnnsearch", 2)]
    (tmp_path / "bench.json").write_text(json.dumps(kept))
    only = ["--only", "greedy_rnnsearch", "greedy_luong", "--pairs", "2"]
    assert guarded(lambda: bench.main([*quick, *only])) == 0
    shown, err = capsys.readouterr()
    assert err == f"greedy_luong is skipped: there is no model 'luong' in {tmp_path / 'models'}\n"
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found[-1] == row("other", 1)
    made = next(result for result in found if result["id"] == "greedy_rnnsearch")
    assert made["comparison"] == "float32, fastest"
    assert made["rival"] == "fairseq-generate float32"
    assert 0 < made["low"] <= made["value"] <= made["high"]
    assert made["identical"] == 1
    assert made["ours_bleu"] == made["rival_bleu"] > 10
    assert made["sentences"] == SENTENCES["search"]
    assert made["rival_settings"] == {"processes": 1, "threads": 1, "inner": 1, "batch_size": 64}
    assert made["ours_settings"].keys() == {"processes", "threads", "inner", "rows"}
    assert str(tmp_path) not in json.dumps(found)
    assert shown.splitlines()[1].split()[:2] == ["greedy_rnnsearch", "rnnsearch"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "greedy_transfomer"], "did you mean 'greedy_transformer'?"),
        (["--pairs", "0"], "--pairs 0 is not possible: give 1 or more"),
        (["--sentences", "1"], "--sentences 1 is not possible: give 2 or more"),
        (["--corpus", "nowhere"], "nowhere is no corpus folder"),
    ],
)
def test_what_is_impossible_is_told_in_one_line(quick, capsys, options, message):
    assert guarded(lambda: bench.main([*quick, *options])) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
