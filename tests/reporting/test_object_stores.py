from __future__ import annotations

import numpy as np
import obstore
import pytest
from helpers import draw_batch, write_run
from object_stores import fresh_url, s3_environment, s3_server
from obstore.store import from_url

import tsstore
from tsstore.errors import AccessError


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


def test_a_place_that_cannot_be_reached_is_an_error_before_anything_is_counted(
    tmp_path, monkeypatch
):
    write_run(tmp_path / "run.zarr", [draw_batch(np.random.default_rng(0), 3)])
    monkeypatch.setattr("tsstore.reporting.page.analyze", None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AccessError, match="no credentials were found"):
        tsstore.report(tmp_path / "run.zarr", "s3://a-bucket/report.html")
