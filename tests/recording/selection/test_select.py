from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tsstore.errors import SelectionError
from tsstore.recording.selection.select import is_leaf, public_modules, select, unwrapped


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.second = Block()
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)


@pytest.fixture
def net():
    return Net()


def names(model, layers, **options):
    return [target.name for target in select(model, layers, **options)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("head", ["head"]),
        (["head", "first.conv"], ["first.conv", "head"]),
        ("*.conv", ["first.conv", "second.conv"]),
        ("first.*", ["first.conv", "first.act"]),
        ("Conv2d", ["first.conv", "second.conv"]),
        ("Batch*", ["norm"]),
        (nn.Conv2d, ["first.conv", "second.conv"]),
        (nn.modules.conv._ConvNd, ["first.conv", "second.conv"]),
        (Block, ["first", "second"]),
        (lambda name, module: name.endswith("act"), ["first.act", "second.act"]),
        (lambda name, module: isinstance(module, nn.Linear), ["head"]),
        ([nn.Linear, "first.act", "Conv2d"], ["first.conv", "first.act", "second.conv", "head"]),
        ((name for name in ["norm", "head"]), ["norm", "head"]),
        (Net, ["Net"]),
        ("Net", ["Net"]),
    ],
)
def test_selectors(net, layers, expected):
    assert names(net, layers) == expected


class SamePadding(nn.Conv2d):
    """What networks that were trained elsewhere bring along."""


class Strided(SamePadding):
    pass


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 4, 1)
        self.same = SamePadding(3, 4, 1)
        self.strided = Strided(3, 4, 1)
        self.weighted = weight_norm(nn.Conv2d(3, 4, 1))
        self.bounded = spectral_norm(SamePadding(3, 4, 1))
        self.line = nn.Conv1d(3, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2)


@pytest.mark.parametrize("kind", [nn.Conv2d, SamePadding, Strided, nn.Conv1d, nn.Linear, nn.ReLU6])
def test_a_class_name_means_what_the_class_means(kind):
    model = nn.Sequential(Convolutions(), nn.ReLU6(), nn.Hardtanh())
    expected = [name for name, module in model.named_modules() if isinstance(module, kind)]
    assert expected
    for selector in (kind, kind.__name__, kind.__name__[:-1] + "[" + kind.__name__[-1] + "]"):
        assert names(model, selector) == expected
        rest = names(model, lambda name, module: True, exclude=selector)
        assert not set(expected) & set(rest)


def test_subclasses_and_parametrised_classes_are_selected_by_the_class():
    every = ["plain", "same", "strided", "weighted", "bounded"]
    assert names(Convolutions(), "Conv2d") == every
    assert names(Convolutions(), "*Conv2d") == every
    assert names(Convolutions(), "Parametrized*") == ["weighted", "bounded"]


def test_what_every_module_is_derived_from_selects_nothing_by_a_part_of_its_name():
    assert names(Convolutions(), "*Conv1?") == ["line"]
    with pytest.raises(SelectionError, match="no module is named or matched by 'Mod\\*'"):
        select(Convolutions(), "Mod*")


def test_what_makes_a_layers_weights_is_no_layer():
    model = nn.Sequential(weight_norm(nn.Linear(2, 3)), nn.ModuleDict({"parametrizations": Net()}))
    found = dict(public_modules(model))
    assert list(found)[:3] == ["0", "1", "1.parametrizations"]
    assert is_leaf(found["0"])
    assert not is_leaf(found["1"])


def test_a_layer_that_is_sharded_is_still_what_it_was(process_group):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("this torch shards in another way")
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 2))
    fsdp.fully_shard(net[0], mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
    assert type(net[0]).__name__ == "FSDPConv2d"
    assert names(net, "Conv2d") == names(net, nn.Conv2d) == ["0"]


def test_a_module_itself_selects_it(net):
    assert names(net, net.head) == ["head"]
    assert names(net, [net.second, net.first.act]) == ["first.act", "second"]
    with pytest.raises(SelectionError, match="the selected Linear is no module of the model"):
        select(net, nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ("first.conv", ["first.act", "second.conv", "second.act"]),
        ("second.*", ["first.conv", "first.act"]),
        (nn.ReLU, ["first.conv", "second.conv"]),
        (["ReLU", "second.conv"], ["first.conv"]),
        (lambda name, module: name.startswith("f"), ["second.conv", "second.act"]),
    ],
)
def test_exclude_wins(net, exclude, expected):
    wanted = ["first.conv", nn.ReLU, "*.conv"]
    assert names(net, wanted, exclude=exclude) == expected


def test_places(net):
    after = select(net, "head")[0]
    assert (after.name, after.where, after.module) == ("head", "after", net.head)
    assert names(net, "head", where="before") == ["head:before"]
    both = select(net, "head", where="both")
    assert [(t.name, t.where) for t in both] == [("head:before", "before"), ("head", "after")]
    with pytest.raises(SelectionError, match="where is 'behind'; expected 'after'"):
        select(net, "head", where="behind")


def test_what_is_named_must_run_later(net):
    named = {t.name: t.named for t in select(net, ["head", nn.Conv2d, "*.act", net.norm])}
    assert named.pop("head")
    assert named.pop("norm")
    assert not any(named.values())


def test_chosen_axes_arrive_at_their_layers(net):
    targets = select(net, nn.ReLU, neuron_axis={"first.*": 2}, sample_axis={"second.act": 1})
    first, second = (target.axes for target in targets)
    assert (first.neuron_axis, first.sample_axis) == (2, None)
    assert (second.neuron_axis, second.sample_axis) == (None, 1)


