"""Run by Alembic: applies migrations on the connection that `schema_state.migrate` opened, in its transaction."""

from alembic import context

from robustbench_lab.result_store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes most of a table only by replacing it
)
context.run_migrations()
