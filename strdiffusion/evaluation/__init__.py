"""Evaluation: how good results are.

* folder.py: a method on a folder of images, as `options.py` says; pictures.py, table.py: what it writes
* compare.py: any outputs against their truths (`judging_options.py`), by metrics.py and perceptual.py; report.py: the tables of it
* reproduce.py: tables of runs and methods (`table_options.py`), with published.py beside them; render.py writes them
* columns.py: all metrics by name, and how they are printed
"""
