"""Networks as people bring them: for each case that breaks a hook, the test that shows it does not.

Some are here, the others in the file that is named.

What follows a module, and what it gives
    an in-place operation follows ......... hooks/test_forward.py: test_the_output_is_untouched_and_an_in_place_operation_changes_no_row
    a hook that returns a value ........... hooks/test_hook.py: test_the_output_is_the_same_object
    a call by keywords alone .............. hooks/test_forward.py: test_calls_by_keywords_alone
    dictionaries and tuples, by default ... hooks/test_forward.py: test_dictionaries_and_tuples
    dictionaries and tuples, by a path .... test_a_path_leads_to_another_output
    packed sequences ...................... hooks/test_hook.py: test_packed_sequences_say_whose_each_entry_is
    nested tensors ........................ hooks/test_forward.py: test_nested_tensors_inside_a_transformer_are_refused_with_advice

How often it is called
    several times in a forward pass ....... hooks/test_forward.py: test_calls_of_a_shared_module_are_layers_of_their_own
    the same, as positions of one layer ... hooks/test_forward.py: test_calls_can_be_merged_however_many_they_are
    a number of calls that changes ........ hooks/test_forward.py: test_a_number_of_calls_that_changes_is_an_error
    several forward passes in a batch ..... hooks/test_forward.py: test_several_forward_passes_in_one_batch_add_positions
    a generation without a cache .......... test_a_generation_that_reads_all_anew_is_one_batch
    a generation with a cache ............. test_a_generation_that_remembers_is_one_batch
    a method of the model, not forward .... hooks/test_forward.py: test_a_part_of_the_model_can_be_called_alone
    a retry after an error ................ hooks/test_forward.py: test_a_forward_pass_that_is_retried_in_its_batch_is_recorded_once
    smaller batches after an error ........ test_a_batch_that_is_cut_in_two_after_an_error
    accumulation of gradients ............. test_accumulation_of_gradients_is_one_batch_a_forward_pass
    activation checkpointing .............. hooks/test_forward.py: test_what_checkpointing_runs_again_is_not_recorded_again
    a model that calls itself ............. hooks/test_forward.py: test_a_model_that_calls_itself_is_one_batch
    a captured model inside another one ... test_a_captured_model_inside_another_captured_one
    never, selected by class .............. test_recorder.py: test_layers_selected_by_class_that_never_run_are_left_out_with_one_warning
    never, selected by name ............... test_recorder.py: test_a_named_layer_that_does_not_run
    no more, later on ..................... test_recorder.py: test_a_layer_that_falls_silent
    now and then .......................... test_recorder.py: test_missing_layers_may_be_empty
    outside of any batch .................. hooks/test_forward.py: test_calls_outside_of_any_batch_are_counted_and_warned_of_once
    in two threads ........................ hooks/test_forward.py: test_two_threads_at_once_are_refused

Which axes, how many positions
    a last batch that is smaller .......... hooks/test_forward.py: test_each_outermost_forward_pass_is_a_batch
    padded tokens ......................... batches/test_columns.py: test_padding_is_not_stored
    some positions of each sample ......... packing/test_positions.py: test_rows_are_those_at_the_chosen_positions
    image sizes that vary ................. hooks/test_forward.py: test_image_sizes_may_vary
    sequence lengths that vary ............ test_sequence_lengths_may_vary
    LSTM .................................. hooks/test_forward.py: test_the_sample_axis_of_an_lstm
    GRU in both directions ................ test_a_gru_in_both_directions
    TransformerEncoder .................... hooks/test_forward.py: test_the_sample_axis_of_a_transformer
    Transformer, whole .................... test_the_sample_axis_of_a_whole_transformer
    MultiheadAttention .................... test_the_sample_axis_of_multihead_attention
    its projection, which never runs ...... hooks/test_forward.py: test_multihead_attention_never_runs_its_projection
    windows folded into the first axis .... hooks/test_forward.py: test_windows_folded_into_the_first_axis_are_positions
    heads folded into the first axis ...... test_heads_folded_into_the_first_axis_are_positions
    a wrong sample axis ................... hooks/test_forward.py: test_columns_of_the_wrong_axis_are_refused
    three axes of an activation ........... hooks/test_forward.py: test_an_activation_that_nothing_tells_of_needs_the_neuron_axis
    a lost fast path ...................... hooks/test_forward.py: test_a_hooked_transformer_leaves_its_fast_path_and_says_so_once

How the model runs
    gradient and inference modes .......... hooks/test_forward.py: test_gradient_modes
    autocast .............................. hooks/test_forward.py: test_autocast_gives_the_states_of_what_was_computed
    channels last ......................... hooks/test_forward.py: test_channels_last
    training .............................. hooks/test_forward.py: test_training_is_unaffected
    parameters from elsewhere ............. test_a_functional_call_with_other_parameters
    a lazy layer .......................... test_a_lazy_layer_that_learns_its_size_in_the_first_batch
    torch.compile, captured before ........ hooks/test_forward.py: test_a_compiled_model
    torch.compile, captured after ......... hooks/test_forward.py: test_a_model_that_was_compiled_and_called_before_is_an_error_with_advice
    a compiled part, captured after ....... test_a_part_that_was_compiled_and_called_before_is_an_error_with_advice
    the same, with reset_compiler ......... test_what_was_compiled_and_called_before_is_compiled_anew_on_request
    torch.compile without graph breaks .... test_compiling_without_graph_breaks_is_an_error_and_not_silence
    DistributedDataParallel ............... hooks/test_forward.py: test_distributed_data_parallel
    the same in two processes ............. test_ranks.py: test_two_processes_of_torch_distributed_write_one_run
    DataParallel .......................... selection/test_select.py: test_what_cannot_be_hooked_is_refused
    ScriptModule .......................... selection/test_select.py: test_scripted_models_are_refused
    torch.jit.trace ....................... test_tracing_a_captured_model_is_refused
    vmap and other transforms ............. test_function_transforms_are_refused
    copies, and pickled ones .............. hooks/test_forward.py: test_copies_of_a_captured_model_write_nothing
    saved whole ........................... hooks/test_hook.py: test_a_hooked_model_can_be_saved_whole
    a forked process ...................... hooks/test_forward.py: test_a_forked_child_writes_nothing

What is recorded beside
    columns that are known afterwards ..... test_recorder.py: test_rows_and_columns_arrive
    a threshold of another dtype .......... hooks/test_hook.py: test_the_threshold_follows_the_dtype_of_each_call
    the same samples every epoch .......... store/reading/test_ids.py: test_samples_of_different_steps_are_different
    samples that a sampler repeats ........ store/reading/test_ids.py: test_repeats_of_a_run_on_disk
    signs that say nothing ................ test_summary.py: test_hints
    the sanity check of Lightning ......... integrations/test_lightning.py: test_the_sanity_check_leaves_nothing
    exceptions within a trainer ........... integrations/test_evaluations.py: test_a_failure_closes_the_run_with_the_batches_that_had_ended
"""  # noqa: E501

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from watching import capture, hook_count, joined, packed, stored, watched

