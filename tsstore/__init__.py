"""Say how well a neural network uses its neurons.

tsstore streams the on/off states of a network's neurons to Zarr while it runs, and counts them
exactly, out of core::

    with tsstore.capture(model, "run.zarr", layers=["Conv2d"]) as recorder:
        for images, labels in loader:
            with recorder.batch(label=labels) as batch:
                batch.record(prediction=model(images).argmax(1))

    print(tsstore.analyze("run.zarr"))

Names are imported when they are first used: ``import tsstore`` is quick, and neither opening nor
analysing a store needs torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsstore.analysis.analyze import analyze
    from tsstore.analysis.comparing.comparison import Comparison, compare
    from tsstore.analysis.groups.information import Information, information
    from tsstore.analysis.groups.results import GroupedAnalysis
    from tsstore.analysis.groups.shared import SharedStates, shared_states
    from tsstore.analysis.neurons.count import neurons
    from tsstore.analysis.neurons.results import GroupedNeurons, Neurons
    from tsstore.analysis.planning.plan import plan
    from tsstore.analysis.planning.run_plan import RunPlan
    from tsstore.analysis.results.combining import Analyses, Combined, combine
    from tsstore.analysis.results.difference import Difference, difference
    from tsstore.analysis.results.layer import LayerResult
    from tsstore.analysis.results.network import Analysis
    from tsstore.analysis.schedulers import Threads
    from tsstore.analysis.states.export import export
    from tsstore.analysis.states.frequent import FrequentStates, states
    from tsstore.analysis.states.surprising import surprising
    from tsstore.analysis.steps import Steps, steps
    from tsstore.errors import AccessError, ResumeError, TsstoreError
    from tsstore.recording.capture import capture
    from tsstore.recording.recorder import Recorder
    from tsstore.recording.summary import layers
    from tsstore.reporting.page import report
    from tsstore.statistics.efficiency import aIQ, network_efficiency
    from tsstore.statistics.estimators import entropy
    from tsstore.statistics.spectrum import Spectrum
    from tsstore.store.maintenance.compact import compact
    from tsstore.store.maintenance.repair import repair
    from tsstore.store.maintenance.verify import verify
    from tsstore.store.reading.layer import LayerStates
    from tsstore.store.reading.store import StateStore
    from tsstore.store.reading.store import open_store as open
    from tsstore.tensorstate import (
        StateCaptureHook,
        build_efficiency_model,
        compress_states,
        decompress_states,
        remove_state_layers,
        reset_efficiency_model,
        sort_states,
    )

__version__ = "0.1.0"

_HOMES = {
    "analyze": "analysis.analyze",
    "Threads": "analysis.schedulers",
    "Analyses": "analysis.results.combining",
    "Analysis": "analysis.results.network",
    "Combined": "analysis.results.combining",
    "combine": "analysis.results.combining",
    "Difference": "analysis.results.difference",
    "difference": "analysis.results.difference",
    "Comparison": "analysis.comparing.comparison",
    "compare": "analysis.comparing.comparison",
    "LayerResult": "analysis.results.layer",
    "export": "analysis.states.export",
    "FrequentStates": "analysis.states.frequent",
    "states": "analysis.states.frequent",
    "surprising": "analysis.states.surprising",
    "Steps": "analysis.steps",
    "steps": "analysis.steps",
    "GroupedAnalysis": "analysis.groups.results",
    "Information": "analysis.groups.information",
    "information": "analysis.groups.information",
    "SharedStates": "analysis.groups.shared",
    "shared_states": "analysis.groups.shared",
    "GroupedNeurons": "analysis.neurons.results",
    "Neurons": "analysis.neurons.results",
    "neurons": "analysis.neurons.count",
    "RunPlan": "analysis.planning.run_plan",
    "plan": "analysis.planning.plan",
    "AccessError": "errors",
    "ResumeError": "errors",
    "TsstoreError": "errors",
    "Recorder": "recording.recorder",
    "capture": "recording.capture",
    "layers": "recording.summary",
    "report": "reporting.page",
    "aIQ": "statistics.efficiency",
    "network_efficiency": "statistics.efficiency",
    "entropy": "statistics.estimators",
    "Spectrum": "statistics.spectrum",
    "compact": "store.maintenance.compact",
    "LayerStates": "store.reading.layer",
    "StateStore": "store.reading.store",
    "open": "store.reading.store",
    "repair": "store.maintenance.repair",
    "verify": "store.maintenance.verify",
    "StateCaptureHook": "tensorstate",
    "build_efficiency_model": "tensorstate",
    "compress_states": "tensorstate",
    "decompress_states": "tensorstate",
    "remove_state_layers": "tensorstate",
    "reset_efficiency_model": "tensorstate",
    "sort_states": "tensorstate",
}
_NAMES_AT_HOME = {"open": "open_store"}

__all__ = [
    "AccessError",
    "Analyses",
    "Analysis",
    "Combined",
    "Comparison",
    "Difference",
    "FrequentStates",
    "GroupedAnalysis",
    "GroupedNeurons",
    "Information",
    "LayerResult",
    "LayerStates",
    "Neurons",
    "Recorder",
    "ResumeError",
    "RunPlan",
    "SharedStates",
    "Spectrum",
    "StateCaptureHook",
    "StateStore",
    "Steps",
    "Threads",
    "TsstoreError",
    "__version__",
    "aIQ",
    "analyze",
    "build_efficiency_model",
    "capture",
    "combine",
    "compact",
    "compare",
    "compress_states",
    "decompress_states",
    "difference",
    "entropy",
    "export",
    "information",
    "layers",
    "network_efficiency",
    "neurons",
    "open",
    "plan",
    "remove_state_layers",
    "repair",
    "report",
    "reset_efficiency_model",
    "shared_states",
    "sort_states",
    "states",
    "steps",
    "surprising",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES[name]}")
    value = getattr(home, _NAMES_AT_HOME.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
