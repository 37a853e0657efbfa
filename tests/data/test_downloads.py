"""Downloads over real HTTP: what comes is checked, kept once, never taken when wrong, and every failure is one line."""

import hashlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
import xarray as xr

from lpmppl.data import contacts, downloads, google, nyc_health, opportunity, oxcgrt
from lpmppl.data.downloads import SOURCES, Source
from lpmppl.errors import InputError

CLAIMS = (
    b"year,month,day_endofweek,cityid,initclaims_count_regular,initclaims_rate_regular\n"
    b"2020,4,11,2,184530,4.53\n2020,4,18,2,100000,2.45\n"
)
PATH = "/tracker/data/UI Claims - City - Weekly.csv"


class Publisher:
    """A web server on this machine: `files` by path, `asked` in order; `cut` ends every transfer early."""

    def __init__(self):
        self.files, self.asked, self.cut = {}, [], 0
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = unquote(self.path)
                publisher.asked.append(path)
                if path not in publisher.files:
                    self.send_error(404)
                    return
                body = publisher.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) - publisher.cut])

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        """Stop, if it isn't done yet."""
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


@pytest.fixture
def publisher(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Publisher()
    server.files[PATH] = CLAIMS
    yield server
    server.close()


@pytest.fixture
def source(publisher):
    url = f"{publisher.address}{PATH.replace(' ', '%20')}"
    return Source("claims", url, "lpmppl.data.opportunity.claims", "free use")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def refused(*names, source, folder):
    with pytest.raises(InputError) as error:
        downloads.fetch(source, folder)
    message = str(error.value)
    assert "\n" not in message
    for name in names:
        assert name in message, message


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_read(publisher, source, tmp_path, capfd):
    path = downloads.fetch(source, tmp_path)
    assert path.name == "UI Claims - City - Weekly.csv"
    assert path.read_bytes() == CLAIMS
    assert opportunity.claims(path)["claims"].values.tolist() == [184_530, 100_000]
    assert downloads.fetch(source, tmp_path) == path
    assert publisher.asked == [PATH]
    assert left(tmp_path) == [path.name, f"{path.name}.json"]
    assert capfd.readouterr() == ("", "")


def test_an_unknown_checksum_is_recorded_and_holds(publisher, source, tmp_path):
    path = downloads.fetch(source, tmp_path)
    record = downloads.provenance(path)
    assert record["url"] == source.url
    assert record["sha256"] == sha256(CLAIMS) == opportunity.claims(path).attrs["sha256"]
    assert record["bytes"] == len(CLAIMS)
    assert record["checked"] == "recorded at first sight"
    assert record["came"] == "downloaded"
    assert downloads.fetch(source, tmp_path).exists()
    assert downloads.provenance(path) == record
    # The file changes here: refused, until it is deleted and downloaded again.
    path.write_bytes(CLAIMS.replace(b"184530", b"184531"))
    refused(path.name, "has changed", sha256(CLAIMS), "delete it", source=source, folder=tmp_path)
    path.unlink()
    assert downloads.fetch(source, tmp_path).read_bytes() == CLAIMS
    # The file changes at the publisher's: the recorded checksum refuses it.
    path.unlink()
    publisher.files[PATH] = CLAIMS.replace(b"184530", b"184531")
    refused(source.url, sha256(CLAIMS), f"{path.name}.json", source=source, folder=tmp_path)
    assert left(tmp_path) == [f"{path.name}.json"]


def test_a_known_checksum_is_checked(publisher, source, tmp_path):
    known = replace(source, sha256=sha256(CLAIMS))
    path = downloads.fetch(known, tmp_path / "right")
    assert downloads.provenance(path)["checked"] == "against its known checksum"
    wrong = replace(source, sha256=sha256(b"another file"))
    refused(source.url, "not the file it was", sha256(b"another file"), source=wrong, folder=tmp_path / "wrong")
    assert left(tmp_path / "wrong") == []


def test_another_address_is_another_file(publisher, source, tmp_path):
    first = downloads.fetch(source, tmp_path)
    publisher.files["/later/claims.csv"] = CLAIMS + b"2020,4,25,2,90000,2.2\n"
    later = downloads.fetch(replace(source, url=f"{publisher.address}/later/claims.csv"), tmp_path)
    assert (len(opportunity.claims(first)["week"]), len(opportunity.claims(later)["week"])) == (2, 3)


def test_a_file_put_in_place_by_hand_is_taken(publisher, source, tmp_path):
    path = downloads.fetch(source, tmp_path)
    path.with_name(f"{path.name}.json").unlink()
    publisher.asked.clear()
    assert downloads.fetch(source, tmp_path) == path
    assert publisher.asked == []
    assert downloads.provenance(path)["came"] == "put in place by hand"
    path.write_bytes(b"other")
    refused("has changed", source=source, folder=tmp_path)
    refused("has changed", source=replace(source, sha256=sha256(CLAIMS)), folder=tmp_path)


@pytest.mark.parametrize("known", [False, True])
def test_a_transfer_that_ends_early_leaves_nothing(publisher, source, tmp_path, known):
    publisher.cut = 10
    source = replace(source, sha256=sha256(CLAIMS) if known else None)
    refused("broke off", source.url, "try again", source=source, folder=tmp_path)
    assert left(tmp_path) == []
    publisher.cut = 0
    assert downloads.fetch(source, tmp_path).read_bytes() == CLAIMS


def test_a_file_that_the_publisher_lacks(publisher, source, tmp_path):
    publisher.files.clear()
    refused("HTTP 404", source.url, "put a copy", str(tmp_path), source=source, folder=tmp_path)
    assert left(tmp_path) == []


def test_no_publisher(publisher, source, tmp_path):
    publisher.close()
    refused("127.0.0.1 can't be reached", "go online", source.url, source.file, source=source, folder=tmp_path)
    assert left(tmp_path) == []


def test_what_was_fetched_is_there_without_a_publisher(publisher, source, tmp_path):
    path = downloads.fetch(source, tmp_path)
    publisher.files.clear()
    assert downloads.fetch(source, tmp_path) == path


def test_faults_of_the_call_are_named(source, tmp_path):
    refused("unknown source 'claim'", "did you mean 'claims'", source="claim", folder=tmp_path)
    refused("no address", "'tracker.csv'", source=replace(source, url="tracker.csv"), folder=tmp_path)
    (tmp_path / "file").write_text("")
    refused("can't be kept", "LPMPPL_CACHE", source=source, folder=tmp_path / "file")
    assert downloads.provenance(tmp_path / "none.csv") == {}
    for content in ("{", "[]", '{"sha256": 3}'):
        (tmp_path / "none.csv.json").write_text(content)
        with pytest.raises(InputError, match=r"none\.csv\.json.*delete it"):
            downloads.provenance(tmp_path / "none.csv")


def test_the_cache_folder_is_the_default(publisher, source, tmp_path, monkeypatch):
    monkeypatch.setenv("LPMPPL_CACHE", str(tmp_path / "cache"))
    assert (tmp_path / "cache" / "sources") in downloads.fetch(source).parents


def test_sources_are_pinned_and_readable():
    readers = {
        f"lpmppl.data.{module.__name__.rpartition('.')[2]}.{name}"
        for module in (contacts, google, nyc_health, opportunity, oxcgrt)
        for name in module.__all__
    }
    assert len({source.url for source in SOURCES.values()}) == len(SOURCES)
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.reader in readers
        assert source.file.endswith(".csv")
        assert " " not in source.url
        assert source.licence
        if source.url.startswith("https://raw.githubusercontent.com/"):
            commit = source.url.split("/")[5]
            assert len(commit) == 40
            assert set(commit) <= set("0123456789abcdef")
        else:
            assert source.url.startswith("https://www.gstatic.com/covid19/mobility/")
        assert source.sha256 is None or len(source.sha256) == 64


HERE = {
    "nyc_data_by_day": ("nyc_data_by_day.csv", nyc_health.read),
    "nyc_case_rates": ("nyc_weekly_case_rate_age.csv", nyc_health.weekly_rates),
    "nyc_admission_rates": ("nyc_weekly_hosp_rate_age.csv", nyc_health.weekly_rates),
    "nyc_death_rates": ("nyc_weekly_death_rate_age.csv", nyc_health.weekly_rates),
    "nyc_tests": ("nyc_tests_by_day.csv", nyc_health.tests),
    "nyc_tests_by_age": ("nyc_testing_by_age.csv", nyc_health.tests_by_age),
    "mobility": ("nyc_oi_google_mobility_daily.csv", google.read),
    "google_mobility": ("nyc_google_mobility_boro_early.csv", google.read),
    "employment": ("nyc_oi_employment_weekly.csv", opportunity.employment),
    "claims": ("nyc_oi_ui_claims_weekly.csv", opportunity.claims),
    "spending": ("us_oi_spending_daily.csv", opportunity.spending),
    "stringency": ("nys_oxcgrt_indices.csv", oxcgrt.read),
}
MATRICES = {
    "contacts_overall": "nys_contact_M_overall_contact_matrix_18.csv",
    "contacts_household": "nys_contact_F_household_setting_18.csv",
    "contacts_school": "nys_contact_F_school_setting_18.csv",
    "contacts_work": "nys_contact_F_work_setting_18.csv",
    "contacts_community": "nys_contact_F_community_setting_18.csv",
    "contacts_ages": "nys_contact_age_distribution_85.csv",
}


def served(publisher, name, content):
    """The source of this name as the publisher names it, at an address of this machine."""
    source = SOURCES[name]
    path = source.url.removeprefix("https://")
    publisher.files[f"/{unquote(path)}"] = content
    return replace(source, url=f"{publisher.address}/{path}")


@pytest.mark.parametrize("name", HERE)
def test_published_files_come_over_http_as_they_are(publisher, published, tmp_path, name):
    file, read = HERE[name]
    path = downloads.fetch(served(publisher, name, published(file).read_bytes()), tmp_path)
    assert path.name == SOURCES[name].file
    xr.testing.assert_equal(read(path), read(published(file)))


def test_published_matrices_tell_their_setting_by_the_publishers_name(publisher, published, tmp_path):
    assert set(HERE) | set(MATRICES) == set(SOURCES)
    paths = {
        name: downloads.fetch(served(publisher, name, published(file).read_bytes()), tmp_path)
        for name, file in MATRICES.items()
    }
    ages = paths.pop("contacts_ages")
    for name, path in paths.items():
        assert contacts.read(path, ages).attrs["setting"] == name.removeprefix("contacts_")
    record = json.loads(ages.with_name(f"{ages.name}.json").read_text())
    assert record["sha256"] == sha256(ages.read_bytes())
