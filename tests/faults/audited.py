"""Imported, it has audited the paper, as every report does first: the same for every run, a second of each."""

from bench.report.audit import paper_audit

paper_audit()
