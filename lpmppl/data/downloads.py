"""The published files, fetched from their publishers' addresses once, and never used if they have changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pooch
import requests

from lpmppl.data import cache
from lpmppl.errors import InputError, nearest

__all__ = ["SOURCES", "Source", "fetch", "provenance"]

_PATIENCE = 30  # seconds without an answer


@dataclass(frozen=True)
class Source:
    """A file and where its publisher keeps it.

    Args:
        name: what it is called here.
        url: its address; pinned to a version where the publisher keeps versions.
        reader: the function that reads it.
        licence: what the publisher says of its use.
        sha256: its checksum; None where it isn't known. Then that of the first download is recorded beside the file and
            holds from there on.
    """

    name: str
    url: str
    reader: str
    licence: str
    sha256: str | None = None

    @property
    def file(self) -> str:
        """The publisher's name of the file."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


def _at_github(repository: str, commit: str, path: str) -> str:
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{quote(path)}"


def _sources() -> Iterator[Source]:
    city = "New York City government open data; no licence file"
    now, last = "573389380ad527357ac5e25c223c6a38c978da7d", "a2643c438553adb4beb13faefa33da660c011fcb"
    for name, path, reader, commit in (
        ("nyc_data_by_day", "data-by-day.csv", "read", now),
        ("nyc_case_rates", "weekly-case-rate-age.csv", "weekly_rates", now),
        ("nyc_admission_rates", "weekly-hosp-rate-age.csv", "weekly_rates", now),
        ("nyc_death_rates", "weekly-death-rate-age.csv", "weekly_rates", now),
        ("nyc_tests", "tests.csv", "tests", last),
        ("nyc_tests_by_age", "testing-by-age.csv", "tests_by_age", last),
    ):
        url = _at_github("nychealth/coronavirus-data", commit, f"trends/{path}")
        yield Source(name, url, f"lpmppl.data.nyc_health.{reader}", city)
    tracker = "free use, attribution asked; no licence file"
    for name, path, reader in (
        ("mobility", "Google Mobility - City - Daily.csv", "google.read"),
        ("employment", "Employment - City - Weekly.csv", "opportunity.employment"),
        ("claims", "UI Claims - City - Weekly.csv", "opportunity.claims"),
        ("spending", "Affinity - National - Daily.csv", "opportunity.spending"),
    ):
        commit = "cd7f8182e7313133c2944ffd00f1285b3ea2af57"
        url = _at_github("OpportunityInsights/EconomicTracker", commit, f"data/{path}")
        yield Source(name, url, f"lpmppl.data.{reader}", tracker)
    # The report of the whole world, a large file; Google keeps no versions, and stopped it in October 2022.
    report = "https://www.gstatic.com/covid19/mobility/Global_Mobility_Report.csv"
    yield Source("google_mobility", report, "lpmppl.data.google.read", "Google Terms of Service, attribution asked")
    url = _at_github(
        "OxCGRT/covid-policy-dataset",
        "e7f66ee39654293b5c068efd2f195bd591dc27f6",
        "data/timeseries_indices/OxCGRT_timeseries_StringencyIndex_v1.csv",
    )
    yield Source("stringency", url, "lpmppl.data.oxcgrt.read", "CC BY 4.0")
    place = "United_States_subnational_New_York"
    for name, path in (
        ("contacts_overall", f"contact_matrices/{place}_M_overall_contact_matrix_18.csv"),
        ("contacts_household", f"contact_matrices/{place}_F_household_setting_18.csv"),
        ("contacts_school", f"contact_matrices/{place}_F_school_setting_18.csv"),
        ("contacts_work", f"contact_matrices/{place}_F_work_setting_18.csv"),
        ("contacts_community", f"contact_matrices/{place}_F_community_setting_18.csv"),
        ("contacts_ages", f"age_distributions/{place}_age_distribution_85.csv"),
    ):
        url = _at_github("mobs-lab/mixing-patterns", "1a28882617cab97a9578c2af8fd21d9e582e12a2", f"data/{path}")
        yield Source(name, url, "lpmppl.data.contacts.read", "Apache-2.0")


SOURCES: Mapping[str, Source] = MappingProxyType({source.name: source for source in _sources()})
"""The files that can be fetched, by name."""


