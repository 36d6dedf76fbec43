"""States and single neurons of a run, counted as its rows are read once; and another run."""

from __future__ import annotations

from dataclasses import replace

from tsstore.analysis.analyze import chosen_run
from tsstore.analysis.comparing.comparison import Comparison, common_layers, warnings_of
from tsstore.analysis.comparing.together import Together, analyze_together, memory_checks
from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.groups.analyze import analyze_groups
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.neurons.count import of_layer
from tsstore.analysis.neurons.firing import layer_pass
from tsstore.analysis.neurons.results import Neurons
from tsstore.analysis.refusals import all_fit
from tsstore.analysis.request import Layers, Request, Run, running
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.runs import analyze_runs


def analyze_with_neurons(
    store: Run, request: Request, layers: Layers = None
) -> tuple[Analysis | GroupedAnalysis, Neurons]:
    """Return what `analyze` finds in a run, and what `neurons` finds in all its samples together.

    Where the memory does not hold both at once, rows are read once more for the neurons.
    """
    run = chosen_run(store, layers, request)
    beside = Beside({name: (layer_pass(states),) for name, states in run.items()})
    request = replace(request, beside=beside)
    found: Analysis | GroupedAnalysis
    found = analyze_groups(run, request) if request.in_groups else analyze_runs([run], request)[0]
    counted = {name: of_layer(run[name], *beside.results[name]) for name in run}
    return found, Neurons(run.path, counted)


def compare_with_neurons(
    store: Run, other: Run, request: Request, layers: Layers = None
) -> tuple[Together, Comparison, Neurons]:
    """Return what is found in two runs, which bits differ, and what the first one's neurons did.

    The rows of both are read once, where they hold their samples in the same order and the memory
    holds what is made of them at once.
    """
    run = chosen_run(store, layers, request)
    second = chosen_run(other, list(run), replace(request, by=None, bins=None, window=None))
    pairs = common_layers(run, second, None)
    passes = {name: (layer_pass(states),) for name, states in run.items()}
    with running(request, run, second) as runner:
        all_fit(memory_checks(run, second, request, runner, passes))
        found, beside = analyze_together(run, second, request, runner, passes)
    counted = {name: of_layer(run[name], *beside.results[name]) for name in run}
    compared = Comparison((run.path, second.path), found.flips, None, warnings_of(pairs))
    return found, compared, Neurons(run.path, counted)
