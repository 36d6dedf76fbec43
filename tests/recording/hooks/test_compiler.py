"""torch's compiler, which takes seconds to load, is loaded by whoever compiles, and not by us."""

from __future__ import annotations

import children


def run(code: str) -> None:
    done = children.run(code, strict=True)
    assert done.returncode == 0, done.stderr


def test_neither_an_import_nor_a_capture_loads_it():
    run(
        """
        import sys, tempfile

        import tsstore
        for name in tsstore.__all__:
            getattr(tsstore, name)
        assert "torch._dynamo" not in sys.modules

        import torch
        from torch import nn
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        with tempfile.TemporaryDirectory() as folder:
            with tsstore.capture(model, f"{folder}/run.zarr", layers="*") as recorder:
                with recorder.batch(id=[0, 1]):
                    model(torch.randn(2, 3))
            assert tsstore.open(f"{folder}/run.zarr")["1"].rows == 2
        tsstore.build_efficiency_model(model, "*")
        model(torch.randn(2, 3))
        tsstore.remove_state_layers(model)
        assert "torch._dynamo" not in sys.modules
        """
    )


def test_what_is_compiled_after_the_hooks_are_there_is_captured():
    run(
        """
        import sys, tempfile

        import torch
        from torch import nn
        import tsstore

        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        by_hand = tsstore.StateCaptureHook("by hand")
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            with tsstore.capture(model, f"{folder}/run.zarr", layers="1") as recorder:
                batches = [torch.randn(2, 3) for _ in range(4)]
                model(batches[0])
                assert "torch._dynamo" not in sys.modules
                handle = model[0].register_forward_hook(by_hand)
                compiled = torch.compile(model, backend="eager")
                for batch in batches[1:]:
                    compiled(batch)
                handle.remove()
            values = model[0](torch.cat(batches))
            states = tsstore.open(f"{folder}/run.zarr")["1"]
            assert (states.decode() == (values > 0).numpy()).all()
            assert by_hand.state_count == 6
        """
    )
