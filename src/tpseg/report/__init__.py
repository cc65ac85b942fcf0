"""The report on a run: one self-contained HTML page."""

from tpseg.report.page import write_report

__all__ = ["write_report"]