import tsstore
from tsstore.errors import OutputError, SelectionError, TsstoreWarning

EAGER = {"backend": "eager"}
HERE = Path(__file__)
RECORDING = HERE.parents[1]


@pytest.fixture
def compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_every_case_has_its_test():
    cases = re.findall(r"^    .+ \.\.+ (?:([\w/]+\.py): )?(test_\w+)$", __doc__, re.MULTILINE)
    assert len(cases) == len(re.findall(r" \.\.\.", __doc__))
    assert len({name for _, name in cases}) == len(cases)
    for file, name in cases:
        folder = RECORDING if (RECORDING / file).exists() else RECORDING.parent
        text = (folder / file if file else HERE).read_text(encoding="utf-8")
        assert f"\ndef {name}(" in text, (file, name)


# What a module gives


class Encoder(nn.Module):
    """Gives what models of libraries give: several tensors by name, and lists of them."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 9)

    def forward(self, values):
        sequence, (states, _) = self.lstm(values)
        hidden = self.head(sequence)
        return {"loss": None, "hidden_states": (sequence, hidden), "last": states[-1]}


def test_a_path_leads_to_another_output(path):
    model = Encoder()
    values = torch.randn(4, 7, 3)
    outputs = {"ls*": "1.0", "Encoder": "hidden_states.1"}
    options = {"outputs": outputs, "neuron_axis": {"Encoder": 2}}
    with capture(model, path, ["lstm", "Encoder"], **options):
        output = model(values)
    store = tsstore.open(path)
    assert store.samples == 4
    # Whatever batch_first says, last states are (layer, sample, neuron).
    _, (states, _) = model.lstm(values)
    np.testing.assert_array_equal(stored(path, "lstm"), packed(states, 2, 1).reshape(-1, 1))
    hidden = output["hidden_states"][1]
    np.testing.assert_array_equal(stored(path, "Encoder"), packed(hidden, 2).reshape(-1, 2))
    assert store["lstm"].attributes.output == "1.0"
    assert store["Encoder"].attributes.output == "hidden_states.1"


# How often it is called


class Tokens(nn.Module):
    """A small language model: of each token it knows those before it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix = nn.GRU(6, 9, batch_first=True)
        self.head = nn.Linear(9, 11)

    def forward(self, tokens, memory=None):
        mixed, memory = self.mix(self.embed(tokens), memory)
        return self.head(mixed), memory


