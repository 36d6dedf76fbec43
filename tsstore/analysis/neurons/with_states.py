"""States and single neurons of a run, counted as its rows are read once."""

from __future__ import annotations

from dataclasses import replace

from tsstore.analysis.analyze import chosen_run
from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.groups.analyze import analyze_groups
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.neurons.count import of_layer
from tsstore.analysis.neurons.firing import layer_pass
from tsstore.analysis.neurons.results import Neurons
from tsstore.analysis.request import Layers, Request, Run
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
