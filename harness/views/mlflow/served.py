"""A database that a server keeps (PostgreSQL, MySQL, SQL Server): what is wrong with it, before MLflow opens it."""

from __future__ import annotations

import importlib.util
from typing import Any

from harness.errors import UserError
from harness.views.mlflow import database
from harness.views.mlflow.limit import within
from harness.views.mlflow.where import first_line, redact

_TIMEOUT_S = 5.0
_KINDS = ("postgresql", "mysql", "mssql")
_PACKAGES = {"psycopg2": '"capsbench[postgres]"', "psycopg": '"psycopg[binary]"', "MySQLdb": "mysqlclient"}
"""Module -> the package that it comes in, where that has another name."""
_PATIENCE = {  # of libpq: without these, a connection that was cut silently is noticed after two hours
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_SAID = {  # what drivers say -> what it means
    "password authentication failed": "it refuses the user name or the password",
    "no password supplied": "it asks for a password, and the address has none (nor has PGPASSWORD or ~/.pgpass)",
    "Access denied": "it refuses the user name or the password",
    "Connection refused": "nothing listens there: is the database running, and is that its port?",
    "could not translate host name": "there is no machine of that name, or this one cannot look it up",
    "failed to resolve host": "there is no machine of that name, or this one cannot look it up",
    "no pg_hba.conf entry": "its pg_hba.conf lets nobody in from this machine by that name",
    "too many clients": "it has no connection left for us",
    "starting up": "it is only starting up: try again in some seconds",
    "recovery mode": "it is recovering from a crash: try again in some seconds",
    "shutting down": "it is shutting down",
}


def problem(uri: str) -> str | None:
    """Why MLflow cannot keep runs in the database at `uri`, and what to do; None if it can, or if that cannot be known.

    Takes some seconds at most, apart from sqlalchemy.exc imports.
    """
    if not uri.startswith(_KINDS) or importlib.util.find_spec("sqlalchemy") is None:
        return None
    shown = redact(uri)
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    try:
        engine = create_engine(uri, poolclass=NullPool)  # imports the driver
    except ImportError as error:
        name = str(error.name or "")
        package = '"capsbench[postgres]"' if uri.startswith("postgresql://") else _PACKAGES.get(name, name)
        return f"the database {shown} needs a driver, which is missing ({first_line(error)}): pip install {package}"
    except (SQLAlchemyError, ValueError) as error:
        return f"the database {shown} cannot be used: {first_line(error)}"
    try:
        revision, lacks = within(_TIMEOUT_S, lambda: _examined(engine))
    except TimeoutError:
        return f"the database {shown} gives no answer within {_TIMEOUT_S:g} s: is its machine up, and can this one reach it?"
    except (SQLAlchemyError, ValueError) as error:
        found = next((words for said, words in _SAID.items() if said in str(error)), None)
        missing = isinstance(error, OperationalError) and "does not exist" in str(error)
        return f"the database {shown} cannot be used: {found or (_missing(error) if missing else first_line(error))}"
    if lacks:
        return f"the database {shown} cannot be used: {lacks}"
    if revision is not None:
        try:
            database.require_schema(shown, revision, shown)
        except UserError as error:
            return str(error)
    return None


def watched(uri: str) -> str:
    """The address for MLflow: a PostgreSQL that is no longer there is noticed within half a minute."""
    if not uri.startswith("postgresql") or importlib.util.find_spec("sqlalchemy") is None:
        return uri
    from sqlalchemy import make_url

    url = make_url(uri)
    if url.get_driver_name() not in ("psycopg", "psycopg2"):
        return uri
    given = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    return url.update_query_dict(given).render_as_string(hide_password=False)


def _examined(engine: Any) -> tuple[str | None, str | None]:
    """The version of MLflow's tables (None if there are none yet), and what the user may not do there but must."""
    from sqlalchemy import inspect, text

    with engine.connect() as connection:
        has_tables = "alembic_version" in inspect(connection).get_table_names()
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if has_tables else None
        revision = None if found is None else str(found)
        if engine.dialect.name != "postgresql":
            return revision, None
        if connection.execute(text("SHOW transaction_read_only")).scalar() == "on":
            return revision, "it may only be read (a standby?)"
        user, schema = connection.execute(text("SELECT current_user, current_schema()")).one()
        if revision is None:
            asked, to = "has_schema_privilege(current_schema(), 'CREATE')", f"GRANT CREATE ON SCHEMA {schema} TO {user}"
            may_not = f"{user} may not create MLflow's tables in it"
        else:
            asked, to = "has_table_privilege('runs', 'INSERT')", f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {user}"
            may_not = f"{user} may not write MLflow's tables in it"
        if schema is None or connection.execute(text(f"SELECT {asked}")).scalar():
            return revision, None
        return revision, f"{may_not}: its owner can allow that with: {to}"


def _missing(error: Exception) -> str:
    """ "role "x" does not exist", out of what the driver says."""
    line = next(each for each in str(error).splitlines() if "does not exist" in each)
    return redact(line.rpartition("FATAL:")[2].strip())