def test_what_lies_in_a_time_first_module_is_time_first():
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    model = nn.ModuleDict({"encoder": layer, "head": nn.Linear(4, 2)})
    time_first = {t.name: t.axes.time_first for t in select(model, nn.Linear)}
    assert time_first["encoder.linear1"]
    assert not time_first["head"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("frist.conv", "no module is named or matched by 'frist.conv'; did you mean first.conv"),
        ("Conv2D", "did you mean Conv2d"),
        (["head", "zzz"], r"by 'zzz'; there are first.conv \(Conv2d\), .*tsstore.layers\(model\)"),
        ("zzz.*", "there are first.conv"),
        (None, r"no layer is selected; there are first.conv \(Conv2d\)"),
        ([], "no layer is selected"),
        (nn.LSTM, r"no layer is selected; .*head \(Linear\)"),
        (3, "3 selects no layer; expected a name"),
        ([None], "None selects no layer"),
    ],
)
def test_selecting_nothing_is_an_error_that_says_what_there_is(net, layers, message):
    with pytest.raises(SelectionError, match=message):
        select(net, layers)


def test_excluding_all_is_an_error(net):
    with pytest.raises(SelectionError, match="no layer is selected"):
        select(net, "head", exclude=nn.Linear)


def test_a_long_list_of_layers_is_cut():
    model = nn.Sequential(*[nn.ReLU() for _ in range(50)])
    with pytest.raises(SelectionError, match=r"39 \(ReLU\) and 10 more; see"):
        select(model, nn.Linear)


def test_a_shared_module_is_captured_once_under_the_name_that_was_given():
    model = nn.Module()
    model.a = model.b = nn.Linear(2, 2)
    model.c = nn.Sequential(model.a)
    assert [name for name, _ in public_modules(model)] == ["a", "b", "c", "c.0", "Module"]
    assert names(model, nn.Linear) == ["a"]
    assert names(model, "b") == ["b"]
    assert names(model, ["c.0", "b"]) == ["b"]


def test_names_without_what_torch_compile_adds(net):
    whole = torch.compile(net, backend="eager")
    assert names(whole, ["head", nn.Conv2d]) == ["first.conv", "second.conv", "head"]
    assert names(whole, Net) == ["Net"]
    assert unwrapped(whole) is net
    net.first = torch.compile(net.first, backend="eager")
    assert names(net, ["first.conv", Block]) == ["first", "first.conv", "second"]
    assert select(net, "first")[0].module is net.first._orig_mod


@pytest.fixture(scope="module")
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_names_without_what_distributed_data_parallel_adds(net, process_group):
    parallel = nn.parallel.DistributedDataParallel(net)
    assert names(parallel, ["head", nn.Conv2d]) == ["first.conv", "second.conv", "head"]
    assert names(parallel, Net) == ["Net"]
    assert names(torch.compile(parallel, backend="eager"), "first.*") == ["first.conv", "first.act"]
    assert unwrapped(torch.compile(parallel, backend="eager")) is net


def test_a_module_that_is_called_module_keeps_its_name():
    model = nn.ModuleDict({"module": nn.Sequential(nn.Linear(2, 2))})
    assert names(model, nn.Linear) == ["module.0"]


def test_what_cannot_be_hooked_is_refused(net):
    parallel = nn.DataParallel(net)
    with pytest.raises(SelectionError, match=r"DataParallel.*capture its \.module"):
        select(parallel, "head")
    with pytest.raises(SelectionError, match=r"DataParallel"):
        select(nn.Sequential(parallel), nn.Linear)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning"
)
def test_scripted_models_are_refused(net):
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(
        SelectionError, match=r"the model is a ScriptModule.*before torch.jit.script"
    ):
        select(scripted, "0")
    net.head = scripted
    with pytest.raises(SelectionError, match=r"head is a ScriptModule, which cannot be hooked"):
        select(net, "head")
    assert names(net, nn.BatchNorm2d) == ["norm"]


@pytest.mark.parametrize(
    ("module", "neurons", "parameters"),
    [
        (nn.Linear(6, 4), 4, 28),
        (nn.Linear(4, 4, bias=False), 4, 16),
        (nn.Conv2d(6, 4, 3), 4, 220),
        (nn.Conv2d(6, 4, 3, bias=False), 4, 216),
        (nn.Conv2d(6, 4, 3, groups=2), 4, 112),
        (nn.ConvTranspose2d(6, 4, 3), 4, 220),
        (nn.BatchNorm2d(4), 4, 8),
        (nn.Embedding(10, 4), 4, 40),
        (weight_norm(nn.Linear(6, 4)), 4, 32),
        (spectral_norm(nn.Linear(6, 4)), 4, 28),
        (nn.ReLU(), 4, 0),
        (nn.Sequential(nn.Linear(6, 4)), 4, 0),
        # Not each neuron has its share of these.
        (nn.PReLU(), 4, None),
        (nn.LSTM(4, 4, bias=False), 4, None),
        (nn.RNN(4, 4, 2), 4, None),
        (nn.MultiheadAttention(4, 2), 4, None),
        (nn.LazyLinear(4), 4, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_a_module_has_parameters_of_its_neurons(module, neurons, parameters):
    model = nn.ModuleList([module])
    counts = {
        target.where: target.parameters(neurons) for target in select(model, "0", where="both")
    }
    assert counts == {"before": 0, "after": parameters}
