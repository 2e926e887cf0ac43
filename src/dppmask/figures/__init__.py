"""Pictures, tables and the report: everything here takes results and draws; nothing is trained or measured.

Figures are plain :class:`matplotlib.figure.Figure` objects without pyplot, so drawing needs no display and
leaves no global state.
"""
