"""The schema that this code reads and writes."""

REVISION = "0004"
"""The newest migration. Revisions are numbers that grow by one."""
