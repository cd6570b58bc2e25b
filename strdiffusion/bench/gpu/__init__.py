"""The first hour on a GPU, for scripts/gpu.py: five parts, each restartable and within a time limit.

* record.py: what is measured already, line by line, and what there is time for; needs.py: packages that may be missing
* checks.py, networks.py, samplers.py, training.py, budget.py: the parts
* commands.py: trainings that are started as a user starts them; collectives.py: what several processes exchange
* report.py: tables
"""
