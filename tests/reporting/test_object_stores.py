from __future__ import annotations

import numpy as np
import obstore
from helpers import draw_batch, write_run
from object_stores import fresh_url, s3_environment, s3_server
from obstore.store import from_url

import tsstore


def test_a_page_goes_to_an_object_store_whole(tmp_path):
    layers = {"conv_1": 5}
    batch = draw_batch(np.random.default_rng(0), 300, neurons=layers)
    write_run(tmp_path / "run.zarr", [batch], neurons=layers)
    with s3_server() as server, s3_environment(server):
        place = fresh_url().removesuffix("/run.zarr")
        size = tsstore.report(tmp_path / "run.zarr", f"{place}/report.html")
        page = bytes(obstore.get(from_url(place), "report.html").bytes())
    assert len(page) == size
    assert page.startswith(b"<!doctype html>")
    assert page.rstrip().endswith(b"</html>")
