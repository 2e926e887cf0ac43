"""The paper's tables and figures as data, a runner that fills them in, and the report.

An experiment (``recipes/paper/table2.yaml``) is rows × columns with the paper's numbers; a scale
(``recipes/paper/scales/tiny.yaml``) is what everything is trained and scored with. Both together give units,
each a pre-training with its evaluations. What a unit measured are cells, a line each in ``cells.jsonl``.
"""
