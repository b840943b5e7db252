"""``index.html`` of a run: one self-contained file, from its tables, figures and rows; imports no model code."""

from bench.report.page.render import INDEX, Picture, write_page

__all__ = ["INDEX", "Picture", "write_page"]
