"""The report: one page of figures, tables, costs and provenance that opens from disk."""
