"""What holds for every test: a cache of its own, and no time limit on generated examples."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The first example of a property may compile code, so hypothesis's 200 ms say nothing here.
settings.register_profile("transect", deadline=None, print_blob=True)
settings.load_profile("transect")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep compiled code out of the user's cache, and the user's cache out of the results.

    The environment itself changes, because compile workers and fresh interpreters inherit it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "TRANSECT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
