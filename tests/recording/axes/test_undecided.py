from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.errors import OutputError
from tsstore.recording.axes.tensor import choose
from tsstore.recording.axes.undecided import Undecided, globs

ACTS = [f"blocks.{number}.mlp.act" for number in range(12)]
NORMS = [f"blocks.{number}.norm" for number in range(12)]


def message(undecided):
    with pytest.raises(OutputError) as error:
        undecided.check()
    return str(error.value)


def test_nothing_found_is_no_error():
    Undecided(ACTS).check()


def test_all_layers_are_in_one_error_with_one_line_to_paste():
    undecided = Undecided(ACTS + NORMS)
    for name in [*ACTS, ACTS[0]]:
        undecided.add("neuron_axis", name, "found (2, 3)", "-1")
    assert message(undecided) == (
        "blocks.0.mlp.act, blocks.1.mlp.act, blocks.2.mlp.act and 9 more: found (2, 3): say which "
        'axis holds the neurons, as in neuron_axis={"*.act": -1}, or leave out what are no '
        'activations of neurons: exclude=["*.act"]'
    )


def test_where_it_is_all_layers_no_name_is_needed():
    undecided = Undecided(ACTS)
    for name in ACTS:
        undecided.add("neuron_axis", name, "found (2, 3)", "-1")
    assert message(undecided).endswith("as in neuron_axis=-1")


def test_neurons_and_samples_are_in_the_same_error():
    undecided = Undecided(ACTS + NORMS)
    undecided.add("neuron_axis", "blocks.3.mlp.act", "no axis", "-1")
    undecided.add("sample_index", "blocks.3.norm", "six entries", '"interleaved"')
    found = message(undecided)
    assert 'neuron_axis={"blocks.3.mlp.act": -1}' in found
    assert 'sample_index={"blocks.3.norm": "interleaved"}' in found


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (ACTS, NORMS, ["*.act"]),
        (ACTS, [*NORMS, "head.act"], ["*.mlp.act"]),
        (ACTS[:2], ACTS[2:], ACTS[:2]),
        ([*ACTS, "drop"], NORMS, ["*.act", "drop"]),
        (["0.1.a", "0.2.a", "1.1.b"], ["1.1.a"], ["0.*", "1.1.b"]),
        (["a.0.x.1.y", "a.0.x.2.y"], ["a.1.x.1.y", "a.0.z"], ["a.0.x.*"]),
    ],
)
def test_globs_fit_exactly(names, others, expected):
    assert list(globs(names, others, dict.fromkeys(names, "-1"))) == expected


@given(data=st.data())
def test_each_layer_gets_its_value_and_no_other_gets_any(data):
    steps = st.lists(st.sampled_from(["0", "1", "12", "act", "mlp"]), min_size=1, max_size=4)
    all_names = data.draw(st.lists(steps.map(".".join), unique=True, min_size=1, max_size=8))
    values = {name: data.draw(st.sampled_from(["1", "-1"])) for name in all_names}
    names = [name for name in all_names if data.draw(st.booleans())]
    found = globs(names, set(all_names).difference(names), values)
    for name in all_names:
        fits = [value for glob, value in found.items() if fnmatchcase(name, glob)]
        assert (choose(found, name) if fits else None) == (values[name] if name in names else None)
