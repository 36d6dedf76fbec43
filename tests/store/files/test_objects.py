from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from object_stores import BUCKET, FailingProxy, Outage, fresh_url, s3_environment, s3_server

import tsstore
from tsstore.errors import (
    AccessError,
    DamageError,
    NotAStoreError,
    StoreExistsError,
    TsstoreError,
    TsstoreWarning,
)

pytest.importorskip("obstore")

from obstore.store import AzureStore, GCSStore, HTTPStore, MemoryStore, S3Store

from tsstore.store.files import object_store
from tsstore.store.files import objects as object_files
from tsstore.store.files.objects import ObjectFiles
from tsstore.store.maintenance.compact import compact
from tsstore.store.maintenance.verify import verify


@pytest.fixture(scope="module")
def server():
    with s3_server() as url, s3_environment(url):
        yield url


@pytest.fixture
def url(server, monkeypatch) -> str:
    """Give a place of one's own."""
    monkeypatch.setattr(object_files, "PATIENCE_SECONDS", 10.0)
    monkeypatch.setattr(object_files, "_LONGEST_PAUSE", 0.02)
    return fresh_url()


@pytest.fixture(scope="module")
def recorded(server) -> str:
    """Give a run that nobody changes."""
    url = fresh_url()
    capture_and_analyze(url, commits=2)
    return url


@pytest.fixture
def failing(server, monkeypatch):
    """Give a function that puts a failing proxy before the server, for URLs opened from then on."""
    proxies = []

    def fail(fault) -> FailingProxy:
        proxy = FailingProxy(server, fault)
        proxy.__enter__()
        proxies.append(proxy)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        return proxy

    yield fail
    for proxy in proxies:
        proxy.__exit__()


def lost_puts(number: int, method: str) -> str:
    return "done, lost" if method == "PUT" else ""


def first(fault: str, times: int = 1):
    return lambda number, method: fault if number <= times else ""