def generate(model, tokens, length, remember):
    """As ``generate()`` of a library: a forward pass for each token, in a loop of its own."""
    memory, fresh = None, tokens
    for _ in range(length):
        logits, memory = model(fresh, memory)
        token = logits[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, token], dim=1)
        fresh = token if remember else tokens
        memory = memory if remember else None
    return tokens


def positions_of_each_sample(calls, neuron_axis=2):
    """Rows of several calls of one batch: those of a sample follow each other."""
    rows = np.concatenate([packed(call, neuron_axis) for call in calls], axis=1)
    return rows.reshape(-1, rows.shape[-1])


def check_generation(path, remember, positions):
    model = Tokens().eval()
    recorder = capture(model, path, ["embed", "head"])
    with torch.no_grad(), recorder, watched(model.embed, model.head) as (embed, head):
        for prompts in (torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[7, 8, 9]])):
            with recorder.batch(id=prompts[:, 0]):
                generate(model, prompts, 4, remember)
        assert recorder.statistics.batches == 2
    store = tsstore.open(path)
    assert (store.samples, store["embed"].positions) == (3, positions)
    for name, calls in (("embed", embed), ("head", head)):
        expected = [positions_of_each_sample(calls[:4]), positions_of_each_sample(calls[4:])]
        np.testing.assert_array_equal(stored(path, name), np.concatenate(expected))


def test_a_generation_that_reads_all_anew_is_one_batch(path):
    check_generation(path, remember=False, positions=3 + 4 + 5 + 6)


def test_a_generation_that_remembers_is_one_batch(path):
    check_generation(path, remember=True, positions=3 + 1 + 1 + 1)


class Scarce(nn.Module):
    """Runs out of memory, after its first layer, where a batch is larger than it can take."""

    def __init__(self, most):
        super().__init__()
        self.most = most
        self.first = nn.Linear(3, 9)

    def forward(self, values):
        values = self.first(values)
        if len(values) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return values


def test_a_batch_that_is_cut_in_two_after_an_error(path):
    model = Scarce(most=4)
    values = torch.randn(8, 3)
    with watched(model.first) as (first,), capture(model, path, "first") as recorder:
        with pytest.raises(torch.OutOfMemoryError), recorder.batch(id=range(8)):
            model(values)
        for start in (0, 4):
            with recorder.batch(id=range(start, start + 4)):
                model(values[start : start + 4])
    assert tsstore.open(path).column("id").tolist() == list(range(8))
    np.testing.assert_array_equal(stored(path, "first"), joined(first[1:]))


def test_accumulation_of_gradients_is_one_batch_a_forward_pass(path):
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watched(model[0]) as (first,), capture(model, path, "0") as recorder:
        for step in range(4):
            model(torch.randn(5, 3)).square().mean().backward()
            if step % 2:
                optimizer.step()
                optimizer.zero_grad()
        assert recorder.statistics.batches == 4
    np.testing.assert_array_equal(stored(path, "0"), joined(first))


