"""One population for the tests that only look at it, and the published files where there are any."""

import os
from pathlib import Path

import pytest

from lpmppl.data import nyc
from lpmppl.errors import InputError


@pytest.fixture(scope="session")
def city():
    return nyc.build(50_000, 0)


@pytest.fixture(scope="session")
def village():
    return nyc.build(1_000, 1)


@pytest.fixture(scope="session")
def published():
    """The path of a published file, by name, in the folder LPMPPL_DATA."""
    folder = Path(os.environ.get("LPMPPL_DATA", "data"))

    def path(name):
        if not (folder / name).is_file():
            pytest.skip(f"the published file {name} is not here; set LPMPPL_DATA to the folder of such files")
        return folder / name

    return path


@pytest.fixture
def refused():
    """Call a reader, and see that it refuses in one line that names the file and whatever else is given."""

    def check(read, path, *names):
        with pytest.raises(InputError) as error:
            read(path)
        message = str(error.value)
        assert "\n" not in message
        for name in (Path(path).name, *names):
            assert name in message, message
        return message

    return check
