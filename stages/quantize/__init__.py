"""From the float file to compiled files; `stages.compilers` has the table."""
