"""Plots and tables of a run."""

from seqcl.report.curves import plot_curves, read_history
from seqcl.report.indexes import plot_indexes
from seqcl.report.page import Details, Sheet, write_page
from seqcl.report.study import write_study
from seqcl.report.table import heading_of, print_comparison, print_contrast, print_results, seeds_of

__all__ = [
    "Details",
    "Sheet",
    "heading_of",
    "plot_curves",
    "plot_indexes",
    "print_comparison",
    "print_contrast",
    "print_results",
    "read_history",
    "seeds_of",
    "write_page",
    "write_study",
]
