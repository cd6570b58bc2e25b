"""The speed of networks, samplers and trainings on this machine, for scripts/benchmark.py.

* networks.py, samplers.py, training.py: what is timed
* timing.py: medians of repeated calls, and the best rates of the machine; report.py: tables
"""