def test_a_captured_model_inside_another_captured_one(path):
    inner = nn.Sequential(nn.Linear(3, 9), nn.ReLU())
    outer = nn.Sequential(inner, nn.Linear(9, 4))
    other = path.with_name("inner")
    with watched(inner[0], outer[1]) as (first, last):
        with capture(outer, path, ["0.0", "1"]), capture(inner, other, "0") as recorder:
            outer(torch.randn(5, 3))
            # Of the outer one it is a part that runs alone.
            with pytest.warns(TsstoreWarning, match="outside of any batch"):
                inner(torch.randn(2, 3))
            assert recorder.statistics.samples == 7
        assert hook_count(outer) == 2, "those that watch"
    np.testing.assert_array_equal(stored(other, "0"), joined(first))
    np.testing.assert_array_equal(stored(path, "0.0"), joined(first[:1]))
    np.testing.assert_array_equal(stored(path, "1"), joined(last))


# Which axes, how many positions


def test_sequence_lengths_may_vary(path):
    layer = nn.TransformerEncoderLayer(8, 2, 20, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    with watched(model.layers[0].linear1) as (seen,), capture(model, path, "*.linear1"):
        for samples, tokens in ((3, 5), (3, 9), (2, 1)):
            model(torch.randn(samples, tokens, 8))
    states = tsstore.open(path)["layers.0.linear1"]
    assert states.read_positions().tolist() == [5] * 3 + [9] * 3 + [1] * 2
    np.testing.assert_array_equal(states[:], joined(seen, 2))


def test_a_gru_in_both_directions(path):
    model = nn.GRU(3, 5, num_layers=2, bidirectional=True)
    with capture(model, path, nn.GRU) as recorder:
        output, _ = model(torch.randn(7, 4, 3))
        assert recorder.statistics.samples == 4
    states = tsstore.open(path)["GRU"]
    assert (states.neurons, states.positions) == (10, 7)
    np.testing.assert_array_equal(states[:], packed(output, 2, 1).reshape(-1, 2))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_sample_axis_of_a_whole_transformer(path, batch_first):
    model = nn.Transformer(8, 2, 1, 1, 20, dropout=0.0, batch_first=batch_first)
    encoder, decoder = model.encoder.layers[0].linear1, model.decoder.layers[0].linear1
    source, target = torch.randn(4, 6, 8), torch.randn(4, 3, 8)
    if not batch_first:
        source, target = source.transpose(0, 1), target.transpose(0, 1)
    with watched(encoder, decoder) as (first, second), capture(model, path, "*.linear1"):
        model(source, target)
    store = tsstore.open(path)
    assert store.samples == 4
    assert [states.positions for states in store.values()] == [6, 3]
    for states, seen in zip(store.values(), (first, second), strict=True):
        expected = packed(seen[0], 2, 0 if batch_first else 1)
        np.testing.assert_array_equal(states[:], expected.reshape(-1, 3))


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_sample_axis_of_multihead_attention(path, batch_first):
    model = nn.MultiheadAttention(8, 2, batch_first=batch_first)
    values = torch.randn(3, 6, 8) if batch_first else torch.randn(6, 3, 8)
    with capture(model, path, "MultiheadAttention"):
        output, _ = model(values, values, values)
    store = tsstore.open(path)
    assert (store.samples, store["MultiheadAttention"].positions) == (3, 6)
    expected = packed(output, 2, 0 if batch_first else 1).reshape(-1, 1)
    np.testing.assert_array_equal(stored(path, "MultiheadAttention"), expected)


class Heads(nn.Module):
    """Attention as it is often written: the heads of a sample follow each other in axis 0."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads
        self.value = nn.Linear(4, 5)

    def forward(self, values):
        samples, tokens, features = values.shape
        apart = values.reshape(samples, tokens, self.heads, features // self.heads)
        return self.value(apart.transpose(1, 2).reshape(samples * self.heads, tokens, -1))


@torch.no_grad()
def test_heads_folded_into_the_first_axis_are_positions(path):
    model = Heads(2).eval()
    with watched(model.value) as (value,), capture(model, path, "value"):
        for samples in (3, 1):
            model(torch.randn(samples, 6, 8))
    store = tsstore.open(path)
    assert (store.samples, store["value"].positions) == (4, 12)
    assert store["value"].attributes.position_shape == (2, 6)
    np.testing.assert_array_equal(stored(path, "value"), joined(value, 2))


# How the model runs


def test_a_functional_call_with_other_parameters(path):
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU())
    others = {name: torch.randn_like(value) for name, value in model.named_parameters()}
    values = torch.randn(5, 3)
    with capture(model, path, "0"):
        torch.func.functional_call(model, others, (values,))
    expected = nn.functional.linear(values, others["0.weight"], others["0.bias"])
    np.testing.assert_array_equal(stored(path, "0"), packed(expected)[:, 0])


def test_a_lazy_layer_that_learns_its_size_in_the_first_batch(path):
    model = nn.Sequential(nn.LazyLinear(9), nn.ReLU())
    with capture(model, path, "0"), watched(model[0]) as (first,):
        for samples in (3, 2):
            model(torch.randn(samples, 5))
    assert tsstore.open(path)["0"].neurons == 9
    np.testing.assert_array_equal(stored(path, "0"), joined(first))


def test_a_part_that_was_compiled_and_called_before_is_an_error_with_advice(path, compiler):
    model = nn.Sequential(nn.Linear(3, 9), torch.compile(nn.Linear(9, 4), **EAGER))
    advice = r"torch.compiler.reset\(\), or pass reset_compiler=True"
    with torch.no_grad():
        model(torch.randn(2, 3))
        with capture(model, path, ["0", "1"]):
            with pytest.raises(SelectionError, match=f"1 was named but did not run.*{advice}"):
                model(torch.randn(2, 3))
            torch.compiler.reset()
            with watched(model[1]) as (last,):
                model(torch.randn(2, 3))
        np.testing.assert_array_equal(stored(path, "1"), joined(last))
        torch.compiler.reset()
        model(torch.randn(2, 3))
        warns = pytest.warns(TsstoreWarning, match=rf"{advice}\), are left out: 1$")
        with capture(model, path, nn.Linear, overwrite=True), warns:
            model(torch.randn(2, 3))


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_compiled_and_called_before_is_compiled_anew_on_request(path, compiler, whole):
    last = nn.Linear(9, 4)
    part = last if whole else torch.compile(last, **EAGER)
    model = nn.Sequential(nn.Linear(3, 9), part)
    called = torch.compile(model, **EAGER) if whole else model
    values = torch.randn(5, 3)
    with torch.no_grad():
        before = called(values)
        with watched(last) as (seen,), capture(called, path, ["0", "1"], reset_compiler=True):
            for rows in values.split(2):
                called(rows)
        torch.testing.assert_close(called(values), before)
    assert hook_count(model) == 0
    store = tsstore.open(path)
    assert (store.samples, store["0"].rows) == (5, 5)
    np.testing.assert_array_equal(stored(path, "1"), joined(seen))


def test_compiling_without_graph_breaks_is_an_error_and_not_silence(path, compiler):
    model = nn.Sequential(nn.Linear(3, 9))
    compiled = torch.compile(model, fullgraph=True, **EAGER)
    with torch.no_grad(), capture(compiled, path, "0") as recorder:
        with pytest.raises(torch._dynamo.exc.Unsupported, match="ModelHook"):
            compiled(torch.randn(2, 3))
        assert recorder.statistics.batches == 0


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)
def test_tracing_a_captured_model_is_refused(path):
    model = nn.Sequential(nn.Linear(3, 9))
    with capture(model, path, "0") as recorder:
        with pytest.raises(OutputError, match=r"0: .*torch.jit.trace.*outside of that"):
            torch.jit.trace(model, torch.randn(2, 3))
        model(torch.randn(2, 3))
        assert recorder.statistics.samples == 2


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.jacrev])
def test_function_transforms_are_refused(path, transform):
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU())
    with watched(model[0]) as (first,), capture(model, path, "0") as recorder:
        with pytest.raises(OutputError, match=r"0: .*torch.func.*call the model outside of that"):
            transform(model)(torch.randn(2, 4, 3))
        first.clear()
        model(torch.randn(2, 3))
        assert recorder.statistics.samples == 2
    np.testing.assert_array_equal(stored(path, "0"), joined(first))
