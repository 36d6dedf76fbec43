"""Samples that come more than once: copies count once, views of one id depend on each other."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import column
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import count, draw_layer, found, layer, numbered_rows, write_layers

import tsstore
from tsstore.analysis.digests import bytes_to_digest, digest_samples
from tsstore.analysis.random_groups import RandomGroups
from tsstore.analysis.repeats import HELD, choose_samples, settle_repeats
from tsstore.analysis.request import Request
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import AnalysisError, DamageError
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.reading.ids import same_ids
from tsstore.store.reading.store import open_store

MIB = 1 << 20


def write(path, ids, layers, parts=1, **columns):
    """Write a run of samples whose layers are given as a state a sample, in so many parts."""
    samples = len(next(iter(layers.values())))
    for own in np.array_split(np.arange(samples), parts):
        states = {
            name: layer(numbered_rows(np.asarray(rows)[own], 8)) for name, rows in layers.items()
        }
        given = {name: column(np.asarray(values)[own]) for name, values in columns.items()}
        if ids is not None:
            given["id"] = column([ids[sample] for sample in own])
        store = write_layers(path, states, columns=given)
    return store


def expected(ids, states):
    """Return which samples are copies of an earlier one of their id."""
    seen, copies = set(), []
    for pair in zip(ids, states, strict=True):
        copies.append(pair in seen)
        seen.add(pair)
    return np.array(copies, bool)


@pytest.fixture(params=["threads", "through files", "cluster"])
def scheduler(request, monkeypatch):
    if request.param == "cluster":
        return request.getfixturevalue("client")
    monkeypatch.setattr(LocalScheduler, "shared_memory", request.param == "threads")
    return "threads"


@pytest.mark.parametrize("make", [int, str])
def test_epochs_over_the_same_samples_are_counted_once(tmp_path, scheduler, make):
    once = [draw_layer(1, 80, 3), draw_layer(2, 80, 17)]
    ids = column(list(map(make, range(80))))
    for _ in range(4):
        layers = dict(zip("ab", once, strict=True))
        store = write_layers(tmp_path / "run", layers, columns={"id": ids, "label": np.arange(80)})
    analysis = tsstore.analyze(store, scheduler=scheduler, scratch=tmp_path)
    assert [found(result) for result in analysis.values()] == [count(part) for part in once]
    assert (analysis.samples, analysis.samples_left_out, analysis.repeated_samples) == (80, 240, 0)
    assert analysis["a"].clusters is None
    assert "240 samples repeat others (left out)." in repr(analysis)
    document = analysis.to_dict()
    assert (document["samples_left_out"], document["warnings"]) == (240, [])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=40))
def test_what_is_left_out_is_what_is_found_one_by_one(tmp_path_factory, drawn):
    ids, states = map(list, zip(*drawn, strict=True))
    store = write(tmp_path_factory.mktemp("runs") / "run", ids, {"a": states}, parts=2)
    repeats, dependent = settle_repeats(store, 64 * MIB, LocalScheduler(1))
    copies = expected(ids, states)
    new = len(set(ids))
    if not repeats.sample_filter.samples:
        # Where equal rows may be chance, all stay.
        assert repeats.staying == len(ids) - new
    else:
        assert repeats.sample_filter.samples == copies.sum()
        assert repeats.staying == (~copies).sum() - new
    members = sum(len(indices) for indices, _ in dependent.values())
    clusters = {n for _, number in dependent.values() for n in number.tolist()}
    assert members - len(clusters) == repeats.staying


@pytest.mark.parametrize("parts", [1, 3])
def test_views_of_one_id_stay_as_one_cluster(tmp_path, parts):
    ids = np.tile(np.arange(100), 3)
    # Of ids below 50 the third view is the first one again.
    states = np.where((np.arange(300) >= 200) & (ids < 50), np.arange(300) - 200, np.arange(300))
    store = write(tmp_path / "run", ids.tolist(), {"a": states}, parts=parts)
    analysis = tsstore.analyze(store)
    assert (analysis.samples, analysis.samples_left_out) == (250, 50)
    assert analysis.repeated_samples == 150
    assert analysis["a"].clusters == 100
    (line,) = analysis.warnings
    assert line.startswith("150 of 250 samples have the id of another one and other rows")
    assert "make 100 clusters" in line
    assert repr(analysis).splitlines()[1] == f"  {line}"
    groups = RandomGroups.of_parts(store.parts, "id")
    dealt = [groups.of_samples(part.directory, 0, part.samples) for part in store.parts]
    stays = ~expected(ids.tolist(), states.tolist())
    sizes = np.bincount(np.concatenate(dealt)[stays], minlength=32)
    assert analysis["a"].changes.samples.tolist() == sizes.tolist()
    without = tsstore.analyze(store, intervals=False)
    assert (without["a"].clusters, without.samples_left_out) == (100, 50)
    each = tsstore.analyze(store, repeats="each")
    assert (each.samples, each["a"].clusters, each.repeated_samples) == (300, None, 200)
    assert each.warnings == []


def test_layers_decide_together_what_a_copy_is(tmp_path):
    ids, states = [1, 1, 2, 2], {"a": [5, 5, 6, 6], "b": [7, 8, 9, 9]}
    store = write(tmp_path / "run", ids, states)
    both = tsstore.analyze(store)
    assert (both.samples_left_out, both.repeated_samples) == (1, 1)
    # Of those layers that are analysed.
    assert tsstore.analyze(store, "a").samples_left_out == 2


@pytest.mark.parametrize("states", [2, 16])
def test_where_equal_rows_are_chance_all_samples_stay(tmp_path, states):
    rng = np.random.default_rng(0)
    # Ids that start anew on each rank: samples of one id have nothing in common.
    ids = np.tile(np.arange(500), 2)
    store = write(tmp_path / "run", ids.tolist(), {"a": rng.integers(0, states, 1_000)})
    analysis = tsstore.analyze(store)
    assert (analysis.samples_left_out, analysis.repeated_samples) == (0, 500)
    assert analysis["a"].clusters == 500


def test_a_constant_id_tells_nothing_apart(tmp_path):
    states = np.random.default_rng(0).integers(0, 8, 2_000)
    store = write(tmp_path / "run", [7] * 2_000, {"a": states})
    analysis = tsstore.analyze(store)
    assert (analysis.samples, analysis["a"].clusters) == (2_000, 1)
    assert analysis["a"].sample_limited
    assert analysis.warnings
    each = tsstore.analyze(store, repeats="each")
    assert (each.samples, each["a"].sample_limited) == (2_000, False)


def test_ids_and_another_column_join_into_components(tmp_path):
    # 0 and 1 are of patient 5; id 1 links patient 6 to it, and id 3 patient 7 to 6. 8 is alone.
    ids, patients = [0, 1, 1, 3, 3, 4, 4], [5, 5, 6, 6, 7, 8, 8]
    store = write(tmp_path / "run", ids, {"a": np.arange(7)}, parts=2, patient=patients)
    analysis = tsstore.analyze(store, dependent_by="patient")
    assert (analysis["a"].clusters, analysis.repeated_samples) == (2, 3)
    sizes = sorted(filter(None, analysis["a"].changes.samples.tolist()))
    assert sizes in ([2, 5], [7])


def test_the_old_name_of_dependent_by(tmp_path):
    store = write(tmp_path / "run", [1, 2, 3], {"a": [1, 2, 3]}, patient=[1, 1, 2])
    with pytest.warns(DeprecationWarning, match="cluster= is called dependent_by= now"):
        assert tsstore.analyze(store, cluster="patient")["a"].clusters == 2
    with pytest.warns(DeprecationWarning, match="dependent_by"):
        tsstore.plan(store, cluster="patient")
    with pytest.raises(AnalysisError, match="pass dependent_by= alone"):
        tsstore.analyze(store, cluster="patient", dependent_by="patient")


def test_an_answer_that_is_none_is_refused(tmp_path):
    store = write(tmp_path / "run", [1, 2, 3], {"a": [1, 2, 3]})
    for function in (tsstore.analyze, tsstore.plan):
        with pytest.raises(AnalysisError, match="repeats is 'twice'; expected 'once' or 'each'"):
            function(store, repeats="twice")


def test_the_same_id_at_another_step_is_another_sample(tmp_path):
    for step in (1, 2):
        columns = {"id": np.arange(20) % 10}
        states = {"a": layer(numbered_rows(np.arange(20) % 10, 8))}
        write_layers(tmp_path / "run", states, columns=columns, part=PartAttributes(step=step))
    same = same_ids(open_store(tmp_path / "run").parts)
    assert (same.samples, same.repeats, len(set(same.number))) == (40, 20, 20)
    analysis = tsstore.analyze(open_store(tmp_path / "run").at_step(2))
    assert (analysis.samples, analysis.samples_left_out) == (10, 10)


def test_only_samples_of_repeated_ids_are_read_and_no_layer_more_than_it_takes(
    tmp_path, monkeypatch
):
    states = {"a": np.arange(60), "b": np.arange(60)}
    store = write(tmp_path / "run", [*range(59), 58], states)
    read = []
    original = tsstore.store.chunked.reader.CommittedArray.read

    def note(self, first, last, *others):
        if "states" in self.paths.values:
            read.append((self.paths.values, last - first))
        return original(self, first, last, *others)

    monkeypatch.setattr(tsstore.store.chunked.reader.CommittedArray, "read", note)
    settle_repeats(store, 64 * MIB, LocalScheduler(1))
    assert [(path.split("/")[-2], rows) for path, rows in read] == [("0000-a", 2)]


def test_samples_without_rows_are_like_each_other(tmp_path):
    rows = draw_layer(3, 30, 2)
    for number, part in enumerate((rows, layer(np.zeros((0, 2), np.uint8), [0] * 30))):
        options = {"part": PartAttributes(number, missing="empty")}
        store = write_layers(
            tmp_path / "run", {"a": part, "b": rows}, columns={"id": np.arange(30)}, **options
        )
    digests = digest_samples(same_ids(store.parts), [store["a"]], 64 * MIB, LocalScheduler(1))
    alike = (digests[:30] == digests[30:]).all(axis=1)
    assert alike.tolist() == (rows.positions == 0).tolist()
    found, _ = settle_repeats(store.select("b"), 64 * MIB, LocalScheduler(1))
    assert found.sample_filter.samples == 30


@pytest.mark.usefixtures("small_sizes")
def test_digests_are_the_same_whatever_the_pieces(tmp_path, monkeypatch):
    part = draw_layer(4, 200, 5, largest=40)
    for _ in range(2):
        store = write_layers(tmp_path / "run", {"a": part}, columns={"id": np.arange(200)})
    same = same_ids(store.parts)
    whole = digest_samples(same, [store["a"]], 64 * MIB, LocalScheduler(2))
    monkeypatch.setattr("tsstore.analysis.execution.reduction.PIECE_BYTES", 50)
    pieces = digest_samples(same, [store["a"]], 64 * MIB, LocalScheduler(2))
    assert np.array_equal(whole, pieces)
    assert np.array_equal(whole[:200], whole[200:])
    samples = [rows.tobytes() for rows in np.split(part.rows, np.cumsum(part.positions)[:-1])]
    assert len(np.unique(whole, axis=0)) == len(set(samples))


def test_rows_that_do_not_fit_into_the_memory_are_not_compared(tmp_path):
    store = write(tmp_path / "run", [1, 1, 2], {"a": [1, 1, 2]})
    repeats, _ = settle_repeats(store, 1 << 10, LocalScheduler(1))
    assert (repeats.staying, repeats.sample_filter.samples) == (None, 0)
    assert repeats.problem.startswith("comparing the rows of 2 samples takes")


def test_of_several_runs_all_that_is_known_is_held_of_the_memory(tmp_path):
    store = write(tmp_path / "run", [1, 1, 2], {"a": [1, 1, 2]})
    runner = LocalScheduler(1)
    both = choose_samples([store] * 2, Request(memory=64 * MIB), runner)
    assert [(one.sample_filter.samples, one.problem) for one in both] == [(1, "")] * 2
    enough = bytes_to_digest(same_ids(store.parts), [store["a"]], runner)
    first, second = choose_samples([store] * 2, Request(memory=enough), runner)
    assert (first.sample_filter.samples, first.problem) == (1, "")
    assert second.problem.startswith("comparing the rows of 2 samples takes")
    assert settle_repeats(store, 100, runner)[0].problem == (
        "it takes 144 bytes, and memory is 100 bytes"
    )


def test_damage_is_an_error_before_anything_is_left_out(tmp_path):
    store = write(tmp_path / "run", [1, 1, 2], {"a": [1, 1, 2]})
    next((tmp_path / "run").rglob("layers/0000-a/states/c/0/0")).write_bytes(b"damage" * 9)
    with pytest.raises(DamageError):
        settle_repeats(store, 64 * MIB, LocalScheduler(1))


def test_a_plan_reckons_with_all_that_may_be_left_out(tmp_path):
    store = write(tmp_path / "run", [1, 1, 2, 2, 3], {"a": [1, 1, 2, 5, 3]})
    analysis_plan = settle_repeats(store, 64 * MIB, LocalScheduler(1))[0].sample_filter.planned
    assert analysis_plan == HELD * 4
    assert tsstore.plan(store)["a"] != tsstore.plan(store, repeats="each")["a"]


def test_images_recorded_over_four_epochs_are_noticed_with_ids_and_without(tmp_path):
    torch = pytest.importorskip("torch")
    from tsstore.demo import mnist
    from tsstore.demo.model import load_lenet5

    model, (images, _) = load_lenet5(), mnist.test_images()
    inputs = torch.from_numpy(mnist.to_model_input(images[:250]))
    for name, epochs in (("once", 1), ("ids", 4), ("none", 4)):
        with (
            torch.inference_mode(),
            tsstore.capture(model, tmp_path / name, layers=["Conv2d"], durable=False) as recorder,
        ):
            for _ in range(epochs):
                ids = {} if name == "none" else {"id": np.arange(250)}
                with recorder.batch(**ids):
                    model(inputs)
    once, ids, none = (tsstore.analyze(tmp_path / name) for name in ("once", "ids", "none"))
    assert ids.samples_left_out == 750
    for name, layer_result in ids.items():
        assert found(layer_result) == found(once[name])
        assert layer_result.interval() == once[name].interval()
        assert layer_result.verdict == once[name].verdict
    for name, layer_result in none.items():
        assert layer_result.reason.startswith("The samples are no independent draws: ")
        assert layer_result.entropy_lower_bound < once[name].entropy()
    assert "The samples suffice" not in repr(none)


def test_what_one_layer_shows_of_the_samples_speaks_against_all_of_them(tmp_path):
    rng = np.random.default_rng(4)
    plain, telling = rng.integers(0, 8, 1_500), rng.permutation(1_500)
    four = {"plain": np.tile(plain, 4), "telling": np.tile(telling, 4)}
    alone = tsstore.analyze(write(tmp_path / "alone", None, {"plain": four["plain"]}))
    both = tsstore.analyze(write(tmp_path / "both", None, four))
    assert not alone["plain"].sample_limited
    assert "The samples are no independent draws: " in both["telling"].reason
    assert both["plain"].sample_limited
    assert "no independent draws: in layer telling 1,500 states were seen" in both["plain"].reason


def test_without_groups_known_clusters_leave_no_bound(tmp_path):
    states = {"a": np.arange(400) % 100}
    store = write(tmp_path / "run", [7] * 400, states)
    analysis = tsstore.analyze(store, intervals=False)
    assert analysis["a"].clusters == 1
    assert analysis["a"].entropy_lower_bound == 0.0
