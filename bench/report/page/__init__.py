"""``index.html`` of a run: one self-contained file, from its tables, figures and rows; imports no model code."""

from bench.report.page.pictures import explanation_pictures
from bench.report.page.render import Picture, write_page

__all__ = ["Picture", "explanation_pictures", "write_page"]