def fetch(source: str | Source, folder: str | Path | None = None) -> Path:
    """Download a file if it is not here yet, check it, and return where it is.

    A file that was put in its place by hand is taken as if it had been downloaded. What is known of a file stands
    beside it (`provenance`). A file appears under its name only when it is complete and right.

    Args:
        source: a name in `SOURCES`, or a source of your own.
        folder: where files are kept, by default `sources` in the cache folder.

    Raises:
        InputError: there is no such source; the publisher can't be reached, doesn't have the file, or breaks off; the
            file is not, or no longer, the one its checksum belongs to; or the folder can't be written.
    """
    if not isinstance(source, Source):
        if source not in SOURCES:
            raise InputError(nearest("source", source, SOURCES))
        source = SOURCES[source]
    # Another address is another file: a new pin doesn't meet the file of the old one.
    place = f"{source.name}-{hashlib.sha256(source.url.encode()).hexdigest()[:8]}"
    path = (cache.folder() / "sources" if folder is None else Path(folder)) / place / source.file
    record = provenance(path)
    due = source.sha256 or record.get("sha256")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        here = path.is_file()
        if here and due not in (None, _sha256(path)):
            raise InputError(f"'{path}' has changed (its SHA-256 is not {due}); delete it, and it is downloaded again")
        if not here:
            _download(source, path, due)
        if record.get("sha256") is None or not here:
            _note(source, path, downloaded=not here)
    except OSError as error:
        raise InputError(
            f"'{path}' can't be kept ({error.strerror or error}); set LPMPPL_CACHE to a folder that can be written"
        ) from error
    return path


def provenance(path: str | Path) -> dict[str, Any]:
    """What is known of a fetched file: its url, sha256, bytes, reader, licence, when it came and how it was checked.

    Nothing if there is no record. Raises InputError if the record is damaged.
    """
    note = _beside(path)
    try:
        record = json.loads(note.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"'{note}' can't be read ({_line(error)}); delete it and '{path}' to fetch both again"
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
        raise InputError(f"'{note}' holds no checksum; delete it and '{path}' to fetch both again")
    return record


def _download(source: Source, path: Path, due: str | None) -> None:
    host = urlsplit(source.url).hostname
    by_hand = f"or put a copy of {source.url} at '{path}'"
    try:
        with _quiet():
            pooch.retrieve(source.url, known_hash=due, fname=path.name, path=path.parent, downloader=_transfer)
    except requests.HTTPError as error:
        status = "no answer" if error.response is None else f"HTTP {error.response.status_code}"
        raise InputError(f"{host} has no {source.url} ({status}); try later, {by_hand}") from error
    except (requests.exceptions.ChunkedEncodingError, requests.ReadTimeout) as error:
        raise InputError(f"{host} broke off the transfer of {source.url}; try again, {by_hand}") from error
    except requests.RequestException as error:
        if isinstance(error, ValueError):
            raise InputError(f"'{source.url}' is no address to download from ({_line(error)}); correct it") from error
        raise InputError(f"{host} can't be reached; go online, {by_hand}") from error
    except ValueError as error:
        whose = "its checksum" if source.sha256 else f"the one recorded in '{_beside(path)}'"
        raise InputError(
            f"{source.url} is not the file it was: its SHA-256 is not {due}, {whose}, so it is not used; find out why, "
            f"{by_hand} that has it"
        ) from error


def _transfer(url: str, output_file: str, _: pooch.Pooch | None) -> None:
    """Download over HTTP. Urllib3, from version 2 on, raises if less comes than was announced."""
    with requests.get(url, stream=True, timeout=_PATIENCE) as response, Path(output_file).open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(1 << 20):
            file.write(chunk)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without pooch's advice on checksums, which is for those who write such a registry."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _note(source: Source, path: Path, downloaded: bool) -> None:
    record = {
        "url": source.url,
        "sha256": _sha256(path),
        "checked": "against its known checksum" if source.sha256 else "recorded at first sight",
        "came": "downloaded" if downloaded else "put in place by hand",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "bytes": path.stat().st_size,
        "reader": source.reader,
        "licence": source.licence,
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(_beside(path))
    finally:
        partial.unlink(missing_ok=True)


def _beside(path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