def capture_and_analyze(path, seed: int = 0, commits: int = 4, **settings):
    """Run one small job of 200 samples and return its store and analysis."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3))
    for parameter in model.parameters():
        parameter.data = torch.randint(-3, 4, parameter.shape, generator=generator).float()
    with tsstore.capture(model, path, layers=["0", "2"], **settings) as recorder:
        for ids in np.split(np.arange(200), commits):
            with recorder.batch(id=ids):
                model(torch.randn(len(ids), 4, generator=generator))
            recorder.commit()
    return tsstore.open(path), tsstore.analyze(path, scheduler="synchronous")


def assert_same(found, expected) -> None:
    """Hold a run against another: rows, columns, and what is counted from them."""
    (store, analysis), (other, counted) = found, expected
    assert store.samples == other.samples == 200
    assert store.layers == other.layers == ("0", "2")
    np.testing.assert_array_equal(store.column("id"), other.column("id"))
    for layer in store.layers:
        np.testing.assert_array_equal(store[layer][:], other[layer][:])
        assert analysis[layer].distinct == counted[layer].distinct
        assert analysis[layer].entropy() == counted[layer].entropy()


def test_a_run_on_s3_is_the_run_on_disk(url, tmp_path):
    expected = capture_and_analyze(tmp_path / "run.zarr")
    found = capture_and_analyze(url)
    assert_same(found, expected)
    assert found[0].path == url
    assert found[0].finished
    with pytest.raises(StoreExistsError, match=rf"{url} exists already"):
        capture_and_analyze(url)


def test_a_run_may_lie_in_a_store_object(tmp_path):
    store = MemoryStore()
    assert_same(capture_and_analyze(store), capture_and_analyze(tmp_path / "run.zarr"))
    ObjectFiles(store).remove_tree()
    assert not ObjectFiles(store).exists("")


def test_workers_read_from_s3(url, server, client):
    found = capture_and_analyze(url)
    store = S3Store(
        BUCKET,
        prefix=url.removeprefix(f"s3://{BUCKET}/"),
        endpoint=server,
        region="us-east-1",
        access_key_id="its-key",
        secret_access_key="its-secret",
        client_options={"allow_http": True},
    )
    analysis = tsstore.analyze(store, scheduler=client)
    assert analysis["0"].spectrum == found[1]["0"].spectrum
    assert "secret" not in repr(tsstore.open(store)) + tsstore.open(store).path


def test_damage_on_s3_is_found(url):
    capture_and_analyze(url)
    files = ObjectFiles(url)
    chunk = next(key for key in files.walk() if "/states/c/" in key)
    data = files.read(chunk)
    # The last byte of what was compressed; those of the file's own checksum follow.
    files.write(chunk, data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    with pytest.raises(DamageError, match=chunk):
        tsstore.analyze(url, scheduler="synchronous")
    files.remove(chunk)
    with pytest.raises(DamageError, match=rf"{chunk}.*missing"):
        tsstore.analyze(url, scheduler="synchronous")


def test_a_run_over_a_failing_network_is_complete_and_exact(url, failing, tmp_path):
    expected = capture_and_analyze(tmp_path / "run.zarr")
    faults = {0: "done, lost", 4: "busy", 8: "done, busy"}

    def fault(number: int, method: str) -> str:
        found = faults.get(number % 11, "")
        return found if method == "PUT" or found == "busy" else ""

    proxy = failing(fault)
    assert_same(capture_and_analyze(url), expected)
    assert set(proxy.faults) == set(faults.values())
    assert len(proxy.faults) >= 12


@pytest.mark.parametrize("fault", ["busy", "done, lost", "done, busy"])
def test_ones_own_creation_is_known_by_its_bytes(url, failing, fault):
    proxy = failing(first(fault))
    files = ObjectFiles(url)
    files.create("zarr.json", b"mine")
    assert proxy.faults == [fault]
    assert files.read("zarr.json") == b"mine"
    with pytest.raises(FileExistsError, match=rf"{url}/zarr\.json exists already"):
        files.create("zarr.json", b"another's")
    assert files.read("zarr.json") == b"mine"


@pytest.mark.parametrize("fault", ["busy", "done, lost", "done, busy"])
def test_anothers_creation_is_respected_over_a_failing_network(url, failing, fault):
    ObjectFiles(url).create("zarr.json", b"theirs")
    failing(first(fault))
    with pytest.raises(FileExistsError):
        ObjectFiles(url).create("zarr.json", b"mine")
    assert ObjectFiles(url).read("zarr.json") == b"theirs"


def test_over_a_failing_network_one_creator_wins(url, failing):
    faults = ["done, lost", "", "done, busy"]
    failing(lambda number, method: faults[number % 3] if method == "PUT" else "")
    files = ObjectFiles(url)

    def create(number: int) -> bool:
        try:
            files.create("zarr.json", b"%d" % number)
        except FileExistsError:
            return False
        return True

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            created = list(pool.map(create, range(8)))
        assert sum(created) == 1
        assert files.read("zarr.json") == b"%d" % created.index(True)
        files.remove_tree()


def test_a_creation_that_never_gets_through_is_an_error(url, failing, monkeypatch):
    monkeypatch.setattr(object_files, "PATIENCE_SECONDS", 0.1)
    failing(lambda number, method: "busy" if method == "PUT" else "")
    with pytest.raises(AccessError, match=r"zarr\.json cannot be used: .*503"):
        ObjectFiles(url).create("zarr.json", b"mine")


def test_a_write_whose_reply_is_lost_is_repeated(url, failing):
    proxy = failing(lambda number, method: lost_puts(number, method) if number <= 2 else "")
    files = ObjectFiles(url)
    files.write("zarr.json", b"data")
    assert proxy.faults == ["done, lost"] * 2
    assert files.read("zarr.json") == b"data"


@pytest.mark.parametrize("fault", ["busy", "done, lost"])
def test_a_dead_network_is_an_error_of_tsstore_in_bounded_time(url, failing, fault, monkeypatch):
    monkeypatch.setattr(object_files, "PATIENCE_SECONDS", 0.1)
    ObjectFiles(url).write("part/zarr.json", b"data")
    failing(lambda number, method: fault)
    files = ObjectFiles(url)
    uses = [files.read, files.size, files.exists, files.list, files.remove, files.remove_tree]
    uses += [lambda key: list(files.walk(key)), lambda key: files.read(key, (0, 1))]
    uses += [lambda key: files.write(key, b""), lambda key: files.create(key, b"")]
    for use in uses:
        with pytest.raises(AccessError, match=rf"{url}/part cannot be used: ") as caught:
            use("part")
        assert "\n" not in str(caught.value)
    with pytest.raises(TsstoreError, match=url):
        tsstore.open(url)


def test_what_a_bucket_lacks_and_what_lacks_a_bucket(server):
    files = ObjectFiles("s3://no-such-bucket/run.zarr")
    uses = [files.read, files.exists, files.list, lambda key: files.write(key, b"")]
    for use in [*uses, lambda key: files.create(key, b"")]:
        with pytest.raises(AccessError, match=r"there is no such bucket; create it, or check"):
            use("zarr.json")
    with pytest.raises(TsstoreError, match=r"no-such-bucket"):
        tsstore.open("s3://no-such-bucket/run.zarr")
    with pytest.raises(NotAStoreError, match=r"found nothing there"):
        tsstore.open(f"s3://{BUCKET}/nothing")


@pytest.mark.parametrize("page", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_more_names_than_one_page_holds(url, page, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(page))
    monkeypatch.setattr(object_store, "MOST_AT_ONCE", page)
    monkeypatch.setattr(object_files, "MOST_AT_ONCE", page)
    files = ObjectFiles(url)
    keys = [f"part/{number:04}" for number in range(2 * page + 5)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: files.write(key, b""), keys))
    assert [f"part/{name}" for name in files.list("part")] == keys
    assert list(files.walk()) == keys
    files.write("party", b"")
    files.remove_tree("part")
    assert list(files.walk()) == ["party"]


def test_what_is_removed_by_half_has_lost_its_metadata_first(monkeypatch):
    files = ObjectFiles(MemoryStore())
    for key in ("part/zarr.json", "part/a/zarr.json", "part/z"):
        files.write(key, b"")
    removed = []
    monkeypatch.setattr(object_files.obstore, "delete", lambda store, keys: removed.append(keys))
    files.remove_tree("part")
    assert removed[0] == ["part/z", "part/zarr.json"]
    assert "part/a/zarr.json" in removed[1]


def test_no_object_larger_than_it_may_be_is_read():
    files = ObjectFiles(MemoryStore())
    files.write("shard", bytes(101))
    files.write("chunk", bytes(100))
    assert len(files.read("chunk", most=100)) == 100
    assert len(files.read("shard", (1, 100), most=100)) == 100
    for span in (None, (0, 101)):
        with pytest.raises(DamageError, match=r"shard is damaged: 101 bytes, expected at most 100"):
            files.read("shard", span, most=100)


def test_no_place_shows_credentials(server):
    secrets = {"access_key_id": "SECRET", "secret_access_key": "SECRET"}
    cases = {
        "s3://bucket/a/run.zarr": S3Store("bucket", prefix="a/run.zarr", **secrets),
        "gs://bucket/run.zarr": GCSStore("bucket", prefix="run.zarr"),
        "az://box/run": AzureStore("box", prefix="run", account_name="me", account_key="c2Vj"),
        "memory://": MemoryStore(),
    }
    for location, store in cases.items():
        assert ObjectFiles(store).location == location
    assert ObjectFiles(f"s3://{BUCKET}/run.zarr/").location == f"s3://{BUCKET}/run.zarr"
    assert ObjectFiles(f"s3://{BUCKET}").location == f"s3://{BUCKET}"


@pytest.mark.parametrize(
    "url", ["s3://me:SECRET@bucket/run", "az://box/run?sig=SECRET", "https://me:SECRET@host/run"]
)
def test_a_url_with_credentials_is_refused_and_not_shown(url):
    with pytest.raises(NotAStoreError, match=r"environment variables or by a store object") as it:
        ObjectFiles(url)
    assert "SECRET" not in str(it.value)


def test_an_error_shows_no_signature(monkeypatch):
    def fail(*arguments, **keywords):
        raise ValueError("GET https://me:SECRET@host/box?sig=SECRET&x=1 failed\n\x1b[31mbadly")

    files = ObjectFiles(MemoryStore())
    monkeypatch.setattr(object_files.obstore, "head", fail)
    with pytest.raises(AccessError, match=r"GET https://host/box\?… failed \[31mbadly; ") as it:
        files.size("zarr.json")
    assert it.value.__cause__ is None


@pytest.mark.parametrize("url", ["s3://", "s3:///run", "gs:/bucket/run", "memory:///", "s3://a b"])
def test_what_names_no_bucket_is_refused(url):
    with pytest.raises(NotAStoreError, match=r"expected a local path, or s3://, gs:// or az://"):
        ObjectFiles(url)


def test_an_object_that_is_no_place_is_refused():
    with pytest.raises(NotAStoreError, match=r"found HTTPStore, expected .*S3Store"):
        ObjectFiles(HTTPStore.from_url("https://host/run"))


def test_files_may_be_sent_to_another_process(url):
    files = ObjectFiles(url)
    files.write("part/zarr.json", b"data")
    sent = pickle.loads(pickle.dumps(files))
    assert sent.read("part/zarr.json") == b"data"
    assert sent.location == url
    assert sent._repeats


def test_a_forked_process_is_told_instead_of_waiting_for_ever(monkeypatch):
    files = ObjectFiles(MemoryStore())
    monkeypatch.setattr(object_files.os, "getpid", lambda: object_files._PROCESS + 1)
    with pytest.raises(AccessError, match=r"forked.*spawn"):
        files.read("zarr.json")


KINDS = ["busy", "refused", "stalled", "cut"]


@pytest.fixture
def said_soon(monkeypatch):
    monkeypatch.setattr(object_files, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(object_files, "SAID_AFTER_SECONDS", 0.2)


def capture_beside(store) -> int:
    found = capture_and_analyze(fresh_url(), commits=2)
    assert_same(found, (store, tsstore.analyze(store)))
    return found[0].samples


def verify_all(store) -> int:
    report = verify(store.path)
    assert report.ok, str(report)
    return report.samples


# Each kind, and each use; the slow test below has all uses at the same time for each kind.
@pytest.mark.parametrize(
    ("kind", "use"),
    [
        ("busy", capture_beside),
        ("refused", lambda store: tsstore.open(store.path).samples),
        ("refused", lambda store: tsstore.analyze(store).samples),
        ("stalled", verify_all),
        ("cut", lambda store: compact(store.path, fresh_url()).samples),
    ],
    ids=["capture", "open", "analyze", "verify", "compact"],
)
def test_an_outage_of_some_seconds_is_waited_out_and_said(
    recorded, failing, said_soon, kind, use, monkeypatch
):
    monkeypatch.setattr(object_files, "_LONGEST_PAUSE", 0.2)
    outage = Outage(kind)
    failing(outage)
    store = tsstore.open(recorded)
    outage.begin(0.6 if kind != "busy" else 2.0)
    with pytest.warns(TsstoreWarning, match=r"^s3://.*; trying again, for \d+ seconds at most"):
        assert use(store) == 200


@pytest.mark.filterwarnings("ignore:.*trying again:tsstore.errors.TsstoreWarning")
@pytest.mark.parametrize(
    "kind",
    [
        "refused",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "refused"),
    ],
)
def test_an_outage_while_a_job_goes_on_with_a_run_is_waited_out(
    url, failing, said_soon, kind, monkeypatch
):
    import rank_job

    monkeypatch.setattr(object_files, "_LONGEST_PAUSE", 0.2)
    outage = Outage(kind)
    failing(outage)
    rank_job.record(url, 0, 1, 20, commit_every=10)
    outage.begin(0.6 if kind != "busy" else 2.0)
    with pytest.warns(TsstoreWarning, match=r"trying again"):
        rank_job.record(url, 0, 1, 40, commit_every=10)
    store = tsstore.open(url)
    assert sorted(store.column("id").tolist()) == list(range(40))
    assert [part.samples for part in store.parts] == [20, 20]
    assert verify(url).ok


def use_at_once(url: str) -> list:
    """Begin each use of a run in a thread, so that they wait together; return what they give."""
    with ThreadPoolExecutor(5) as pool:
        captured = pool.submit(capture_and_analyze, fresh_url())
        read = [pool.submit(use, url) for use in (tsstore.open, tsstore.analyze, verify)]
        compacted = pool.submit(compact, url, fresh_url())
    return [use.result() for use in (captured, *read, compacted)]


@pytest.mark.slow(minutes=2)
@pytest.mark.parametrize(("kind", "seconds"), [*((kind, 10) for kind in KINDS), ("refused", 60)])
def test_an_outage_of_up_to_a_minute_is_waited_out_and_said(
    server, failing, kind, seconds, tmp_path
):
    expected, url, outage = capture_and_analyze(tmp_path / "run.zarr"), fresh_url(), Outage(kind)
    failing(outage)
    capture_and_analyze(url)
    outage.begin(seconds)
    with pytest.warns(TsstoreWarning, match=r"; trying again, for \d+ seconds at most") as said:
        captured, store, analysis, report, compacted = use_at_once(url)
    assert_same(captured, expected)
    assert_same((store, analysis), expected)
    assert report.ok
    assert compacted.samples == 200
    assert len(said) >= 5


@pytest.mark.parametrize(
    ("kind", "use"), [*zip(KINDS, (tsstore.open, tsstore.analyze, verify, compact), strict=True)]
)
def test_an_outage_that_stays_is_no_damage(recorded, failing, kind, use, monkeypatch):
    monkeypatch.setattr(object_files, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(object_files, "_LONGEST_PAUSE", 0.1)
    outage = Outage(kind)
    failing(outage)
    files = ObjectFiles(recorded)
    chunk = next(key for key in files.walk() if "/states/c/" in key)
    monkeypatch.setattr(object_files, "PATIENCE_SECONDS", 0.5)
    outage.begin(60)
    with pytest.raises(AccessError, match=rf"{chunk} cannot be used: .*; .*try again") as caught:
        files.read(chunk)
    assert not isinstance(caught.value, DamageError)
    assert "\n" not in str(caught.value)
    with pytest.raises(AccessError):
        use(recorded, *([fresh_url()] if use is compact else []))
    outage.begin(0)
    monkeypatch.setattr(object_files, "ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(object_files, "PATIENCE_SECONDS", 60.0)
    assert files.read(chunk)
    assert verify(recorded).ok


def test_verify_goes_on_over_objects_that_cannot_be_read(recorded, monkeypatch):
    get = object_files.obstore.get

    def fail(store, key):
        if key.endswith("/states/c/0/0"):
            raise RuntimeError("HTTP error: error sending request")
        return get(store, key)

    monkeypatch.setattr(object_files.obstore, "get", fail)
    monkeypatch.setattr(object_files, "PATIENCE_SECONDS", 0.1)
    report = verify(recorded)
    assert len(report.unreadable) == 2
    assert (report.errors, report.ok) == ((), False)


@pytest.mark.parametrize(("said", "cause", "remedy"), [
    ("403 Forbidden: <Code>InvalidAccessKeyId</Code>", "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
    ("403 Forbidden: <Code>SignatureDoesNotMatch</Code>", "not accepted", "AWS_SECRET_ACCESS_KEY"),
    ("403 Forbidden: <Code>AccessDenied</Code>", "it is denied", "get the permission"),
    ("403 Forbidden: ", "it is denied", "check the credentials"),
    ("400 Bad Request: <Code>ExpiredToken</Code>", "not accepted", "renew"),
    ("404 Not Found: <Code>NoSuchBucket</Code>", "there is no such bucket", "create it"),
    ("418 Teapot: <Code>Tea</Code>", "418 Teapot, Tea", "check endpoint"),
])  # fmt: skip
def test_a_refusal_is_said_in_one_sentence_with_what_to_do(monkeypatch, said, cause, remedy):
    xml = f"Server returned non-2xx status code: {said}\n<Error>long\n\nDebug source:\n{{}}"
    tries = []

    def fail(*arguments, **keywords):
        tries.append(arguments)
        raise RuntimeError(xml)

    files = ObjectFiles(MemoryStore())
    monkeypatch.setattr(object_files.obstore, "head", fail)
    with pytest.raises(
        AccessError, match=rf"zarr\.json cannot be used: .*{cause}.*; .*{remedy}"
    ) as it:
        files.size("zarr.json")
    assert len(tries) == 1
    assert "Code>" not in str(it.value)


def test_without_credentials_it_is_said_which_to_set(server, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,169.254.169.254")
    monkeypatch.setenv("AWS_CONNECT_TIMEOUT", "1s")
    with pytest.raises(AccessError, match=r"no credentials were found; set AWS_ACCESS_KEY_ID and"):
        ObjectFiles(fresh_url()).read("zarr.json")


def test_what_is_large_has_time_to_be_sent(monkeypatch):
    monkeypatch.setattr(object_files, "LARGE_BYTES", 10)
    files = ObjectFiles(MemoryStore())
    assert files._slow_store is files._store
    files.write("shard", bytes(11))
    assert files.size("shard") == 11


def test_an_object_in_place_of_a_part_is_noticed(url):
    capture_and_analyze(url)
    files = ObjectFiles(url)
    files.remove_tree("part-00000-00000")
    files.write("part-00000-00000", b"")
    with pytest.raises(DamageError, match=r"part-00000-00000 is damaged: found a file, expected"):
        tsstore.open(url)


def test_pages_go_on_after_one_that_failed(url, monkeypatch):
    files = ObjectFiles(url)
    keys = [f"part/{number}" for number in range(9)]
    for key in keys:
        files.write(key, b"")
    monkeypatch.setattr(object_store, "MOST_AT_ONCE", 2)
    listing, failures = object_files.obstore.list, []

    def unsteady(*arguments, **keywords):
        pages = iter(listing(*arguments, **keywords))
        yield next(pages)
        failures.append(keywords["offset"])
        if len(failures) < 4:
            raise RuntimeError("HTTP error: error decoding response body")
        yield from pages

    monkeypatch.setattr(object_files.obstore, "list", unsteady)
    assert list(files.walk("part")) == keys
    assert failures == [None, "part/1", "part/3", "part/5"]
