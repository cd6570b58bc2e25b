"""Evaluation: metrics.py, folder.py (inpaint a folder and judge it), table.py (CSV and summary), golden.py (the released numbers).

columns.py: the metrics of all tables, how they are named and printed.
"""
