"""The type ``sql``: a statement on the connected SQLite database."""

from __future__ import annotations

from ...errors import SqlHandlerError
from ..names import DATABASE, SQL_PARAMETER, SQL_RESULT
from ..statements import execute
from .step import Step


def run_sql(step: Step) -> None:
    """Run the statement in a transaction of its own; the rows of a SELECT go to ``SQLResult``.

    ``?`` are filled from ``SQLParameter``, ``@Var`` are bound to variables; text is never pasted.
    """
    path = step.variables.get(DATABASE) or step.context.work.database
    if not path:
        raise SqlHandlerError("No database is connected.", remedy="Name one with connect_database.")
    rows = execute(
        str(path),
        step.method,
        step.variables.get(SQL_PARAMETER),
        step.variables,
        check=step.check,
        report=step.report,
    )
    if rows is not None:
        step.variables[SQL_RESULT] = rows
