"""Evaluation: test a method on a folder of images, judge results against truths, and make tables of runs.

* folder.py: a method on a folder of images (options.py); pictures.py and table.py write its results
* compare.py: any outputs against their truths (judging_options.py), with metrics.py and perceptual.py; report.py writes the tables
* judge.py: a network that names the class of every pixel, and metrics by it; samples.py: several results of each image
* reproduce.py: tables of runs and methods (table_options.py) beside published numbers (published.py); render.py writes them
* columns.py: all metrics by name, and how they are printed
"""
